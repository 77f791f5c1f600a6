"""Plans as JSON: one readable file that says what goes, and outlives the process.

The file holds no tensor and no code, so reading one is safe. An axis is written as the number
of a leaf, as `["x", ...]` for a product, or as `["+", ...]` for axes side by side.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tonsor.drop_json import drop_from_json, drop_to_json
from tonsor.errors import PlanError
from tonsor.fibre_json import fibres_from_json, fibres_to_json
from tonsor.fibres import Fibres, Kind, rows_of
from tonsor.files import replacing
from tonsor.graph.describe import describe, make_inputs
from tonsor.plans import Plan
from tonsor.surgery.ties import Tie, broken
from tonsor.types import Axis, Leaf, Mend, Product, concat, product

FORMAT = "tonsor plan"
VERSION = 5
READABLE = (1, 2, 3, 4, 5)  # 1 knew no ties, 2 no blocks, 3 no stripes, 4 no columns

_SIGNS = {"x": product, "+": concat}


def save_plan(path: str | Path, plan: Plan) -> None:
    """Write a plan as a JSON file, whole or not at all."""
    with replacing(path) as part:
        part.write_text(plan_text(plan), "utf-8")


def load_plan(path: str | Path) -> Plan:
    """Read a plan from a JSON file.

    Its example input is made anew: random numbers of the same shapes, types and ranges.
    """
    text = Path(path).read_bytes()
    try:
        return plan_from_json(json.loads(text))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        message = f"'{path}' is not a plan, for it is not JSON: {error}"
        raise PlanError(message) from error
    except PlanError as error:
        message = f"'{path}': {error}"
        raise PlanError(message) from error


# ---------------------------------------------------------------- writing


def plan_text(plan: Plan) -> str:
    """Write a plan as JSON with one entry a line, which reads and compares well."""
    entries = [f" {_dump(k)}: {_spread(v)}" for k, v in plan_to_json(plan).items()]
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _spread(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "{\n" + ",\n".join(f"  {_dump(k)}: {_dump(v)}" for k, v in value.items()) + "\n }"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {_dump(v)}" for v in value) + "\n ]"
    return _dump(value)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data."""
    numbers: dict[Leaf, int] = {}
    layout = {n: [_axis_to_json(a, numbers) for a in axes] for n, axes in plan.layout.items()}
    mends = [
        {"module": m.module, "path": list(m.path), "axis": _axis_to_json(m.axis, numbers)}
        for m in plan.mends
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_by": _plain(plan.made_by, "made_by"),
        "keep": {name: list(kept) for name, kept in plan.keep.items()},
        "leaves": [[leaf.name, leaf.size] for leaf in numbers],
        "layout": layout,
        "mends": mends,
        "ties": [dict(tie) for tie in plan.ties],
        "drops": [drop_to_json(drop) for drop in plan.drops],
        "stripes": {name: fibres_to_json(found) for name, found in plan.stripes.items()},
        "columns": {name: fibres_to_json(found) for name, found in plan.columns.items()},
        "fingerprint": {name: list(shape) for name, shape in plan.fingerprint.items()},
        "probe": None if plan.probe is None else describe(plan.probe),
    }


def _axis_to_json(axis: Axis, numbers: dict[Leaf, int]) -> Any:
    if isinstance(axis, Leaf):
        return numbers.setdefault(axis, len(numbers))
    if isinstance(axis, Product):
        return ["x", *(_axis_to_json(f, numbers) for f in axis.factors)]
    return ["+", *(_axis_to_json(s, numbers) for s in axis.segments)]


def _plain(value: Any, where: str) -> Any:
    """Turn tuples and numpy's numbers into what JSON has; refuse what it has not."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    message = f"{where} is {value!r}, which JSON can't hold; leave it out or make it text"
    raise PlanError(message)


# ---------------------------------------------------------------- reading


def plan_from_json(data: Any) -> Plan:
    """Read a plan from plain data, or say what is wrong with it."""
    _check_format(data)
    fingerprint = {
        name: tuple(_size(s, f"fingerprint.{name}") for s in _list(shape, f"fingerprint.{name}"))
        for name, shape in _dict(data, "fingerprint").items()
    }
    leaves = _leaves(_list(data.get("leaves"), "leaves"))
    layout = {
        name: tuple(_axis(a, leaves, f"layout.{name}") for a in _list(axes, f"layout.{name}"))
        for name, axes in _dict(data, "layout").items()
    }
    keep = {name: _kept(kept, f"keep.{name}") for name, kept in _dict(data, "keep").items()}
    mends = [
        _mend(row, leaves, f"mends[{i}]") for i, row in enumerate(_list(data.get("mends"), "mends"))
    ]
    rows = _list(data.get("ties"), "ties") if data["version"] >= 2 else []
    ties = [_tie(row, f"ties[{i}]") for i, row in enumerate(rows)]
    rows = _list(data.get("drops", []), "drops")
    drops = [drop_from_json(row, f"drops[{i}]") for i, row in enumerate(rows)]
    fibres = _fibres("stripes", data)
    for name, found in _fibres("columns", data).items():
        if name in fibres:
            _refuse(f"columns.{name}", "the plan has stripes of it, and a layer is either")
        fibres[name] = found
    probe = data.get("probe")
    plan = Plan(
        fingerprint=fingerprint,
        keep=keep,
        layout=layout,
        mends=tuple(mends),
        ties=tuple(ties),
        drops=tuple(drops),
        fibres=fibres,
        made_by=dict(_dict(data, "made_by")),
        probe=None if probe is None else make_inputs(probe),
    )
    _check_sizes(plan)
    return plan


def _fibres(kind: Kind, data: Mapping[str, Any]) -> dict[str, Fibres]:
    return {
        name: fibres_from_json(kind, found, f"{kind}.{name}")
        for name, found in _dict({kind: {}, **data}, kind).items()
    }


def _check_format(data: Any) -> None:
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        message = f'this is not a plan: it has no "format": "{FORMAT}"'
        raise PlanError(message)
    version = data.get("version")
    if type(version) is not int or version not in READABLE:
        newer = isinstance(version, int) and version > VERSION
        hint = "a newer tonsor wrote it; update tonsor to read it" if newer else "make it anew"
        known = " and ".join(map(str, READABLE))
        message = f"the plan is of version {version!r}, only {known} can be read: {hint}"
        raise PlanError(message)


def _check_sizes(plan: Plan) -> None:
    """Make sure that what the plan says in several places is the same everywhere."""
    for name, axes in plan.layout.items():
        shape = tuple(a.size for a in axes)
        if plan.fingerprint.get(name) != shape:
            known = plan.fingerprint.get(name, "missing")
            _refuse(f"layout.{name}", f"its axes have sizes {shape}, its fingerprint is {known}")
    sizes = plan.sizes
    for name, kept in plan.keep.items():
        if name not in sizes:
            _refuse(f"keep.{name}", "no tensor in the layout has an axis of this name")
        if kept[-1] >= sizes[name]:
            _refuse(f"keep.{name}", f"there is no index {kept[-1]} in a group of {sizes[name]}")
    for name, found in plan.fibres.items():
        shape = plan.fingerprint.get(name, ())
        if len(shape) < 3 or (shape[found.dim], *shape[2:]) != (len(found.rows), *found.kernel):
            there = f"{len(found.rows)} {rows_of(found.kind)} of {found.kernel}"
            _refuse(
                f"{found.kind}.{name}",
                f"these are {found.kind} of {there}, its fingerprint is {shape}",
            )
    for i, tie in enumerate(plan.ties):
        for name in tie.keys() - sizes.keys():
            _refuse(f"ties[{i}]", f"no tensor in the layout has an axis '{name}'")
    if (torn := broken(plan.ties, plan.counts, sizes)) is not None:
        _refuse("ties", torn)


def _refuse(where: str, what: str) -> NoReturn:
    message = f"the plan is malformed at '{where}': {what}"
    raise PlanError(message)


def _brief(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:60]


def _dict(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    if not isinstance(value, Mapping):
        _refuse(key, f"expected an object, found {_brief(value)}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        _refuse(where, f"expected a list, found {_brief(value)}")
    return value


def _size(value: Any, where: str) -> int:
    if type(value) is not int or value < 0:
        _refuse(where, f"expected a whole number of at least 0, found {_brief(value)}")
    return value


def _leaves(rows: list[Any]) -> list[Leaf]:
    found = []
    for i, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)):
            _refuse(f"leaves[{i}]", f"expected [name, size], found {_brief(row)}")
        found.append(Leaf(row[0], _size(row[1], f"leaves[{i}]")))
    if len({leaf.name for leaf in found}) != len(found):
        _refuse("leaves", "two leaves have the same name")
    return found


def _axis(value: Any, leaves: list[Leaf], where: str) -> Axis:
    if type(value) is int and 0 <= value < len(leaves):
        return leaves[value]
    if isinstance(value, list) and len(value) > 1 and value[0] in ("x", "+"):
        return _SIGNS[value[0]](*(_axis(v, leaves, where) for v in value[1:]))
    expected = 'the number of a leaf, ["x", ...] or ["+", ...]'
    _refuse(where, f"expected {expected}, found {_brief(value)}")


def _kept(value: Any, where: str) -> tuple[int, ...]:
    kept = tuple(_size(v, where) for v in _list(value, where))
    if not kept or any(a >= b for a, b in itertools.pairwise(kept)):
        _refuse(where, "expected ascending indices, at least one")
    return kept


def _mend(value: Any, leaves: list[Leaf], where: str) -> Mend:
    if not isinstance(value, Mapping) or not isinstance(value.get("module"), str):
        _refuse(where, f"expected module, path and axis, found {_brief(value)}")
    path = _list(value.get("path"), f"{where}.path")
    if not path or not isinstance(path[0], str) or any(type(p) not in (str, int) for p in path):
        _refuse(f"{where}.path", f"expected an attribute, found {_brief(path)}")
    return Mend(value["module"], tuple(path), _axis(value.get("axis"), leaves, f"{where}.axis"))


def _tie(value: Any, where: str) -> Tie:
    if not isinstance(value, Mapping) or not value:
        _refuse(where, f"expected groups and their steps, found {_brief(value)}")
    if any(type(unit) is not int or unit < 1 for unit in value.values()):
        _refuse(where, f"expected steps of at least 1, found {_brief(value)}")
    return dict(value)
