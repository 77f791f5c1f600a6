from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import tonsor
from tests.methods.spp.nets import drive, gone, looks, made, pictures
from tests.refusals import said
from tonsor.errors import ScoreError, SelectionError, TonsorError
from tonsor.methods.spp import ByChance


@given(
    family=st.sampled_from(["columns", "stripes", "channels"]), percent=st.integers(1, 83),
    seed=st.integers(0, 1000), stop=st.sampled_from([0, 5, 60]), elementwise=st.booleans(),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_each_layer_loses_its_part_exactly(
    family: Any, percent: int, seed: int, stop: int, elementwise: bool
) -> None:
    net, anatomy = made("residual", seed)
    method = ByChance(net, anatomy, family=family, ratio=percent / 100, interval=1, most=0.3,
                      seed=seed, elementwise=elementwise)  # fmt: skip
    drive(net, method, pictures(stop))
    over, lost_before = method.over, sum(map(len, gone(method).values()))
    plan = method.finish()
    total = 0
    for pool in method.chances.pools:
        wanted = math.ceil(percent * pool.size / 100)
        assert pool.lost == wanted
        assert plan.made_by["lost"][pool.name] == [wanted, pool.size]
        assert plan.made_by["updates"][pool.name] == pool.updates <= stop
        total += wanted
    early = [n for n in plan.made_by["notes"] if "ended before the pruning did" in n]
    assert bool(early) is not over
    if early:
        assert f"; {total - lost_before} pieces more went at once" in early[0]
    if family == "columns":
        for name, pool in zip(("stem", "first", "second"), method.chances.pools, strict=True):
            weight = net.get_submodule(name).weight
            zero = (weight == 0).all(0).sum()
            assert int(zero) == pool.lost


def test_each_pattern_has_its_part_and_the_last_that_fits_counts() -> None:
    net, anatomy = made("residual")
    ratio = {"s*": 0.5, "second": 0.25}
    method = ByChance(net, anatomy, ratio=ratio, interval=1)
    plan = method.finish()
    assert plan.made_by["lost"] == {"stem": [5, 9], "first": [0, 54], "second": [27, 108]}
    assert plan.made_by["ratio"] == {"stem": 0.5, "first": 0.0, "second": 0.25}
    assert "first.weight" not in plan.columns
    words = said(SelectionError, lambda: ByChance(net, anatomy, ratio={"third": 0.5}))
    assert "no pool of pieces is called 'third'; they are stem, first, second" in words


def test_what_the_guard_did_is_in_the_notes() -> None:
    net, anatomy = made("residual")
    method = ByChance(net, anatomy, ratio={"stem": 0.5, "first": 0.1, "second": 0.5}, interval=1,
                      guard=21)  # fmt: skip
    drive(net, method, pictures(21))
    notes = method.finish().made_by["notes"]
    ended = {p.name: p.ended for p in method.chances.pools}
    by_guard = {n for n, why in ended.items() if why == "guard"}
    assert by_guard >= {"stem", "second"}
    assert len(notes) == len(by_guard)
    assert all(f"'{n}' was not done after 21 updates" in " ".join(notes) for n in by_guard)


def test_the_guard_is_told_of_even_if_training_ends_early() -> None:
    net, anatomy = made("residual")
    method = ByChance(net, anatomy, ratio=0.5, interval=1, guard=10)
    drive(net, method, pictures(4))
    method.chances.pools[0].updates = 9
    drive(net, method, pictures(1), first=4)
    assert [p.ended for p in method.chances.pools] == ["guard", "", ""]
    notes = method.finish().made_by["notes"]
    assert len(notes) == 2
    assert "pieces more went at once" in notes[0]
    assert "'stem' was not done after 10 updates" in notes[1]


def test_layers_that_are_kept_are_not_masked() -> None:
    net, anatomy = made("residual")
    method = ByChance(net, anatomy, ratio=0.5, keep=["first", net.stem])
    assert [p.name for p in method.chances.pools] == ["second"]
    method.release()
    net.requires_grad_(False)
    net.second.weight.requires_grad_(True)
    ByChance(net, anatomy, ratio=0.5, keep=["first", "stem"]).release()


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either which part goes"),
        ({"ratio": 0.5, "budget": "macs=50%"}, "either which part goes"),
        ({"budget": "latency=50%"}, "can't be the budget of a training"),
        ({"budget": "macs=0.1%"}, "can't be met by pieces that go by chance"),
        ({"budget": "spp_speedup=1000x"}, "can't be met by pieces that go by chance"),
        ({"ratio": 1.0}, "below 1, got 1.0"),
        ({"ratio": 0.99}, "would leave none of the 9 pieces of 'stem'"),
        ({"ratio": -0.5}, "got -0.5"),
        ({"ratio": math.nan}, "got nan"),
        ({"ratio": {"x": 0.5}}, "no pool of pieces is called 'x'"),
        ({"ratio": 0.5, "family": "rows"}, "family must be one of columns, channels"),
        ({"ratio": 0.5, "gradient": "none"}, "gradient must be one of masked, caffe"),
        ({"ratio": 0.5, "interval": 0}, "interval is a number of steps"),
        ({"ratio": 0.5, "interval": True}, "interval is a number of steps"),
        ({"ratio": 0.5, "most": 0.0}, "most=0.0"),
        ({"ratio": 0.5, "centre": 1.0}, "centre=1.0"),
        ({"ratio": 0.5, "shape": "round"}, "no shape 'round'"),
        ({"ratio": 0.5, "scores": "l1"}, "there is no scores='l1'"),
        ({"ratio": 0.5, "alpha": "other"}, "there is no alpha='other'"),
        ({"ratio": 0.5, "history": 1.0}, "history"),
        ({"ratio": 0.5, "guard": 0}, "guard"),
        ({"ratio": 0.5, "by": "nothing"}, "nothing"),
        ({"ratio": 0.5, "by": "taylor"}, "taylor"),
        ({"ratio": 0.5, "keep": ["nothing"]}, "nothing"),
        ({"ratio": 0.5, "keep": ["stem", "first", "second"]}, "no convolution of this model"),
    ],
)
@pytest.mark.parametrize("family", ["columns", "channels"])
def test_what_makes_no_sense_is_refused_and_the_model_is_left_as_it_was(
    options: dict[str, Any], words: str, family: Any
) -> None:
    net, anatomy = made("residual")
    before, weights = looks(net), copy.deepcopy(net.state_dict())
    message = said(TonsorError, lambda: ByChance(net, anatomy, **{"family": family, **options}))
    assert words in message or family == "channels"
    assert looks(net) == before
    assert all(torch.equal(t, weights[n]) for n, t in net.state_dict().items())


def test_a_second_method_is_refused_and_the_first_goes_on() -> None:
    net, anatomy = made("residual")
    first = ByChance(net, anatomy, ratio=0.5, keep=["stem"])
    before = looks(net)
    for family in ("columns", "channels"):
        chosen: Any = family
        words = said(
            SelectionError, lambda chosen=chosen: ByChance(net, anatomy, family=chosen, ratio=0.5)
        )
        assert "is masked already" in words
        assert looks(net) == before
    first.finish()
    ByChance(net, anatomy, ratio=0.25).release()


@pytest.mark.parametrize("family", ["columns", "stripes", "channels"])
def test_what_is_frozen_is_refused(family: Any) -> None:
    net, anatomy = made("residual")
    net.second.weight.requires_grad_(False)
    before = looks(net)
    words = said(SelectionError, lambda: ByChance(net, anatomy, family=family, ratio=0.5))
    assert "is frozen" in words
    assert looks(net) == before


def test_models_of_others_and_replaced_parameters_are_refused() -> None:
    net, anatomy = made("residual")
    other, _ = made("residual")
    assert "made of another" in said(SelectionError, lambda: ByChance(other, anatomy, ratio=0.5))
    assert "first.weight" in anatomy.parameters
    net.first.weight = nn.Parameter(net.first.weight.detach().clone())
    assert "no longer" in said(TonsorError, lambda: ByChance(net, anatomy, ratio=0.5))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2))
    seen = tonsor.inspect(flat, torch.zeros(2, 4))
    for family in ("columns", "stripes", "blocks"):
        chosen: Any = family
        said(SelectionError, lambda chosen=chosen: ByChance(flat, seen, family=chosen, ratio=0.5))


def test_weights_that_are_no_numbers_are_refused() -> None:
    net, anatomy = made("residual")
    method = ByChance(net, anatomy, ratio=0.5, interval=1)
    with torch.no_grad():
        method.pools.held["first"][0].weight.fill_(math.nan)
    assert "'first.weight' gives nan" in said(ScoreError, lambda: method.after_step(0))
    method.release()


@pytest.mark.parametrize("wrap", [weight_norm, parametrizations.weight_norm], ids=["old", "new"])
@pytest.mark.parametrize("family", ["columns", "channels"])
def test_what_divides_by_the_norm_of_a_filter_is_refused(family: Any, wrap: Any) -> None:
    net, _ = made("residual")
    wrap(net.first)
    anatomy = tonsor.inspect(net, torch.zeros(2, 1, 8, 8))
    before = looks(net)
    words = said(SelectionError, lambda: ByChance(net, anatomy, family=family, ratio=0.5))
    assert "'first' has a weight norm" in words or "weight norm" in words
    assert looks(net) == before
