"""Take blocks out of a model: their shortcuts stay, and numbers of layers close up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from tonsor.drops import Drop
from tonsor.errors import SurgeryError
from tonsor.graph.clone import named_tensors
from tonsor.surgery.attributes import integers, set_integer
from tonsor.surgery.shortcut import Passed, Shortcut
from tonsor.types import Cut

_Numbered = tuple[str, str, tuple[str | int, ...]]
"""A container, a path inside its items, and an attribute there."""
_FUNCTIONS = (FunctionType, MethodType, partial)  # hooks of other kinds make weights


def gone(drops: Iterable[Drop], name: str) -> bool:
    """Whether a tensor or module of this name vanishes with some blocks."""
    return any(
        _inside(name, m) and not any(_inside(name, stays) for stays in drop.through)
        for drop in drops
        for m in drop.modules
    )


def staying(model: nn.Module, drops: Sequence[Drop]) -> dict[int, str]:
    """Name each tensor that is still there without some blocks, by its `id`.

    A tensor that a block shares with something else has another name than the block's.
    """
    names: dict[int, str] = {}
    for name, tensor in named_tensors(model):
        if id(tensor) not in names and not gone(drops, name):
            names[id(tensor)] = name
    return names


def joined_drops(*many: Sequence[Drop]) -> tuple[Drop, ...]:
    """Return blocks that go, each once; what is inside another goes with it."""
    found = {d.name: d for drops in reversed(many) for d in drops}
    return tuple(
        d for d in found.values()
        if not any(
            o is not d and all(any(_inside(m, n) for n in o.modules) for m in d.modules)
            for o in found.values()
        )
    )  # fmt: skip


def later_drops(drops: Sequence[Drop], earlier: Sequence[Drop]) -> tuple[Drop, ...]:
    """Return blocks that go, without those that an earlier plan has removed."""
    return tuple(d for d in drops if not all(gone(earlier, m) for m in d.modules))


def apart(first: Sequence[Drop], second: Sequence[Drop]) -> tuple[tuple[str, ...], ...]:
    """Name the blocks that only one of two plans removes."""
    one, two = [d.name for d in first], [d.name for d in second]
    return tuple(n for n in one if n not in two), tuple(n for n in two if n not in one)


def uneven(cut: Cut, shapes: Mapping[str, Sequence[int]]) -> str | None:
    """Say which plain layer can't go, as its channels are not cut alike before and behind it."""
    for drop in cut.drops:
        kept = cut.keep.get(drop.weight)
        if not drop.weight or (kept is None and drop.fit != "slice"):
            continue
        shape = shapes[drop.weight]
        if drop.fit == "same" and shape[1] == 1 < drop.channels[0]:
            continue  # each channel has a filter of its own, so both sides are one
        out, given = (_indices(kept, i, shape) for i in (0, 1))
        first = shape[0] == len(out) <= len(given) and given == list(range(len(given)))
        if not (first if drop.fit == "narrow" else out == given and drop.fit != "tile"):
            return (
                f"block '{drop.name}' can't go where the channels that it makes are cut "
                "otherwise than those that it reads: identity can't stand for it then"
            )
    return None


def _indices(
    kept: Sequence[Sequence[int] | None] | None, dim: int, shape: Sequence[int]
) -> list[int]:
    mine = None if kept is None else kept[dim]
    return list(range(shape[dim])) if mine is None else list(mine)


def renumbers(model: nn.Module, drops: Sequence[Drop]) -> bool:
    """Whether attributes that number layers would close up."""
    return any(True for _ in _numbers(model, drops))


def drop_blocks(model: nn.Module, drops: Sequence[Drop]) -> None:
    """Replace blocks by what is left of them, in a model that is the caller's own."""
    numbers = list(_numbers(model, drops)) if all(d.renumber for d in drops) else []
    for drop in drops:
        first, *rest = drop.modules
        block = _found(model, first)
        if isinstance(block, (Shortcut, Passed)):
            continue
        last = block if not rest else None
        _replace(model, first, Shortcut(block, drop), block, last)
        for path in rest:
            module = _found(model, path)
            passed = Passed().train(module.training)
            _replace(model, path, passed, None, module if path == rest[-1] else None)
    if drops:
        _unfused(model)
    for path, attribute, value in numbers:
        set_integer(model.get_submodule(path), attribute, value)


def _found(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        message = f"the model has no module '{path}', which the plan is to remove"
        raise SurgeryError(message) from error


def _replace(
    model: nn.Module, path: str, new: nn.Module, begins: nn.Module | None, ends: nn.Module | None
) -> None:
    """Put a module under a path, with the hooks of those whose input and result it now has."""
    parent, _, name = path.rpartition(".")
    holder: Any = model.get_submodule(parent)
    holder._modules[name] = new
    for old, when in ((begins, "_forward_pre_hooks"), (ends, "_forward_hooks")):
        found = {} if old is None else getattr(old, when)
        kept = {k: hook for k, hook in found.items() if isinstance(hook, _FUNCTIONS)}
        getattr(new, when).update(kept)
        keywords = {} if old is None else getattr(old, f"{when}_with_kwargs")
        getattr(new, f"{when}_with_kwargs").update({k: True for k in keywords if k in kept})


def _unfused(model: nn.Module) -> None:
    """Have torch's encoders go without the fused path that reads weights of their first layer."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and isinstance(module.layers[0], Shortcut):
            module.use_nested_tensor = False


def _inside(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _numbers(
    model: nn.Module, drops: Sequence[Drop]
) -> Iterator[tuple[str, tuple[str | int, ...], int]]:
    """Yield the new values of attributes that number layers, once some of them are gone.

    Such an attribute is known by its values: over the items of a list they count up by one, from
    0 or 1. Caches of attention are filled by such numbers, and have to have no gap.
    """
    lost = [m for d in drops for m in d.modules]
    for container, items in _lists(model, lost).items():
        for (below, attribute), values in _common(model, container, items).items():
            before = list(values.values())
            if len(before) < 2 or before not in (_counted(0, before), _counted(1, before)):
                continue
            stay = [i for i in values if not gone(drops, _join(container, str(i), below))]
            for new, item in enumerate(stay, start=before[0]):
                if values[item] != new:
                    yield _join(container, str(item), below), attribute, new


def _counted(start: int, values: Sequence[int]) -> list[int]:
    return list(range(start, start + len(values)))


def _lists(model: nn.Module, lost: Sequence[str]) -> dict[str, list[int]]:
    """Find the lists of modules that lose something, and the numbers of their items."""
    found: dict[str, list[int]] = {}
    for path in lost:
        steps = path.split(".")
        for i, step in enumerate(steps):
            container = ".".join(steps[:i])
            if step.isdecimal() and container not in found:
                names = model.get_submodule(container)._modules
                if all(n.isdecimal() for n in names):
                    found[container] = sorted(map(int, names))
    return found


def _common(
    model: nn.Module, container: str, items: Sequence[int]
) -> Mapping[tuple[str, tuple[str | int, ...]], dict[int, int]]:
    """Gather the integer attributes of the items that are still there, by where they are."""
    found: dict[tuple[str, tuple[str | int, ...]], dict[int, int]] = {}
    for item in items:
        top = model.get_submodule(_join(container, str(item)))
        for below, module in top.named_modules():
            if not isinstance(module, (Shortcut, Passed)) and not _of_torch(module):
                for path, value in integers(module):
                    if len(path) == 1:
                        found.setdefault((below, path), {})[item] = value
    return found


def _of_torch(module: nn.Module) -> bool:
    """Whether a module is a layer of torch, whose integers are sizes, strides and the like."""
    return any(
        kind.__module__.startswith("torch.") and "container" not in kind.__module__
        for kind in type(module).__mro__ if kind is not nn.Module
    )  # fmt: skip


def _join(*parts: str) -> str:
    return ".".join(p for p in parts if p)
