from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.lfpc.nets import NETS, made
from tonsor.families.channels import Part
from tonsor.methods.pools.channel_masks import ChannelMasks
from tonsor.methods.pools.channel_places import every_place, one_place


def looked_up(name: str, every: bool) -> tuple[Any, list[int], list[Sequence[Part]]]:
    _, anatomy = made(name)
    groups = anatomy.prunable
    places = {g.name: every_place(anatomy, g) for g in groups} if every else one_place(
        anatomy, groups
    )  # fmt: skip
    return anatomy, [g.size for g in groups], [places[g.name] for g in groups]


def shapes_of(anatomy: Any, places: list[Sequence[Part]]) -> dict[str, tuple[int, ...]]:
    names = dict.fromkeys(p.member.tensor for mine in places for p in mine)
    return {n: tuple(anatomy.parameters[n].shape) for n in names}


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("name", sorted(NETS))
def test_each_element_has_the_product_of_its_channels(name: str, every: bool) -> None:
    anatomy, sizes, places = looked_up(name, every)
    shapes = shapes_of(anatomy, places)
    generator = torch.Generator().manual_seed(0)
    stays = [torch.rand(n, generator=generator, dtype=torch.float64) for n in sizes]
    wanted = {n: torch.ones(shape, dtype=torch.float64) for n, shape in shapes.items()}
    for mine, parts in zip(stays, places, strict=True):
        for part in parts:
            view = part.of(wanted[part.member.tensor])
            view.mul_(mine.view(-1, *(1,) * (view.dim() - 1)))
    masks = ChannelMasks(sizes, places, shapes)
    found = masks(stays)
    assert found.keys() == wanted.keys()
    for tensor, mask in found.items():
        assert mask.dim() == len(shapes[tensor])
        torch.testing.assert_close(mask.expand(shapes[tensor]), wanted[tensor])
        assert not bool((mask == 1).all())
    for mask in masks([torch.ones(n, dtype=torch.bool) for n in sizes]).values():
        assert bool((mask == 1).all())


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("name", ["normed", "dense", "group norm", "mixer", "chunked"])
def test_masks_can_be_derived(name: str, every: bool) -> None:
    anatomy, sizes, places = looked_up(name, every)
    shapes = shapes_of(anatomy, places)
    masks, generator = ChannelMasks(sizes, places, shapes), torch.Generator().manual_seed(1)
    worth = {n: torch.rand(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}

    def total(*stays: Tensor) -> Tensor:
        parts = [(worth[n] * mask).sum() for n, mask in masks(stays).items()]
        return torch.stack(parts).sum()

    stays = [
        torch.rand(n, generator=generator, dtype=torch.float64).requires_grad_() for n in sizes
    ]
    assert torch.autograd.gradcheck(total, stays)
    assert all(g.any() for g in torch.autograd.grad(total(*stays), stays))
