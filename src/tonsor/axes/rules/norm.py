"""Normalisation: affine parameters follow; statistics over a cut axis are approximate."""

from __future__ import annotations

from tonsor.axes.registry import rule
from tonsor.axes.rules.attention import SOFTMAX, note_attention
from tonsor.axes.solver import Axes, Solver
from tonsor.types import Op


@rule(
    "aten.batch_norm", "aten.native_batch_norm", "aten.cudnn_batch_norm",
    "aten._native_batch_norm_legit", "aten._native_batch_norm_legit_no_training",
    "aten._batch_norm_impl_index", "aten.instance_norm", "aten._batch_norm_no_update",
)  # fmt: skip
def batch_norm(s: Solver, op: Op) -> list[Axes | None]:
    """Each channel by itself; statistics taken from what comes in run over all other axes."""
    x = s.of(op["input"])
    channels = x[1] if len(x) > 1 else x[0]
    for name in ("weight", "bias", "running_mean", "running_var"):
        for node in s.of(op[name]) if op.get(name) is not None else []:
            s.unify(channels, node)
    if op.get("training") or op.get("use_input_stats"):
        others = x[2:] if op.get("use_input_stats") else [*x[:1], *x[2:]]
        s.mix(others, op.name.removeprefix("aten."), approximate=True)
    return [x]


@rule("aten.layer_norm", "aten.native_layer_norm", "aten.rms_norm", "aten._fused_rms_norm")
def layer_norm(s: Solver, op: Op) -> list[Axes | None]:
    """Statistics run over the last axes."""
    x = s.of(op["input"])
    sizes = op["normalized_shape"]
    last = x[len(x) - len(sizes) :]
    for name in ("weight", "bias"):
        if op.get(name) is not None:
            s.unify_all(last, s.of(op[name]))
    for i, node in enumerate(last):
        s.sized(op, "normalized_shape", i, node)
    s.mix(last, op.name.removeprefix("aten."), approximate=True)
    return [x]


@rule("aten.group_norm", "aten.native_group_norm")
def group_norm(s: Solver, op: Op) -> list[Axes | None]:
    """Statistics run over the channels of a group: whole groups can go exactly."""
    x = s.of(op["input"])
    groups = op["num_groups"] if "num_groups" in op.args else op["group"]
    outer, inner = s.split(x[1], [groups, x[1].size // groups])
    for name in ("weight", "bias"):
        if op.get(name) is not None:
            s.unify(x[1], s.of(op[name])[0])
    if "num_groups" in op.args:
        s.sized(op, "num_groups", None, outer)
    s.mix([inner], "group_norm", approximate=True)
    return [x]


@rule(*SOFTMAX, "aten.log_softmax", "aten._log_softmax")
def softmax(s: Solver, op: Op) -> list[Axes]:
    """Weights that sum to one along an axis."""
    x = s.of(op["self"])
    s.mix([x[op["dim"] % len(x)]] if x else [], "softmax", approximate=True)
    note_attention(s, op)
    return [x]


@rule("aten._weight_norm", "aten._weight_norm_interface")
def weight_norm(s: Solver, op: Op) -> list[Axes | None]:
    """w = g · v / ‖v‖, the norm over all axes but one."""
    v, g = s.axes_of(op, "v", "g")
    for a, b in zip(v, g, strict=True):
        if a.size == b.size:
            s.unify(a, b)
    if op.outputs[0] is not None:
        s.zeroed.add(op.outputs[0])
    s.mix(v, "weight_norm", approximate=True)
    return [v]


@rule("aten.norm_except_dim")
def norm_except_dim(s: Solver, op: Op) -> list[Axes]:
    """The norm over all axes but one."""
    v = s.of(op["v"])
    s.mix(v, "weight_norm", approximate=True)
    out = s.out_shape(op)
    return [[a if n != 1 else s.fresh(1) for a, n in zip(v, out, strict=True)]]
