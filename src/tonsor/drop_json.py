"""Blocks that go as plain data, for the file of a plan, and back with every field checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn, get_args

from tonsor.drops import Drop, DropKind, Fit, Spot
from tonsor.errors import PlanError

_HOLDERS = ("tuple", "list")
_PLAIN = (bool, int, float, str, type(None))


def drop_to_json(drop: Drop) -> dict[str, Any]:
    """Return a block that goes as plain data; what says nothing is left out."""
    data: dict[str, Any] = {
        "name": drop.name, "kind": drop.kind, "modules": list(drop.modules),
        "takes": list(drop.takes), "gives": drop.gives,
    }  # fmt: skip
    if drop.through:
        data["through"] = list(drop.through)
    if drop.zeroed:
        data["zeroed"] = [_spot_to_json(s) for s in drop.zeroed]
    if drop.bypassed is not None:
        data["bypassed"] = [_spot_to_json(s) for s in drop.bypassed]
        data |= {"weight": drop.weight, "fit": drop.fit, "channels": list(drop.channels)}
        data["dim"] = drop.dim
    if not drop.renumber:
        data["renumber"] = False
    return data


def drop_from_json(data: Any, where: str) -> Drop:
    """Read a block that goes, or say what is wrong with it."""
    if not isinstance(data, Mapping):
        _refuse(where, "an object", data)
    takes = _items(data, "takes", where, str, int)
    modules = _items(data, "modules", where, str)
    if not takes or not modules:
        _refuse(where, "modules that go, and where their input is", data)
    drop = Drop(
        name=_one(data, "name", where, str),
        kind=_word(data, "kind", where, get_args(DropKind)),
        modules=tuple(modules),
        takes=tuple(takes),
        gives=_gives(data.get("gives"), f"{where}.gives"),
        through=tuple(_items(data, "through", where, str)),
        zeroed=_spots(data, "zeroed", where),
        renumber=_one(data, "renumber", where, bool, default=True),
    )
    return _layer(drop, data, where) if drop.kind == "plain" else drop


def _layer(drop: Drop, data: Mapping[str, Any], where: str) -> Drop:
    """Read what a plain layer has besides."""
    bypassed = _spots(data, "bypassed", where)
    if len(bypassed) != 2:
        _refuse(f"{where}.bypassed", "where it begins and where it ends", data.get("bypassed"))
    channels = _items(data, "channels", where, int)
    if len(channels) != 2:
        _refuse(f"{where}.channels", "two numbers", channels)
    return replace(
        drop,
        bypassed=(bypassed[0], bypassed[1]),
        weight=_one(data, "weight", where, str),
        fit=_word(data, "fit", where, get_args(Fit)),
        channels=(channels[0], channels[1]),
        dim=_one(data, "dim", where, int),
    )


def _spot_to_json(spot: Spot) -> list[str | int]:
    return [spot.module, spot.operator, spot.turn, spot.argument]


def _spots(data: Mapping[str, Any], key: str, where: str) -> tuple[Spot, ...]:
    found = _items(data, key, where, list)
    for i, value in enumerate(found):
        if [type(v) for v in value] != [str, str, int, str]:
            _refuse(f"{where}.{key}[{i}]", "module, operator, turn and argument", value)
    return tuple(Spot(*value) for value in found)


def _gives(value: Any, where: str) -> Any:
    """Check how a result is arranged."""
    if value in ("x", "0"):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        ((kind, inner),) = value.items()
        if kind == "is" and type(inner) in _PLAIN:
            return {"is": inner}
        if kind == "arg" and isinstance(inner, list) and inner:
            return {"arg": _items(value, "arg", where, str, int)}
        if kind in _HOLDERS and isinstance(inner, list):
            return {kind: [_gives(v, where) for v in inner]}
        if kind == "dict" and isinstance(inner, Mapping):
            return {"dict": {k: _gives(v, where) for k, v in inner.items()}}
    _refuse(where, "how a result is arranged", value)


def _items(data: Mapping[str, Any], key: str, where: str, *kinds: type) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list) or any(type(v) not in kinds for v in value):
        _refuse(f"{where}.{key}", "a list", value)
    return value


def _one(data: Mapping[str, Any], key: str, where: str, kind: type, default: Any = None) -> Any:
    value = data.get(key, default)
    if type(value) is not kind:
        _refuse(f"{where}.{key}", f"a value of type {kind.__name__}", value)
    return value


def _word(
    data: Mapping[str, Any], key: str, where: str, words: tuple[str, ...], default: str = ""
) -> Any:
    value = data.get(key, default)
    if value not in words:
        _refuse(f"{where}.{key}", f"one of {', '.join(words)}", value)
    return value


def _refuse(where: str, expected: str, found: Any) -> NoReturn:
    seen = "nothing" if found is None else repr(found)[:60]
    message = f"the plan is malformed at '{where}': expected {expected}, found {seen}"
    raise PlanError(message)
