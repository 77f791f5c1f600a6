"""How the result of a block is arranged, once only the shortcut is left of it.

Written as plain data, so that it can be part of a plan: "x" is the tensor that runs through, "0"
a zero of its size, `{"arg": path}` something that was handed in, `{"is": value}` a plain value,
and `{"tuple": [...]}`, `{"list": [...]}` and `{"dict": {...}}` hold others.
"""

from __future__ import annotations

from typing import Any

from tonsor.families.blocks.block import Path
from tonsor.families.blocks.flow import Flow, State
from tonsor.types import Call, Ref, Unknown


class NotArrangedError(Exception):
    """What a block returns can't be made without it."""


def arrangement(flow: Flow, call: Call, main: State, sign: str) -> Any:
    """Return how a call arranges its result, with `sign` in the place of the main tensor."""
    given = {state: path for path, state in flow.given(call).items()}
    handed = {
        token: path
        for root, items in (((), enumerate(call.args)), ((), call.kwargs.items()))
        for key, item in items
        for path, token in _unknown(item, (*root, key))
    }

    def arranged(value: Any) -> Any:
        if isinstance(value, Ref):
            state = flow.before(value.value, call.stop)
            if state == main:
                return sign
            if state in given:
                return {"arg": list(given[state])}
            if flow.used_after(state, call.stop):
                message = "it returns several tensors that are used later"
                raise NotArrangedError(message)
            return {"is": None}
        if isinstance(value, (tuple, list)):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [arranged(v) for v in value]}
        if isinstance(value, dict):
            return {"dict": {k: arranged(v) for k, v in value.items()}}
        if isinstance(value, Unknown):
            if value.token in handed:
                return {"arg": list(handed[value.token])}
            message = f"it returns a {value.kind}, which nothing but the block can make"
            raise NotArrangedError(message)
        return {"is": value}

    return arranged(call.out)


def _unknown(value: Any, path: Path) -> list[tuple[Path, int]]:
    if isinstance(value, Unknown):
        return [(path, value.token)]
    if isinstance(value, (tuple, list)):
        return [p for i, v in enumerate(value) for p in _unknown(v, (*path, i))]
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in _unknown(v, (*path, k))]
    return []
