"""Tensors made from nothing: their axes are free, unless their values depend on position."""

from __future__ import annotations

from tonsor.axes.registry import rule
from tonsor.axes.solver import Axes, Solver
from tonsor.types import Op


@rule(
    "aten.zeros", "aten.ones", "aten.full", "aten.empty", "aten.new_zeros", "aten.new_ones",
    "aten.new_full", "aten.new_empty", "aten.empty_strided", "aten.new_empty_strided",
    "aten.scalar_tensor", "aten.empty_permuted",
)  # fmt: skip
def constant(s: Solver, op: Op) -> list[Axes]:
    """The same value everywhere: any index can go."""
    return [[s.fresh(n) for n in s.out_shape(op)]]


@rule(
    "aten.arange", "aten.linspace", "aten.logspace", "aten.eye", "aten.tril_indices",
    "aten.triu_indices", "aten.rand", "aten.randn", "aten.randint", "aten.randperm",
    "aten.normal", "aten.hann_window", "aten.hamming_window", "aten.blackman_window",
    "aten._efficientzerotensor", "aten.tensor", "aten.range",
)  # fmt: skip
def numbered(s: Solver, op: Op) -> list[Axes]:
    """Values that count positions, or are drawn one by one."""
    what = f"its values come from {op.name.removeprefix('aten.')}, one for each position"
    return [[s.data(n, what) for n in s.out_shape(op, i)] for i in range(len(op.outputs))]


@rule(
    "aten._assert_tensor_metadata", "aten._assert_async", "aten._assert_scalar",
    "aten.sym_constrain_range", "aten.sym_constrain_range_for_size", "aten.sym_size",
    "aten._functional_assert_async", "aten.equal", "aten.is_nonzero", "aten._local_scalar_dense",
    "aten.item",
)  # fmt: skip
def nothing(s: Solver, op: Op) -> list[Axes]:
    """Asserts or reads, and makes no tensor."""
    return []
