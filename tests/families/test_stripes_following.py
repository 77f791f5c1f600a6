"""What follows where a filter, a layer or a block has no stripe left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.families.blocks.check import count
from tests.families.stripe_nets import (
    Seen,
    computed,
    emptied,
    followed,
    looked_at,
    seen,
    zeroed,
)
from tonsor.families.following import Following
from tonsor.families.stripes.layers import find_stripes
from tonsor.plans import Plan

pytestmark = pytest.mark.filterwarnings("ignore")
X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def three(given: int, made: int, side: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(given, made, side, padding=side // 2, **more)


def checked(it: Seen, plan: Plan) -> nn.Module:
    """Apply with proof, and see that the slim model costs what was foretold."""
    slim = plan.apply(it.model)
    foretold = it.anatomy.cost_without(plan.drops, plan.stripes)
    assert foretold.params(plan.amounts) == count(slim)
    assert torch.isfinite(slim(it.x)).all()
    return slim


def test_filters_without_stripes_go_and_what_reads_them_shrinks() -> None:
    it = seen("plain")
    masks = {x.name: np.ones((x.filters, x.positions), dtype=np.bool_) for x in it.layers.free}
    masks["body.0"][[1, 4]] = False
    masks["body.3"][2] = False
    plan = followed(it, masks)
    assert plan.counts == {"body.0.weight[0]": 4, "body.3.weight[0]": 3}
    assert not plan.stripes  # of the filters that are left, all stripes stay
    slim: Any = checked(it, plan)
    first, norm, second = slim.body[0], slim.body[1], slim.body[3]
    assert (first.out_channels, norm.num_features, second.in_channels) == (4, 4, 4)
    assert (second.out_channels, slim.fc.in_features) == (3, 3)
    assert torch.equal(first.weight, it.model.body[0].weight[[0, 2, 3, 5]])


def test_a_channel_that_something_else_makes_too_stays() -> None:
    it = seen("residual")
    masks = {x.name: np.ones((x.filters, x.positions), dtype=np.bool_) for x in it.layers.free}
    masks["one.conv2"][1] = False
    plan = followed(it, masks)
    assert not plan.keep
    slim: Any = checked(it, plan)
    assert (slim.one.conv2.kept.flatten(1).any(1).tolist()) == [True, False, True, True]
    made = slim.one.conv2(torch.randn(1, 5, 8, 8))
    assert (made[:, 1] == 0).all()
    assert (made[:, 0] != 0).all()
    masks["stem"][1] = False  # now nobody makes it
    plan = followed(it, masks)
    assert plan.counts == {"stem.weight[0]": 3}
    assert checked(it, plan)


def test_one_channel_stays_of_a_layer_with_nothing_left() -> None:
    it = seen("plain")
    plan = emptied(it, "body.0", "body.3")
    assert plan.counts == {"body.0.weight[0]": 1, "body.3.weight[0]": 1}
    assert {n: s.left for n, s in plan.stripes.items()} == {"body.0.weight": 0, "body.3.weight": 0}
    slim = checked(it, plan)
    assert (computed(slim, it.x) - computed(zeroed(plan, it.model), it.x)).abs().max() < 1e-9


@pytest.mark.parametrize("empty", ["one.conv1", "one.conv2"])
def test_a_block_that_says_nothing_becomes_its_shortcut(empty: str) -> None:
    it = seen("residual")
    plan = emptied(it, empty)
    assert [d.name for d in plan.drops] == ["one"]
    assert not any(n.startswith("one.") for n in plan.stripes)
    slim = checked(it, plan)
    other: Any = zeroed(emptied(it), it.model)
    other.one.forward = lambda x: x.relu()
    assert (computed(slim, it.x) - other(it.x.double())).abs().max() < 1e-9


class Around(nn.Module):
    """A block, of whatever kind, in a small network."""

    def __init__(self, block: nn.Module, width: int = 6) -> None:
        super().__init__()
        self.stem, self.block = three(3, width), block
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.stem(x)).mean((2, 3)))


class Body(nn.Module):
    """Two convolutions, a linear layer and a norm, run as told."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], b: int = 6) -> None:
        super().__init__()
        self.a, self.b, self.run = three(6, 6), three(b, 6, 5), run
        self.fc, self.norm = nn.Linear(6, 6), nn.BatchNorm2d(6)
        self.join = nn.Conv2d(12, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)

    def gate(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = three(6, 3), three(6, 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x)], 1)


class InModel(nn.Module):
    """The branch is in the model itself, and has a norm at its end."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.stem, self.pair, self.norm = three(3, 6), inner, nn.BatchNorm2d(6)
        self.scale, self.fc = nn.Parameter(torch.ones(6, 1, 1)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.fc((x + self.scale * self.norm(self.pair(x))).mean((2, 3)))


def _in_place(m: Any, x: Tensor) -> Tensor:
    f = F.relu_(m.norm(m.a(x)))
    f += x
    return f.relu_()


WAYS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "in a row": (
        lambda: Around(Body(lambda m, x: x + m.b(m.a(x).relu()))), {"block.a", "block.b"},
    ),
    "side by side": (
        lambda: Around(Body(lambda m, x: x + m.join(torch.cat([m.a(x), m.b(x)], 1)))), set(),
    ),
    "added": (lambda: Around(Body(lambda m, x: x + (m.a(x) + m.b(x)))), set()),
    "gate of its own": (
        lambda: Around(Body(lambda m, x: x + m.a(x) * m.gate(m.a(x)))), {"block.a"},
    ),
    "gate of the input": (lambda: Around(Body(lambda m, x: x + m.a(x) * m.gate(x))), set()),
    "dense": (
        lambda: Around(Body(lambda m, x: x + m.b(torch.cat([x, m.a(x)], 1)), 12)), {"block.b"},
    ),
    "in place": (lambda: Around(Body(_in_place)), {"block.a"}),
    "norm behind": (lambda: InModel(three(6, 6)), {"pair"}),
    "norm behind a pair": (lambda: InModel(Pair()), set()),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_branch_is_silent_if_all_its_ways_are(way: str) -> None:
    build, wanted = WAYS[way]
    it = looked_at(build(), X)
    assert Following(it.anatomy, it.layers).may_empty == wanted
    for layer in it.layers.free:
        plan = emptied(it, layer.name)
        assert bool(plan.drops) == (layer.name in wanted)
        slim = checked(it, plan)
        if not plan.drops:
            same = computed(slim, X) - computed(zeroed(plan, it.model), X)
            assert same.abs().max() < 1e-9


def test_only_blocks_that_end_in_a_norm_are_known_to_be_silent() -> None:
    it = looked_at(WAYS["norm behind"][0](), X)
    plain = looked_at(WAYS["in a row"][0](), X)
    assert not Following(plain.anatomy, plain.layers, silenced=True).branches
    resnet = seen("resnet20")
    found = Following(resnet.anatomy, resnet.layers, silenced=True).branches
    assert [b.drop.name for b in found] == [
        f"layer{i}.{j}" for i in (1, 2, 3) for j in range(3) if j or i == 1
    ]
    for branch in found:
        assert branch.ends == tuple(f"{branch.drop.name}.bn2.{p}" for p in ("weight", "bias"))
    assert len(Following(it.anatomy, it.layers).branches) == 1


def test_a_whole_network_without_stripes_still_runs() -> None:
    it = seen("resnet20")
    plan = emptied(it, *[x.name for x in it.layers.free])
    assert len(plan.drops) == 7
    slim = checked(it, plan)
    assert count(slim) < 1000


def test_an_exported_model_has_no_blocks_but_has_stripes() -> None:
    it = seen("residual")
    anatomy = tonsor.inspect(it.model, it.x, mode="export")
    layers = find_stripes(anatomy)
    other = Seen(it.model, it.x, anatomy, layers)
    assert [x.name for x in layers.free] == [x.name for x in it.layers.free]
    assert not Following(anatomy, layers).branches
    plan = emptied(other, "one.conv1")
    assert not plan.drops
    assert checked(other, plan)
