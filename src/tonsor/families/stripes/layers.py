"""The convolutions of a model whose stripes may go, and why those of others may not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError
from tonsor.surgery.striping import is_conv
from tonsor.types import Conv


@dataclass(frozen=True, slots=True)
class StripeLayer:
    """One convolution, seen as stripes; where they may not go, `reason` says why."""

    name: str
    weight: str
    filters: int
    inputs: int
    kernel: tuple[int, ...]
    reason: str = ""

    @property
    def positions(self) -> int:
        """How many stripes each filter has."""
        return math.prod(self.kernel)

    @property
    def size(self) -> int:
        """How many stripes there are."""
        return self.filters * self.positions

    def view(self, tensor: Tensor) -> Tensor:
        """Show something of the weight's shape with the stripes in front: `[stripe, input]`.

        Stripes are in the order of filters, and of positions within each.
        """
        return tensor.detach().movedim(1, -1).reshape(self.size, self.inputs)


@dataclass(frozen=True)
class StripeLayers(Sequence[StripeLayer]):
    """All convolutions of a model, in the order in which they run."""

    every: tuple[StripeLayer, ...]

    @property
    def free(self) -> tuple[StripeLayer, ...]:
        """Those whose stripes may go."""
        return tuple(layer for layer in self.every if not layer.reason)

    @cached_property
    def by_name(self) -> Mapping[str, StripeLayer]:
        """Layers by their names."""
        return {layer.name: layer for layer in self.every}

    def without(self, names: Iterator[str] | Sequence[str], why: str) -> StripeLayers:
        """Return the same with the stripes of some layers staying."""
        held = set(names)
        return StripeLayers(
            tuple(
                StripeLayer(x.name, x.weight, x.filters, x.inputs, x.kernel, x.reason or why)
                if x.name in held else x
                for x in self.every
            )
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.every)

    def __iter__(self) -> Iterator[StripeLayer]:
        return iter(self.every)

    @overload
    def __getitem__(self, index: int) -> StripeLayer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StripeLayer]: ...
    def __getitem__(self, index: int | slice) -> StripeLayer | Sequence[StripeLayer]:
        return self.every[index]

    def __str__(self) -> str:
        lines = [f"{len(self)} convolutions, of which {len(self.free)} may lose stripes"]
        width = max((len(x.name) for x in self), default=0)
        for x in self:
            told = f"stays: {x.reason}" if x.reason else f"{x.size} stripes of {x.inputs} inputs"
            lines.append(f"  {x.name:<{width}}  {told}")
        return "\n".join(lines)


def find_stripes(anatomy: Anatomy) -> StripeLayers:
    """Find the convolutions of a model, and say which may lose stripes.

    >>> import torch, tonsor
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
    >>> print(find_stripes(tonsor.inspect(net, torch.randn(1, 3, 8, 8))))
    2 convolutions, of which 1 may lose stripes
      0  72 stripes of 3 inputs
      1  stays: its kernel has one position only, so that a stripe is a filter
    """
    found: dict[str, StripeLayer] = {}
    for conv in anatomy.convs:
        if conv.name in found:
            continue
        weight = anatomy.parameters.get(conv.weight)
        shape = (0, 0) if weight is None else tuple(weight.shape)
        found[conv.name] = StripeLayer(
            conv.name, conv.weight, shape[0], shape[1], conv.kernel, _reason(anatomy, conv)
        )
    return StripeLayers(tuple(found.values()))


def _reason(anatomy: Anatomy, conv: Conv) -> str:
    if conv.transposed:
        return "it is transposed, and a stripe of its weight makes no sense of its own"
    if conv.weight != f"{conv.name}.weight".lstrip("."):
        return "its weight is not its own parameter, but computed or held elsewhere"
    if math.prod(conv.kernel) == 1:
        return "its kernel has one position only, so that a stripe is a filter"
    module = anatomy.model.get_submodule(conv.name)
    if not is_conv(module):
        return f"it is a {type(module).__name__}, which does more than a convolution of torch"
    value = anatomy.graph.tensors[conv.weight]
    holders = [n for n, v in anatomy.graph.tensors.items() if v == value]
    for other in holders:
        owner = anatomy.model.get_submodule(other.rpartition(".")[0])
        if owner is not module:
            return f"its weight is tied to '{other}'"
    for use in anatomy.uses.get(anatomy.graph.name_of[value], ()):
        op = anatomy.graph.ops[use.op]
        if "conv" not in op.name or anatomy.model.get_submodule(op.module) is not module:
            return f"its weight is also read by {op.name} in '{op.module}'"
    return ""


def named_layers(layers: StripeLayers, hits: Mapping[str, bool]) -> StripeLayers:
    """Return the same with those named left whole."""
    return layers.without([n for n, hit in hits.items() if hit], "you asked to keep it")


def no_layer_free(layers: StripeLayers) -> SelectionError:
    """Say why there is nothing to choose from."""
    if not len(layers):
        return SelectionError("the model has no convolution, and stripes are parts of those")
    each = "; ".join(f"'{x.name}' stays: {x.reason}" for x in layers[:3])
    return SelectionError(f"no convolution of this model may lose stripes: {each}")
