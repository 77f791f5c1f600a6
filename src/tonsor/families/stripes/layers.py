"""The convolutions of a model whose stripes may go, and why those of others may not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError
from tonsor.surgery.stripe_conv import StripeConv
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
    """All convolutions of a model, in the order in which they run.

    `held` names groups whose channels stay even where nothing is left of their filters.
    """

    every: tuple[StripeLayer, ...]
    held: frozenset[str] = frozenset()

    @property
    def free(self) -> tuple[StripeLayer, ...]:
        """Those whose stripes may go."""
        return tuple(layer for layer in self.every if not layer.reason)

    @cached_property
    def by_name(self) -> Mapping[str, StripeLayer]:
        """Layers by their names."""
        return {layer.name: layer for layer in self.every}

    def without(
        self, names: Iterable[str], why: str, held: Iterable[str] = ()
    ) -> StripeLayers:  # fmt: skip
        """Return the same with the stripes of some layers staying, and the channels of groups."""
        whole = set(names)
        every = tuple(
            replace(x, reason=x.reason or why) if x.name in whole else x for x in self.every
        )
        return StripeLayers(every, self.held.union(held))

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
    module = anatomy.model.get_submodule(conv.name)
    if isinstance(module, StripeConv):
        return "it holds stripes already; plan on the original, with after=the plan that made it"
    if conv.transposed:
        return "it is transposed, and a stripe of its weight makes no sense of its own"
    if conv.weight != f"{conv.name}.weight".lstrip("."):
        return _of_another(anatomy, conv, module)
    if conv.weight not in anatomy.parameters:
        return "its weight is no parameter, but a buffer"
    if math.prod(conv.kernel) == 1:
        return "its kernel has one position only, so that a stripe is a filter"
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


def no_layer_free(layers: StripeLayers) -> SelectionError:
    """Say why there is nothing to choose from."""
    if not len(layers):
        return SelectionError("the model has no convolution, and stripes are parts of those")
    each = "; ".join(f"'{x.name}' stays: {x.reason}" for x in layers[:3])
    return SelectionError(f"no convolution of this model may lose stripes: {each}")
