"""What each operator costs: one small formula each, and the operators that are free.

One multiply-accumulate (MAC) is one unit of `conv`, `linear`, `matmul`, `attention` and
`recurrent`; 1 MAC = 2 FLOPs. A convention (see `conventions`) says which kinds it counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from tonsor.axes import rules
from tonsor.axes.einsum import letters
from tonsor.axes.registry import RULES
from tonsor.cost.free import FREE
from tonsor.cost.terms import FORMULAS, Kind, Reader, Term, formula
from tonsor.types import Axis, Op, Ref

# ---------------------------------------------------------------- multiply-accumulates


@formula("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution", "aten._convolution")
def convolution(r: Reader, op: Op) -> list[Term]:
    """Every output element sums over the kernel and the input channels of its group."""
    if op.get("transposed", False):
        return transposed(r, op)
    out, weight = r.out(op), r.of(op["weight"])
    return [Term("conv", 1, (*out, *weight[1:])), *_bias(r, op)]


@formula("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def transposed(r: Reader, op: Op) -> list[Term]:
    """Every input element is spread over the kernel and the output channels of its group."""
    x, weight = r.of(op["input"]), r.of(op["weight"])
    return [Term("conv", 1, (*x, *weight[1:])), *_bias(r, op)]


@formula("aten.linear")
def linear(r: Reader, op: Op) -> list[Term]:
    """Every output element sums over the input features."""
    return [Term("linear", 1, (*r.out(op), r.of(op["weight"])[-1])), *_bias(r, op)]


def _bias(r: Reader, op: Op) -> list[Term]:
    return [Term("bias", 1, r.out(op))] if isinstance(op.get("bias"), Ref) else []


@formula(
    "aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot", "aten.__matmul__"
)
def matmul(r: Reader, op: Op) -> list[Term]:
    """Every output element sums over the contracted axis."""
    return [Term("matmul", 1, (*r.out(op), r.of(op["self"])[-1]))]


@formula("aten.addmm", "aten.addmv", "aten.baddbmm")
def addmm(r: Reader, op: Op) -> list[Term]:
    """A matrix product, and what is added to it."""
    first = next(op[k] for k in ("mat1", "mat", "batch1") if isinstance(op.get(k), Ref))
    out = r.out(op)
    return [Term("matmul", 1, (*out, r.of(first)[-1])), Term("bias", 1, out)]


@formula("aten.einsum")
def einsum(r: Reader, op: Op) -> list[Term]:
    """Operands meet in pairs, as torch does it; a pair that sums nothing is no product."""
    operands = [r.of(ref) for ref in op["tensors"]]
    found = letters(op["equation"], [len(axes) for axes in operands], len(r.out(op)))
    if found is None:
        message = "a diagonal is taken"
        raise NotImplementedError(message)
    spelled, out = found
    axes: dict[str, Axis] = {}
    for term, operand in zip(spelled, operands, strict=True):
        for letter, axis in zip(term, operand, strict=True):
            if letter not in axes or axes[letter].size == 1:
                axes[letter] = axis
    met = _meetings([set(term) for term in spelled], set(out), op.get("path", ()))
    return [Term(kind, 1, tuple(axes[c] for c in sorted(used))) for kind, used in met]


def _meetings(
    waiting: list[set[str]], out: set[str], path: Sequence[int]
) -> Iterator[tuple[Kind, set[str]]]:
    """Yield the letters that each pair of operands runs over."""
    order = iter(path)
    while len(waiting) > 1:
        i, j = sorted((next(order, 0), next(order, 1)))
        second, first = waiting.pop(j), waiting.pop(i)
        wanted = (first | second) & out.union(*waiting)
        shared = first & second
        yield "matmul" if shared - wanted else "pointwise", wanted | shared
        waiting.append(wanted)
    if not out >= waiting[0]:
        yield "pointwise", waiting[0]


@formula("aten.bilinear")
def bilinear(r: Reader, op: Op) -> list[Term]:
    """Every output element is a row times a matrix, times a column."""
    out, (_, rows, columns) = r.out(op), r.of(op["weight"])
    return [
        Term("matmul", 1, (*out, rows, columns)),
        Term("matmul", 1, (*out, columns)),
        *_bias(r, op),
    ]


@formula("aten._grouped_mm")
def grouped_mm(r: Reader, op: Op) -> list[Term]:
    """Each row meets the matrix of its own group: the experts of a mixture."""
    a, b = r.of(op["self"]), r.of(op["mat2"])
    if len(a) == 2 and len(b) == 2:
        message = "here the contracted axis is what is grouped"
        raise NotImplementedError(message)
    return [Term("matmul", 1, (*r.out(op), a[-1]))]


@formula("aten.cdist", "aten._cdist_forward")
def cdist(r: Reader, op: Op) -> list[Term]:
    """Every distance sums over the coordinates."""
    return [Term("matmul", 1, (*r.out(op), r.of(op["x1"])[-1]))]


@formula("aten.affine_grid_generator")
def affine_grid(r: Reader, op: Op) -> list[Term]:
    """Every coordinate is a row of the matrix times a place."""
    return [Term("matmul", 1, (*r.out(op), r.of(op["theta"])[-1]))]


@formula("aten.scaled_dot_product_attention")
def attention(r: Reader, op: Op) -> list[Term]:
    """Scores q kᵀ and their product with v, for every query head; a causal mask saves nothing."""
    out, query, key = r.out(op), r.of(op["query"]), r.of(op["key"])
    scores = Term("attention", 1, (*out[:-1], key[-2], query[-1]))
    return [scores, Term("attention", 1, (*out, key[-2]))]


@formula("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu")
def recurrent(r: Reader, op: Op) -> list[Term]:
    """Every matrix of every layer and direction is used once for each step of each sequence."""
    x = r.of(op["data"] if op.overload == "data" else op["input"])
    steps = x[:-1]
    weights = [r.of(ref) for ref in op["params"]]
    matrices = [Term("recurrent", 1, (*steps, *w)) for w in weights if len(w) == 2]
    return matrices + [Term("bias", 1, (*steps, *w)) for w in weights if len(w) == 1]


# ---------------------------------------------------------------- elements


BATCH_NORMS = (
    "aten.batch_norm", "aten.native_batch_norm", "aten.cudnn_batch_norm",
    "aten._native_batch_norm_legit", "aten._native_batch_norm_legit_no_training",
    "aten._batch_norm_impl_index", "aten._batch_norm_no_update",
)  # fmt: skip


@formula(
    *BATCH_NORMS, "aten.instance_norm", "aten.layer_norm", "aten.native_layer_norm",
    "aten.rms_norm", "aten._fused_rms_norm", "aten.group_norm", "aten.native_group_norm",
)  # fmt: skip
def norm(r: Reader, op: Op) -> list[Term]:
    """Every element is normalised."""
    return [Term("norm", 1, r.out(op))]


ACTIVATIONS = frozenset(
    f"aten.{name}{place}"
    for place in ("", "_")
    for name in (
        "relu", "relu6", "hardtanh", "hardsigmoid", "hardswish", "leaky_relu", "elu", "celu",
        "selu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus", "softsign", "log_sigmoid",
        "threshold", "rrelu", "softshrink", "hardshrink", "tanhshrink",
    )
)  # fmt: skip


def elementwise(r: Reader, op: Op) -> list[Term]:
    """Every element of the result is worked out by itself."""
    kind = "activation" if op.name in ACTIVATIONS else "pointwise"
    return [Term(kind, 1, r.out(op))]


@formula(
    "aten.softmax", "aten._softmax", "aten._safe_softmax", "aten.log_softmax",
    "aten._log_softmax", "aten.prelu", "aten._prelu_kernel", "aten.glu",
)  # fmt: skip
def activation(r: Reader, op: Op) -> list[Term]:
    """Activations with a weight, a sum or a gate."""
    return [Term("activation", 1, r.out(op))]


@formula(
    "aten.sum", "aten.nansum", "aten.count_nonzero", "aten.norm", "aten.linalg_vector_norm",
    "aten.mean", "aten.nanmean", "aten.var", "aten.std", "aten.amax", "aten.amin", "aten.max",
    "aten.min", "aten.prod", "aten.any", "aten.all", "aten.logsumexp", "aten.var_mean",
    "aten.std_mean", "aten.aminmax", "aten.special_logsumexp", "aten.cumsum", "aten.cumprod",
    "aten.logcumsumexp", "aten.cummax", "aten.cummin", "aten._weight_norm",
    "aten._weight_norm_interface", "aten.norm_except_dim", "aten.trace",
)  # fmt: skip
def reduction(r: Reader, op: Op) -> list[Term]:
    """Every element of the first tensor is taken in."""
    return [Term("pointwise", 1, r.of(next(op.inputs)))]


@formula(
    "aten.scatter_add", "aten.scatter_add_", "aten.scatter_reduce", "aten.scatter_reduce_",
    "aten.index_add", "aten.index_add_", "aten.index_reduce", "aten.index_reduce_",
)  # fmt: skip
def scattered(r: Reader, op: Op) -> list[Term]:
    """Every element that has a place is added there."""
    return [Term("pointwise", 1, r.of(op["source" if "source" in op.args else "index"]))]


@formula("aten.cosine_similarity")
def cosine(r: Reader, op: Op) -> list[Term]:
    """Three sums of products."""
    return [Term("pointwise", 3, r.of(op["x1"]))]


@formula("aten.embedding_bag", "aten._embedding_bag", "aten._embedding_bag_forward_only")
def embedding_bag(r: Reader, op: Op) -> list[Term]:
    """Every row looked up is added to its bag."""
    return [Term("pointwise", 1, (*r.of(op["indices"]), r.of(op["weight"])[-1]))]


# ---------------------------------------------------------------- windows over space


def _windowed(space: int) -> None:
    def pool(r: Reader, op: Op) -> list[Term]:
        """Every element of the result looks at one window."""
        return [Term("pool", _window(op, space), r.out(op))]

    def adaptive(r: Reader, op: Op) -> list[Term]:
        """Every element of the input is looked at about once."""
        return [Term("pool", 1, r.of(op["self"]))]

    def resize(r: Reader, op: Op) -> list[Term]:
        """Every element of the result is interpolated."""
        return [Term("resize", 1, r.out(op))]

    pools = ("avg_pool{n}d", "max_pool{n}d", "max_pool{n}d_with_indices", "lp_pool{n}d",
             "fractional_max_pool{n}d")  # fmt: skip
    formula(*(f"aten.{name.format(n=space)}" for name in pools))(pool)
    adaptives = ("adaptive_avg_pool{n}d", "_adaptive_avg_pool{n}d", "adaptive_max_pool{n}d")
    formula(*(f"aten.{name.format(n=space)}" for name in adaptives))(adaptive)
    ways = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}[space]
    resizes = [f"{way}{space}d" for way in ("nearest", "_nearest_exact", *ways)]
    formula(*(f"aten.upsample_{name}" for name in resizes))(resize)


def _window(op: Op, space: int) -> int:
    kernel: Any = op["kernel_size"]
    sides = list(kernel) if isinstance(kernel, (tuple, list)) else [kernel]
    size = 1
    for side in sides * space if len(sides) == 1 else sides:
        size *= side
    return size


for _space in (1, 2, 3):
    _windowed(_space)


@formula(
    "aten._upsample_bilinear2d_aa", "aten._upsample_bicubic2d_aa", "aten.grid_sampler",
    "aten.grid_sampler_2d", "aten.grid_sampler_3d",
)  # fmt: skip
def interpolation(r: Reader, op: Op) -> list[Term]:
    """Every element of the result is interpolated."""
    return [Term("resize", 1, r.out(op))]


# ---------------------------------------------------------------- which of the three

Fate = Literal["counted", "free", "unknown"]


def fate(op: Op) -> Fate:
    """Say whether an operator is counted, free, or nobody knows what it costs."""
    if op.name in FORMULAS:
        return "counted"
    if op.name in FREE:
        return "free"
    return "counted" if _is_elementwise(op) else "unknown"


def terms(r: Reader, op: Op) -> tuple[Term, ...]:
    """Return what a counted operator costs."""
    return tuple(FORMULAS.get(op.name, elementwise)(r, op))


def _is_elementwise(op: Op) -> bool:
    return op.pointwise or RULES.get(op.name) is rules.pointwise
