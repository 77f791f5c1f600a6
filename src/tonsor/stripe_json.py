"""Stripes as plain data: for each filter a number in hexadecimal, a bit for each position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, get_args

from tonsor.errors import PlanError
from tonsor.stripes import Execution, Stripes


def stripes_to_json(stripes: Stripes) -> dict[str, Any]:
    """Return stripes as plain data.

    >>> stripes_to_json(Stripes((3, 3), (511, 16, 0), "dense"))
    {'kernel': [3, 3], 'rows': '1ff 10 0', 'run': 'dense'}
    """
    rows = " ".join(f"{row:x}" for row in stripes.rows)
    return {"kernel": list(stripes.kernel), "rows": rows, "run": stripes.run}


def stripes_from_json(data: Any, where: str) -> Stripes:
    """Read stripes from plain data, or say what is wrong with it."""
    if not isinstance(data, Mapping) or not data.keys() >= {"kernel", "rows", "run"}:
        _refuse(where, "expected kernel, rows and run", data)
    kernel, text, run = data["kernel"], data["rows"], data["run"]
    if not isinstance(kernel, list) or not all(type(k) is int and k > 0 for k in kernel):
        _refuse(f"{where}.kernel", "expected sizes of at least 1", kernel)
    if run not in ("", *get_args(Execution)):
        _refuse(f"{where}.run", f"expected {' or '.join(get_args(Execution))}, or nothing", run)
    try:
        rows = tuple(int(row, 16) for row in text.split())
    except (AttributeError, ValueError):
        _refuse(f"{where}.rows", "expected numbers in hexadecimal, with spaces between", text)
    found = Stripes(tuple(kernel), rows, run)
    if any(not 0 <= row < 1 << found.positions for row in rows):
        _refuse(f"{where}.rows", f"expected no bit beyond the {found.positions} positions", text)
    return found


def _refuse(where: str, what: str, found: Any) -> NoReturn:
    message = f"the plan is malformed at '{where}': {what}, found {repr(found)[:60]}"
    raise PlanError(message)
