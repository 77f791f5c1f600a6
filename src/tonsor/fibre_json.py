"""Fibres as plain data: a number in hexadecimal for each row, in it a bit for each position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from tonsor.errors import PlanError
from tonsor.fibres import Fibres, Kind


def fibres_to_json(fibres: Fibres) -> dict[str, Any]:
    """Return fibres as plain data, all but their kind.

    >>> fibres_to_json(Fibres("stripes", (3, 3), (511, 16, 0), "dense"))
    {'kernel': [3, 3], 'rows': '1ff 10 0', 'run': 'dense'}
    """
    rows = " ".join(f"{row:x}" for row in fibres.rows)
    return {"kernel": list(fibres.kernel), "rows": rows, "run": fibres.run}


def fibres_from_json(kind: Kind, data: Any, where: str) -> Fibres:
    """Read fibres of a kind from plain data, or say what is wrong with it."""
    if not isinstance(data, Mapping) or not data.keys() >= {"kernel", "rows", "run"}:
        _refuse(where, "expected kernel, rows and run", data)
    kernel, text, run = data["kernel"], data["rows"], data["run"]
    if not isinstance(kernel, list) or not all(type(k) is int and k > 0 for k in kernel):
        _refuse(f"{where}.kernel", "expected sizes of at least 1", kernel)
    if run not in ("", kind, "dense"):
        _refuse(f"{where}.run", f"expected {kind} or dense, or nothing", run)
    try:
        rows = tuple(int(row, 16) for row in text.split())
    except (AttributeError, ValueError):
        _refuse(f"{where}.rows", "expected numbers in hexadecimal, with spaces between", text)
    found = Fibres(kind, tuple(kernel), rows, run)
    if any(not 0 <= row < 1 << found.positions for row in rows):
        _refuse(f"{where}.rows", f"expected no bit beyond the {found.positions} positions", text)
    return found


def _refuse(where: str, what: str, found: Any) -> NoReturn:
    message = f"the plan is malformed at '{where}': {what}, found {repr(found)[:60]}"
    raise PlanError(message)
