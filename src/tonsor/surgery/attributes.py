"""Integer attributes that encode sizes: find them, read them, set them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from tonsor.types import Axis, Mend, Op, Ref, Solution

Path = tuple[str | int, ...]
_DEPTH = 2
_BILINEAR = ("out_features", "in1_features", "in2_features")


def known_mends(model: nn.Module, solution: Solution) -> tuple[Mend, ...]:
    """Return the mends that follow from the operators a module runs.

    A module that runs a convolution and has an `out_channels` of the right value is taken
    to mean it; the same for the other attributes in `_meanings`.
    """
    modules = dict(model.named_modules())
    sized = {(op, arg, i): axis for op, arg, i, axis in solution.sizes}
    found: dict[tuple[str, Path], Mend] = {}
    for op in solution.graph.ops:
        module = modules.get(op.module)
        if module is None:
            continue
        for name, axis in _meanings(op, solution, sized):
            path = name if isinstance(name, tuple) else (name,)
            if _get_own(module, path) == axis.size:
                found.setdefault((op.module, path), Mend(op.module, path, axis))
    return tuple(found.values())


def _meanings(
    op: Op, solution: Solution, sized: dict[tuple[int, str, int | None], Axis]
) -> Iterator[tuple[str | Path, Axis]]:
    def axes(name: str) -> Sequence[Axis]:
        ref = op.get(name)
        return solution.axes[ref.value] if isinstance(ref, Ref) else []

    first = op.outputs[0] if op.outputs else None
    out: Sequence[Axis] = [] if first is None else solution.axes[first]
    kind = op.name.removeprefix("aten.")
    if kind.startswith(("conv", "_conv")):
        weight, data = axes("weight"), axes("input")
        channel = 1 if len(data) == len(weight) else 0
        groups = sized.get((op.index, "groups", None))
        yield "out_channels", out[channel]
        yield "in_channels", data[channel]
        if groups is not None:
            yield "groups", groups
    elif kind == "linear":
        yield "out_features", out[-1]
        yield "in_features", axes("weight")[-1]
    elif kind == "addmm":  # a transposed linear layer, as GPT-2 has
        yield "nf", out[-1]
        yield "nx", axes("mat2")[0]
    elif kind in ("batch_norm", "instance_norm"):
        yield "num_features", out[1]
    elif kind == "group_norm":
        yield "num_channels", out[1]
        yield "num_groups", sized[op.index, "num_groups", None]
    elif kind in ("layer_norm", "rms_norm"):
        for i in range(len(op["normalized_shape"])):
            yield ("normalized_shape", i), sized[op.index, "normalized_shape", i]
    elif kind in ("embedding", "embedding_bag"):
        yield "num_embeddings", axes("weight")[0]
        yield "embedding_dim", axes("weight")[1]
    elif kind in ("prelu", "_prelu_kernel"):
        yield "num_parameters", axes("weight")[0]
    elif kind in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        w_ih, w_hh, *_ = (solution.axes[r.value] for r in op["params"])
        hidden = op["hx"][-1] if isinstance(op["hx"], tuple) else op["hx"]
        cell = solution.axes[hidden.value][-1]
        yield "input_size", w_ih[1]
        yield "hidden_size", cell
        if w_hh[1] != cell:
            yield "proj_size", w_hh[1]
    elif kind == "bilinear":
        yield from zip(_BILINEAR, axes("weight"), strict=True)
    elif kind == "channel_shuffle":
        yield "groups", sized[op.index, "groups", None]


def integers(module: nn.Module) -> Iterator[tuple[Path, int]]:
    """Yield the integer attributes of a module itself, also inside its tuples and dicts."""
    for name, value in vars(module).items():
        if not name.startswith("_"):
            yield from _integers_in(value, (name,))


def _integers_in(value: Any, path: Path) -> Iterator[tuple[Path, int]]:
    if type(value) is int:
        yield path, value
    elif len(path) <= _DEPTH and isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from _integers_in(item, (*path, i))
    elif len(path) <= _DEPTH and type(value) is dict:
        for key, item in value.items():
            if isinstance(key, str):
                yield from _integers_in(item, (*path, key))


def _get_own(module: nn.Module, path: Path) -> Any:
    value: Any = vars(module).get(path[0]) if isinstance(path[0], str) else None
    try:
        for step in path[1:]:
            value = value[step]
    except (TypeError, KeyError, IndexError):
        return None
    return value


def set_integer(module: nn.Module, path: Path, value: int) -> None:
    """Set an integer attribute, rebuilding the containers on the way to it."""
    name, *steps = path
    current = vars(module)[str(name)]
    setattr(module, str(name), _with(current, tuple(steps), value))


def _with(container: Any, steps: Path, value: int) -> Any:
    if not steps:
        return value
    step, *rest = steps
    inner = _with(container[step], tuple(rest), value)
    if isinstance(container, tuple):
        items = [inner if i == step else item for i, item in enumerate(container)]
        return type(container)(*items) if hasattr(container, "_fields") else type(container)(items)
    copied = type(container)(container)
    copied[step] = inner
    return copied
