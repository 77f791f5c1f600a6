"""Convolutions seen as fibres: as stripes of their filters, or as columns of their inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError
from tonsor.families.held import beside_modules
from tonsor.fibres import Kind
from tonsor.surgery.fibre_conv import FibreConv
from tonsor.surgery.fibre_layers import is_conv
from tonsor.types import Conv


@dataclass(frozen=True, slots=True)
class FibreLayer:
    """One convolution, seen as fibres of a kind; where they may not go, `reason` says why."""

    kind: Kind
    name: str
    weight: str
    filters: int
    inputs: int
    kernel: tuple[int, ...]
    reason: str = ""

    @property
    def positions(self) -> int:
        """How many positions the kernel has."""
        return math.prod(self.kernel)

    @property
    def rows(self) -> int:
        """How many filters there are, of stripes, or inputs, of columns."""
        return self.filters if self.kind == "stripes" else self.inputs

    @property
    def width(self) -> int:
        """How many weights a fibre has."""
        return self.inputs if self.kind == "stripes" else self.filters

    @property
    def size(self) -> int:
        """How many fibres there are."""
        return self.rows * self.positions

    def view(self, tensor: Tensor) -> Tensor:
        """Show something of the weight's shape with the fibres in front.

        Fibres are in the order of filters or inputs, and of positions within each.
        """
        along = 1 if self.kind == "stripes" else 0
        return tensor.detach().movedim(along, -1).reshape(self.size, self.width)


@dataclass(frozen=True)
class FibreLayers(Sequence[FibreLayer]):
    """All convolutions of a model, in the order in which they run.

    `held` names groups whose channels stay even where nothing is left of their fibres.
    """

    kind: Kind
    every: tuple[FibreLayer, ...]
    held: frozenset[str] = frozenset()

    @property
    def free(self) -> tuple[FibreLayer, ...]:
        """Those whose fibres may go."""
        return tuple(layer for layer in self.every if not layer.reason)

    @cached_property
    def by_name(self) -> Mapping[str, FibreLayer]:
        """Layers by their names."""
        return {layer.name: layer for layer in self.every}

    def without(
        self, names: Iterable[str], why: str, held: Iterable[str] = ()
    ) -> FibreLayers:  # fmt: skip
        """Return the same with the fibres of some layers staying, and the channels of groups."""
        whole = set(names)
        every = tuple(
            replace(x, reason=x.reason or why) if x.name in whole else x for x in self.every
        )
        return FibreLayers(self.kind, every, self.held.union(held))

    def __len__(self) -> int:
        return len(self.every)

    def __iter__(self) -> Iterator[FibreLayer]:
        return iter(self.every)

    @overload
    def __getitem__(self, index: int) -> FibreLayer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[FibreLayer]: ...
    def __getitem__(self, index: int | slice) -> FibreLayer | Sequence[FibreLayer]:
        return self.every[index]

    def __str__(self) -> str:
        lines = [f"{len(self)} convolutions, of which {len(self.free)} may lose {self.kind}"]
        width = max((len(x.name) for x in self), default=0)
        of = "inputs" if self.kind == "stripes" else "filters"
        for x in self:
            told = f"stays: {x.reason}" if x.reason else f"{x.size} {self.kind} of {x.width} {of}"
            lines.append(f"  {x.name:<{width}}  {told}")
        return "\n".join(lines)


def find_fibres(anatomy: Anatomy, kind: Kind, refused: Callable[[Conv], str]) -> FibreLayers:
    """Find the convolutions of a model, and say which may lose fibres of a kind.

    `refused` says of a convolution why it may not on account of its shape, if so.
    """
    found: dict[str, FibreLayer] = {}
    beside = beside_modules(anatomy.model)
    for conv in anatomy.convs:
        if conv.name in found:
            continue
        weight = anatomy.parameters.get(conv.weight)
        shape = (0, 0) if weight is None else tuple(weight.shape)
        reason = _reason(anatomy, conv, kind, refused)
        holder = beside.get(id(anatomy.model.get_submodule(conv.name)))
        if holder is not None and not reason:
            reason = f"the attribute '{holder}' holds it too, where no other layer can come"
        found[conv.name] = FibreLayer(
            kind, conv.name, conv.weight, shape[0], shape[1], conv.kernel, reason
        )
    return FibreLayers(kind, tuple(found.values()))


def _reason(anatomy: Anatomy, conv: Conv, kind: Kind, refused: Callable[[Conv], str]) -> str:
    module = anatomy.model.get_submodule(conv.name)
    if isinstance(module, FibreConv):
        return (
            f"it holds {module.kind} already; plan on the original, with after=the plan that made "
            "it"
        )
    if conv.transposed:
        return f"it is transposed, and {kind} of its weight make no sense of their own"
    if conv.weight != f"{conv.name}.weight".lstrip("."):
        return _of_another(anatomy, conv, module)
    if conv.weight not in anatomy.parameters:
        return "its weight is no parameter, but a buffer"
    if why := refused(conv):
        return why
    if not is_conv(module):
        return f"its class {type(module).__name__} does more than a convolution of torch"
    if not conv.name:
        return "it is the model itself, in whose place nothing can come; put it in a Sequential"
    value = anatomy.graph.tensors[conv.weight]
    holders = [n for n, v in anatomy.graph.tensors.items() if v == value]
    for other in holders:
        owner = anatomy.model.get_submodule(other.rpartition(".")[0])
        if owner is not module:
            return f"its weight is tied to '{other}'"
    for use in anatomy.uses.get(anatomy.graph.name_of[value], ()):
        op = anatomy.graph.ops[use.op]
        if "conv" not in op.name or anatomy.model.get_submodule(op.module) is not module:
            where = f"'{op.module}'" if op.module else "the model itself"
            return f"its weight is also read by {op.name} in {where}"
    return ""


def _of_another(anatomy: Anatomy, conv: Conv, module: nn.Module) -> str:
    """Say whose a weight is that is not known by the name of the convolution that reads it."""
    if conv.weight in anatomy.parameters:
        owner, _, last = conv.weight.rpartition(".")
        if anatomy.model.get_submodule(owner) is module and owner != conv.name:
            return f"the model holds it under several names, '{owner}' and '{conv.name}'"
        if getattr(module, last, None) is anatomy.parameters[conv.weight] and owner != conv.name:
            return f"its weight is tied to '{conv.weight}'"
    return "its weight is not its own parameter, but computed or held elsewhere"


def no_layer_free(layers: FibreLayers) -> SelectionError:
    """Say why there is nothing to choose from."""
    if not len(layers):
        return SelectionError(f"the model has no convolution, and {layers.kind} are parts of those")
    each = "; ".join(f"'{x.name}' stays: {x.reason}" for x in layers[:3])
    return SelectionError(f"no convolution of this model may lose {layers.kind}: {each}")
