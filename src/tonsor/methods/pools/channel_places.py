"""Where a channel is masked, so that the model computes what it would without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from tonsor.anatomy import Anatomy
from tonsor.families.channels import Part, parts, vectors
from tonsor.graph.inputs import Inputs
from tonsor.types import Group, leaves

Places: TypeAlias = Mapping[str, Sequence[Part]]
"""By the name of each group: the places of parameters that a mask is multiplied into."""

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
_CLOSE = 1e-9


def every_place(anatomy: Anatomy, group: Group) -> list[Part]:
    """Return where layers sum over a channel, and the scale and shift of the last norm before.

    In what makes it only where there is no norm, whose statistics the mask would otherwise change.
    """
    kinds = _kinds(anatomy, group)
    found = kinds.summing + kinds.passing + kinds.scales
    return found if found and kinds.normed else found + kinds.makers


def one_place(anatomy: Anatomy, groups: Iterable[Group]) -> Places:
    """Return places of which a channel meets just one on its way.

    That is the last norm, which costs next to nothing, for groups of which trying shows that it
    does as well as masking what sums over them.
    """
    readers: dict[str, list[Part]] = {}
    scales: dict[str, list[Part]] = {}
    for group in groups:
        kinds = _kinds(anatomy, group)
        readers[group.name] = kinds.summing or kinds.makers
        if kinds.summing and kinds.scales:
            scales[group.name] = kinds.scales
    trial = _Trial(anatomy, readers)
    return readers | {name: scales[name] for name in trial.same(scales)}


@dataclass(frozen=True, slots=True)
class _Kinds:
    """The places of a group by what they do with its channels.

    They sum over them; they pass them on one by one, with no norm after that; they scale and shift
    them in the last norm; they make them. `normed` says whether there is any norm.
    """

    summing: list[Part]
    passing: list[Part]
    scales: list[Part]
    makers: list[Part]
    normed: bool


def _kinds(anatomy: Anatomy, group: Group) -> _Kinds:
    """Tell the places of a group apart.

    A norm must not see the mask, so that what comes before the last one stays as it is.
    """
    weights = list(parts(anatomy, group))
    flat = [p for p in vectors(anatomy, group) if p not in weights]
    readers = [p for p in weights if not p.made]
    # What makes the channels that it sums over, as in `x + conv(x)`, passes none of them on.
    makes = {p.member.tensor for p in weights if p.made}
    passing = [p for p in readers if p.member.tensor not in makes and _passes(anatomy, p)]
    members = [m.tensor for m in group.members]
    norms = [i for t in members if isinstance(_owner(anatomy, t), _NORMS) for i in _ops(anatomy, t)]
    scales = [p for p in flat if isinstance(_owner(anatomy, p.member.tensor), _NORMS)]
    return _Kinds(
        summing=[p for p in readers if p not in passing],
        passing=[p for p in passing if all(n < min(_ops(anatomy, p.member.tensor)) for n in norms)],
        scales=[
            p
            for p in scales
            if not _reaches(anatomy, min(_ops(anatomy, p.member.tensor)), norms, group.name)
        ],
        makers=[p for p in weights if p.made] + flat,
        normed=bool(norms),
    )


class _Trial:
    """Compares two ways to mask, on the example that the model was traced with."""

    def __init__(self, anatomy: Anatomy, readers: Places) -> None:
        self._anatomy, self._readers = anatomy, readers
        generator = torch.Generator().manual_seed(0)
        self._drawn = {n: self._half(anatomy.by_name[n].size, generator) for n in readers}
        # Scales and shifts are other than what a model begins with, as they are once it is trained.
        self._state = {
            n: (torch.rand(t.shape, generator=generator, dtype=torch.float64) + 0.5).to(t.device)
            if t.dim() == 1 and isinstance(t, nn.Parameter) else t.detach().double()
            for n, t in [*anatomy.parameters.items(), *anatomy.model.named_buffers()]
            if t.is_floating_point() and not t.is_meta
        }  # fmt: skip

    @staticmethod
    def _half(size: int, generator: torch.Generator) -> Tensor:
        # The others stay in part, as what is masked twice would then differ.
        stays = torch.rand(size, generator=generator, dtype=torch.float64) / 2 + 0.25
        stays[torch.randperm(size, generator=generator)[: size // 2]] = 0
        return stays

    def same(self, places: Places) -> list[str]:
        """Return the groups for which these places do as well: tried at once, then by halves."""
        if any(t.is_meta for t in self._anatomy.parameters.values()):
            return []
        try:
            return list(self._holding(list(places), places))
        except Exception:  # noqa: BLE001  a model that does not run in this way is masked as before
            return []

    def _holding(self, names: list[str], places: Places) -> Iterable[str]:
        if not names:
            return []
        chosen = {n: self._readers[n] for n in names}
        if self._alike(self._run(chosen), self._run({n: places[n] for n in names})):
            return names
        if len(names) == 1:
            return []
        half = len(names) // 2
        return [*self._holding(names[:half], places), *self._holding(names[half:], places)]

    @torch.no_grad()
    def _run(self, places: Places) -> list[Tensor]:
        state = dict(self._state)
        for name, mine in places.items():
            for part in mine:
                tensor = state[part.member.tensor].clone()
                view = part.of(tensor)
                stays = self._drawn[name].to(tensor.device)
                view.mul_(stays.view(-1, *(1,) * (view.dim() - 1)))
                state[part.member.tensor] = tensor
        model, modes = self._anatomy.model, [m.training for m in self._anatomy.model.modules()]
        inputs: Inputs = self._anatomy.inputs.map(
            lambda t: t.double() if t.is_floating_point() else t
        )
        try:
            model.eval()
            out = functional_call(model, state, inputs.args, inputs.kwargs)
        finally:
            for module, mode in zip(model.modules(), modes, strict=True):
                module.training = mode
        return [t for t in tree_leaves(out) if isinstance(t, Tensor)]

    @staticmethod
    def _alike(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
        if not some or len(some) != len(others):
            return False
        return all(
            bool(a.isfinite().all()) and bool((a - b).abs().max() <= _CLOSE * a.abs().max())
            for a, b in zip(some, others, strict=True)
        )


def _passes(anatomy: Anatomy, part: Part) -> bool:
    """Whether a layer passes channels on one by one, as a depthwise convolution does."""
    name = anatomy.graph.name_of[anatomy.graph.tensors[part.member.tensor]]
    return any(u.shows(anatomy.solution, part.group) for u in anatomy.uses.get(name, ()))


def _reaches(anatomy: Anatomy, first: int, norms: Sequence[int], leaf: str) -> bool:
    """Whether a norm sees channels that an operator returns, passed on one by one."""
    axes, ops = anatomy.solution.axes, anatomy.graph.ops
    found: set[int] = set()
    for op in ops[first:]:
        met = not found.isdisjoint(op.inputs)
        if met and op.index in norms:
            return True
        if met or op.index == first:
            found |= {
                v
                for v in op.outputs
                if v is not None and any(n.name == leaf for a in axes[v] for n in leaves(a))
            }
    return False


def _ops(anatomy: Anatomy, tensor: str) -> list[int]:
    """Return where a parameter or buffer is read."""
    value = anatomy.graph.tensors[tensor]
    return [op.index for op in anatomy.graph.ops if value in op.inputs]


def _owner(anatomy: Anatomy, tensor: str) -> nn.Module:
    return anatomy.model.get_submodule(tensor.rpartition(".")[0])
