"""Filters of every convolution, coupled or not: masked behind the norm, counted as papers count."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tonsor import zoo
from tonsor.methods.lfpc import LearnedCriteria, Search
from tonsor.methods.pools.base import Wanted
from tonsor.methods.pools.filters import FilterPools
from tonsor.methods.pools.make import held_of

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Twice(nn.Module):
    """A stem and a residual block whose branch has a norm behind each of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.first, self.first_norm = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.second_norm = nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.bare = nn.Conv2d(6, 5, 3, padding=1)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        inner = F.relu(self.first_norm(self.first(x)))
        x = F.relu(x + self.second_norm(self.second(inner)))
        return self.head(F.relu(self.bare(x)).mean((2, 3)))


def net(seed: int = 0) -> Twice:
    torch.manual_seed(seed)
    made = Twice()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean = torch.rand(module.num_features) - 0.5
            module.running_var = torch.rand(module.num_features) + 0.5
    return made.eval()


def pools_of(model: nn.Module, images: Tensor) -> FilterPools:
    anatomy = tonsor.inspect(model, images)
    return FilterPools(anatomy, Wanted(("l2", "l1"), learned=True))


PICTURE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_every_convolution_is_a_pool_and_is_masked_behind_its_norm() -> None:
    model = net()
    pools = pools_of(model, PICTURE)
    assert list(pools.there) == ["stem", "first", "second", "bare"]
    masked = {n: [(h.module, h.name) for h in held] for n, held in pools.held.items()}
    assert masked["second"] == [(model.second_norm, "weight"), (model.second_norm, "bias")]
    assert masked["bare"] == [(model.bare, "weight"), (model.bare, "bias")]
    assert len(held_of(pools)) == 8


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_masked_filter_says_nothing(data: st.DataObject) -> None:
    model = net()
    pools = pools_of(model, PICTURE)
    kept = [
        torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(t), max_size=len(t))))
        for t in pools.there.values()
    ]
    whole = net().double()
    with torch.no_grad():
        for (name, _), stays in zip(pools.there.items(), kept, strict=True):
            behind = whole.get_submodule("bare" if name == "bare" else f"{name}_norm")
            for parameter in behind.parameters():
                parameter[~stays] = 0
    pools.show_(kept, kept)
    assert torch.allclose(model.double()(PICTURE.double()), whole(PICTURE.double()), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_it_costs_what_the_papers_count(data: st.DataObject) -> None:
    """The first layer of a block reads all of the stream; the second what the first has left.

    Only where nothing at all is left of a channel of the stream, it is less.
    """
    pools = pools_of(net(), PICTURE)
    drawn = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    left = {n: data.draw(st.integers(1, len(t))) for n, t in pools.there.items()}
    kept = [torch.randperm(len(t), generator=drawn) < left[name] for name, t in pools.there.items()]
    stem, first, second, bare = left.values()

    def by_hand(stream: int) -> int:
        place = 64 * 9
        return place * (3 * stem + stream * first + first * second + stream * bare) + 4 * bare

    assert float(pools.expected("macs")([k.double() for k in kept])) == by_hand(6)
    assert pools.amount(kept, "macs") == by_hand(int((kept[0] | kept[2]).sum()))


@pytest.mark.parametrize("part", [0.25, 0.5, 0.75])
def test_what_is_expected_of_a_resnet_is_what_it_costs(part: float) -> None:
    """So long as something of each channel of the stream is left."""
    pools = pools_of(zoo.build("resnet20"), IMAGES)
    whole = ["conv1", *(f"layer{i}.0.conv2" for i in (1, 2, 3))]
    kept = [
        torch.arange(len(t)) < (1 if name in whole else part) * len(t)
        for name, t in pools.there.items()
    ]
    expected = pools.expected("macs")([k.double() for k in kept])
    assert float(expected) == pools.amount(kept, "macs") < pools.whole("macs")


@pytest.mark.parametrize("masks", ["soft", "straight"])
def test_a_search_cuts_what_it_has_masked(masks: str) -> None:
    model = net().train()
    anatomy = tonsor.inspect(model, PICTURE)
    drawn = torch.Generator().manual_seed(2)
    data = [
        (torch.randn(8, 3, 8, 8, generator=drawn), torch.randint(4, (8,), generator=drawn))
        for _ in range(3)
    ]
    method = LearnedCriteria(
        model, anatomy, budget="macs=50%", batches=data, steps=6, family="filters",
        search=Search(lr=0.1).but(masks=masks),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for step in range(10):
        F.cross_entropy(model(data[step % 3][0]), data[step % 3][1]).backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
    model.eval()
    before = model(PICTURE)
    plan = method.finish()
    assert torch.equal(model(PICTURE), before)
    slim = plan.apply(model)
    assert torch.allclose(slim(PICTURE), before, atol=1e-5)
    assert plan.made_by["met"]
    inner = plan.keep["first.weight[0]"]
    assert (
        len(inner)
        == slim.get_submodule("first").out_channels
        == plan.made_by["sites"]["first"]["left"]
        < 8
    )
