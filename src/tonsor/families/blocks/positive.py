"""Which tensors can't be negative, whatever the weights are: an activation leaves them as is."""

from __future__ import annotations

from tonsor.families.blocks.flow import Flow, State
from tonsor.types import Ref

_MAKES = frozenset({
    "aten.relu", "aten.relu_", "aten.relu6", "aten.sigmoid", "aten.sigmoid_", "aten.softmax",
    "aten.exp", "aten.abs", "aten.square", "aten.hardsigmoid", "aten.softplus",
})  # fmt: skip
_KEEPS = frozenset({
    "aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d", "aten.avg_pool1d", "aten.avg_pool2d",
    "aten.avg_pool3d", "aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d",
    "aten.adaptive_avg_pool3d", "aten.adaptive_max_pool2d", "aten.dropout", "aten.dropout_",
    "aten.view", "aten.reshape", "aten._unsafe_view", "aten.flatten", "aten.permute",
    "aten.transpose", "aten.contiguous", "aten.clone", "aten.detach", "aten.alias", "aten.slice",
    "aten.expand", "aten.squeeze", "aten.unsqueeze", "aten.mean", "aten.sum", "aten.to",
})  # fmt: skip
_BOTH = frozenset({"aten.add", "aten.add_", "aten.mul", "aten.mul_"})


def positive(flow: Flow, state: State) -> bool:
    """Whether no element of a tensor is below zero, as its making shows."""
    op = flow.maker(state)
    if op is None:
        return False
    if op.name in _MAKES:
        return True
    if op.name in ("aten.hardtanh", "aten.hardtanh_"):
        return float(op.get("min_val", -1.0)) >= 0
    if op.name in _KEEPS:
        given = [v for v in ("self", "input") if isinstance(op.get(v), Ref)]
        return bool(given) and positive(flow, flow.before(op[given[0]].value, op.index))
    if op.name in _BOTH and float(op.get("alpha", 1)) >= 0:
        sides = [op.get("self"), op.get("other")]
        return all(
            positive(flow, flow.before(s.value, op.index)) if isinstance(s, Ref)
            else isinstance(s, (int, float)) and s >= 0
            for s in sides
        )  # fmt: skip
    return False
