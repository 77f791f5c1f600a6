"""What follows where an input has no column left: only channels that nothing else reads go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tests.families.blocks.check import count
from tests.families.column_nets import deadened, looked_at, seen, whole
from tests.families.column_readers import (
    GOES,
    MIXING,
    PASSING,
    STAYS,
    Reading,
    Use,
    X,
    between,
    three,
)
from tests.families.stripe_nets import Seen, computed, drawn, followed
from tests.laws.networks import examples
from tonsor.families.columns.layers import find_columns
from tonsor.fibres import FibreMask
from tonsor.plans import Plan
from tonsor.surgery.column_conv import ColumnConv

pytestmark = pytest.mark.filterwarnings("ignore")
KEPT = ("c", "d", "wide")
EXACT = sorted(MIXING) + sorted(PASSING.keys() - {"in half precision"}) * 2


def apart(first: nn.Module, second: nn.Module, x: Tensor = X) -> float:
    """How far two results are from each other, as a part of what is computed."""
    one, two = computed(first, x), computed(second, x)
    return float((one - two).abs().max() / two.abs().max().clamp(min=1))


def checked(it: Seen, plan: Plan, masks: dict[str, FibreMask], x: Tensor = X) -> Any:
    """Apply with proof, and see that only columns are missed, and that it costs as foretold."""
    slim = plan.apply(it.model, verify=False)
    assert apart(slim, deadened(it, masks), x) < 1e-12
    assert plan.prove(it.model, slim, inputs=x).error < 1e-6
    foretold = it.anatomy.cost_without(plan.drops, plan.fibres)
    assert foretold.params(plan.amounts) == count(slim)
    return slim


def without_two(it: Seen) -> dict[str, FibreMask]:
    """Masks in which two inputs of `b` have no column."""
    masks = whole(it)
    masks["b"][[1, 4]] = False
    return masks


@pytest.mark.parametrize("way", STAYS)
def test_a_channel_that_something_else_reads_stays(way: str) -> None:
    it = looked_at(Reading(STAYS[way]), X, KEPT)
    masks = without_two(it)
    assert apart(it.model, deadened(it, masks)) > 1e-3
    plan = followed(it, masks)
    assert not plan.keep
    assert checked(it, plan, masks).b.in_channels == 6


@pytest.mark.parametrize("way", GOES)
def test_a_channel_that_nothing_else_reads_goes(way: str) -> None:
    it = looked_at(Reading(GOES[way]), X, KEPT)
    masks = without_two(it)
    assert apart(it.model, deadened(it, masks)) > 1e-3
    plan = followed(it, masks)
    assert list(plan.counts.values()) == [4]
    slim = checked(it, plan, masks)
    assert type(slim.b) is nn.Conv2d  # of the inputs that are left, all columns stay
    assert slim.b.in_channels == 4
    assert torch.equal(slim.b.weight, it.model.b.weight[:, [0, 2, 3, 5]])
    makers = [n for n in ("a.weight", "left") if plan.cut().keep.get(n)]
    assert makers
    assert all(slim.get_parameter(n).shape[0] == 4 for n in makers)


@examples(15)
@given(
    st.lists(st.sampled_from(EXACT), min_size=1, max_size=4),
    st.integers(0, 999), st.booleans(), st.booleans(),
)  # fmt: skip
def test_whatever_comes_between_only_columns_are_missed(
    names: list[str], seed: int, stream: bool, kept: bool
) -> None:
    uses: list[Use] = [{**MIXING, **PASSING}[n] for n in names]

    def run(m: Any, h: Tensor) -> Tensor:
        for use in uses:
            h = use(m, h + m.d(h).tanh() if stream else h)
        return h

    it = looked_at(Reading(between(run)), X, ("d",) if kept else ())
    masks = drawn(it.layers, seed, 0.5)
    plan = followed(it, masks)
    checked(it, plan, masks)


class Tail(nn.Module):
    """A stream that four convolutions read, and a concatenation at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = three(3, 6), three(6, 6), nn.Conv2d(6, 6, 1)
        self.bn, self.side = nn.BatchNorm2d(6), three(3, 5)
        self.last, self.head = three(11, 4, stride=2), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        s = self.stem(x).relu()
        s = s + self.bn(self.one(s)).relu()
        s = s + self.two(s)
        both = torch.cat([s, self.side(x).tanh()], 1)
        return self.last(both).mean((2, 3)) + self.head(s).mean((2, 3)).repeat(1, 2)


def test_a_stream_goes_where_all_of_its_readers_are_dead() -> None:
    it = looked_at(Tail(), X)
    masks = whole(it)
    readers = ("one", "two", "head", "last")
    for done, name in enumerate(readers, 1):
        masks[name][2] = False
        plan = followed(it, masks)
        assert list(plan.counts.values()) == ([5] if done == len(readers) else [])
        slim = checked(it, plan, masks)
    assert [slim.get_submodule(n).in_channels for n in readers] == [5, 5, 5, 10]
    assert (slim.stem.out_channels, slim.bn.num_features, slim.side.out_channels) == (5, 5, 5)
    assert not plan.fibres


def test_a_side_of_a_concatenation_goes_alone() -> None:
    it = looked_at(Tail(), X)
    masks = whole(it)
    masks["last"][[0, 7, 10]] = False  # one of the stream, and two from the side
    plan = followed(it, masks)
    assert plan.counts == {"side.weight[0]": 3}
    slim = checked(it, plan, masks)
    assert (slim.side.out_channels, slim.last.in_channels, slim.stem.out_channels) == (3, 9, 6)
    kept = slim.last.kept.flatten(1).any(1).tolist()
    assert kept == [False] + [True] * 8


def test_one_channel_stays_of_what_nothing_reads() -> None:
    it = looked_at(Reading(lambda m, x: m.b(m.made(x))), X)
    masks = whole(it)
    masks["b"][:] = False
    plan = followed(it, masks)
    assert list(plan.counts.values()) == [1]
    slim = checked(it, plan, masks)
    assert isinstance(slim.b, ColumnConv)
    assert (len(slim.b.weight), slim.b.in_channels, slim.a.out_channels) == (0, 1, 1)


def test_a_gate_reads_too() -> None:
    """What a gate reads goes only where its columns are dead as well."""
    it = seen("gated")
    masks = whole(it)
    masks["last"][3] = False
    assert not followed(it, masks).keep
    checked(it, followed(it, masks), masks, it.x)
    masks["down"][3] = False
    plan = followed(it, masks)
    assert list(plan.counts.values()) == [5]
    slim = checked(it, plan, masks, it.x)
    assert (slim.stem.out_channels, slim.up.out_channels, slim.down.in_channels) == (5, 5, 5)


def test_what_is_kept_by_name_does_not_go() -> None:
    it = looked_at(Reading(GOES["a norm"]), X)
    plan = tonsor.plan_columns(it.anatomy, threshold=0.9, by="l1", rank="per_layer")
    assert plan.keep
    plan = tonsor.plan_columns(it.anatomy, threshold=0.9, rank="per_layer", keep=["a"])
    assert not plan.keep
    assert plan.columns.keys() == {"b.weight"}


def test_an_exported_model_has_the_same_readers() -> None:
    it = looked_at(Reading(GOES["depthwise"]), X)
    anatomy = tonsor.inspect(it.model, X, mode="export")
    other = Seen(it.model, X, anatomy, find_columns(anatomy))
    plan = followed(other, without_two(other))
    assert list(plan.counts.values()) == [4]
    checked(other, plan, without_two(other))


def test_nothing_follows_of_columns_of_inputs_that_live() -> None:
    it = seen("residual")
    masks = {n: m & (np.arange(m.shape[1]) % 2 == 0) for n, m in whole(it).items()}
    masks["two.around"][:] = True
    plan = followed(it, masks)
    assert not plan.keep
    checked(it, plan, masks, it.x)
