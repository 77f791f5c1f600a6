"""Operators that act on each element alone: all aligned dimensions are the same axis."""

from __future__ import annotations

from tonsor.axes.registry import rule
from tonsor.axes.solver import Axes, Solver
from tonsor.types import Op, Ref, refs

# Pointwise in meaning, though torch does not tag them so, and plain copies.
_COPIES = (
    "aten.clone", "aten.detach", "aten.detach_", "aten.alias", "aten.contiguous", "aten.to",
    "aten._to_copy", "aten.lift_fresh", "aten.lift_fresh_copy", "aten.type_as", "aten.cpu",
    "aten.float", "aten.double", "aten.half", "aten.bfloat16", "aten.conj", "aten.resolve_conj",
    "aten.resolve_neg", "aten.view_as_real_copy", "aten.positive", "aten.requires_grad_",
)  # fmt: skip
_POINTWISE = (
    "aten.dropout", "aten.dropout_", "aten.native_dropout", "aten.feature_dropout",
    "aten.alpha_dropout", "aten.feature_alpha_dropout", "aten.fill_",
    "aten.fill", "aten.zero_", "aten.zeros_like", "aten.ones_like", "aten.empty_like",
    "aten.full_like", "aten.masked_fill", "aten.masked_fill_", "aten.where",
    "aten.nan_to_num", "aten.relu", "aten.relu_", "aten.relu6", "aten.relu6_", "aten.hardswish",
    "aten.hardsigmoid", "aten.hardtanh", "aten.hardtanh_", "aten.hardswish_", "aten.silu_",
    "aten.gelu", "aten.mish", "aten.selu", "aten.celu", "aten.elu", "aten.leaky_relu",
    "aten.leaky_relu_", "aten.log_sigmoid", "aten.softplus", "aten.threshold", "aten.threshold_",
    "aten.rrelu", "aten.square", "aten.clamp", "aten.clamp_", "aten.isfinite", "aten.isinf",
    "aten.div", "aten.true_divide", "aten.floor_divide", "aten.clip", "aten.lerp", "aten.addcmul",
    "aten.addcdiv", "aten.rsub", "aten.pow", "aten.maximum", "aten.minimum", "aten.polar",
    "aten.complex", "aten.real", "aten.imag", "aten.abs", "aten.bitwise_not", "aten.__and__",
    "aten.__or__", "aten._conj", "aten.isclose", "aten.float_power", "aten.bernoulli",
    "aten.softshrink", "aten.hardshrink", "aten.tanhshrink", "aten.softsign", "aten.glu_jvp",
    "aten.bernoulli_", "aten.uniform_", "aten.normal_", "aten.rand_like", "aten.randn_like",
)  # fmt: skip


def pointwise(s: Solver, op: Op) -> list[Axes]:
    """Unify aligned dimensions; a dimension of one spreads over the others."""
    found = [Ref(v) for v in refs(tuple(op.args.values()))]
    return [s.broadcast(op, found, s.out_shape(op, i)) for i in range(len(op.outputs))]


for _name in _POINTWISE:
    rule(_name)(pointwise)


@rule(*_COPIES)
def copy(s: Solver, op: Op) -> list[Axes]:
    """A copy keeps its axes, and is zero wherever the original is."""
    (first, *_) = op.inputs
    if first in s.zeroed and op.outputs[0] is not None:
        s.zeroed.add(op.outputs[0])
    return [s.of(first)]


@rule("aten.copy_")
def copy_into(s: Solver, op: Op) -> list[Axes]:
    """Writing into a tensor ties it to what is written."""
    return pointwise(s, op)


@rule("aten.prelu", "aten._prelu_kernel")
def prelu(s: Solver, op: Op) -> list[Axes]:
    """One slope for all channels, or one each."""
    x, weight = s.of(op["self"]), s.of(op["weight"])
    if len(weight) == 1 and weight[0].size > 1:
        s.unify(x[1 if len(x) > 1 else 0], weight[0])
        return [x]
    return pointwise(s, op)


@rule("aten.glu")
def glu(s: Solver, op: Op) -> list[Axes]:
    """One half gates the other."""
    x = list(s.of(op["self"]))
    dim = op.get("dim", -1) % len(x)
    half = x[dim].size // 2
    x[dim] = s.unify(s.take(x[dim], 0, half), s.take(x[dim], half, 2 * half))
    return [x]
