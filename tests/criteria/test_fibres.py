"""Scores of stripes, against a loop over stripes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import looked_at as anatomy_of
from tests.criteria.nets import pictures, small
from tests.families.stripe_nets import NETS, seen
from tests.refusals import said
from tonsor.criteria.fibres import score_fibres
from tonsor.criteria.registry import CRITERIA
from tonsor.errors import ScoreError, SelectionError
from tonsor.families.fibres import FibreLayer
from tonsor.families.stripes.layers import find_stripes

Stripe = Tensor


def stripes(layer: FibreLayer, tensor: Tensor) -> list[Stripe]:
    """The stripes of a weight, filter after filter, as they are written in the definition."""
    return [
        tensor[(n, slice(None), *at)].detach().double()
        for n in range(layer.filters)
        for at in np.ndindex(*layer.kernel)
    ]


def l1(each: list[Stripe]) -> list[float]:
    return [float(s.abs().sum()) for s in each]


def l2(each: list[Stripe]) -> list[float]:
    return [float(s.square().sum().sqrt()) for s in each]


def geometric_median(each: list[Stripe]) -> list[float]:
    return [sum(float((p - q).square().sum().sqrt()) for q in each) for p in each]


NAIVE: dict[str, Callable[[list[Stripe]], list[float]]] = {
    "l1": l1,
    "l2": l2,
    "geometric_median": geometric_median,
    "lp:p=3": lambda each: [float(s.abs().pow(3).sum() ** (1 / 3)) for s in each],
}


@pytest.mark.parametrize("by", NAIVE)
@pytest.mark.parametrize("name", ["plain", "grouped", "one dimension", "three dimensions"])
def test_as_defined(by: str, name: str) -> None:
    it = seen(name)
    scores = score_fibres(it.anatomy, it.layers, by)
    assert list(scores.values) == [x.name for x in it.layers.free]
    for layer in it.layers.free:
        wanted = NAIVE[by](stripes(layer, it.anatomy.parameters[layer.weight]))
        np.testing.assert_allclose(scores.values[layer.name], wanted, rtol=1e-5)


def test_random_scores_are_those_of_the_seed() -> None:
    it = seen("plain")
    one, again, other = (
        score_fibres(it.anatomy, it.layers, "random", seed=seed).values for seed in (0, 0, 1)
    )
    for layer in it.layers.free:
        assert len(set(one[layer.name])) == layer.size
        assert np.array_equal(one[layer.name], again[layer.name])
        assert not np.array_equal(one[layer.name], other[layer.name])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    score_fibres(it.anatomy, it.layers, "random")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("by", ["taylor_weight", "fisher", "obd"])
def test_only_criteria_of_gradients_look_at_data(by: str) -> None:
    anatomy = anatomy_of(small())
    layers = find_stripes(anatomy)
    if CRITERIA[by].needs != "gradients":
        told = said(SelectionError, lambda: score_fibres(anatomy, layers, by))
        assert "which stripes have none of their own" in told
        return
    assert "give it as batches=" in said(SelectionError, lambda: score_fibres(anatomy, layers, by))
    scores = score_fibres(anatomy, layers, by, batches=pictures(), quiet=True)
    assert set(scores.values) == {"conv1", "conv2"}


@pytest.mark.parametrize("loss", [None, lambda out, target: out.square().sum()])
def test_taylor_is_the_mean_over_batches(loss: Any) -> None:
    """Squares of weight times gradient are summed over the stripe; the mean is over batches."""
    net: Any = small()
    anatomy, batches = anatomy_of(net), pictures()
    layers = find_stripes(anatomy)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    scores = score_fibres(anatomy, layers, "taylor_weight", batches=batches, loss=loss, quiet=True)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    other: Any = copy.deepcopy(net)
    for layer in layers.free:
        weight = other.get_parameter(layer.weight)
        total = np.zeros(layer.size)
        for x, target in batches:
            out = other(x)
            value = F.cross_entropy(out, target) if loss is None else loss(out, target)
            (gradient,) = torch.autograd.grad(value, weight)
            pairs = zip(stripes(layer, weight), stripes(layer, gradient), strict=True)
            total += [_taylor(w, g) for w, g in pairs]
        np.testing.assert_allclose(scores.values[layer.name], total / len(batches), rtol=1e-9)


def _taylor(weight: Stripe, gradient: Stripe) -> float:
    return float((weight * gradient).square().sum())


def test_as_many_batches_are_shown_as_asked_for() -> None:
    anatomy, batches = anatomy_of(small()), pictures(count=3, size=4)
    layers = find_stripes(anatomy)
    few, first = (
        score_fibres(anatomy, layers, "taylor_weight", batches=b, at_most=n, quiet=True).values
        for b, n in ((batches, 1), (batches[:1], None))
    )
    every = score_fibres(anatomy, layers, "taylor_weight", batches=batches, quiet=True).values
    for name, values in first.items():
        np.testing.assert_allclose(few[name], values)
        assert not np.allclose(every[name], values)


@pytest.mark.parametrize("by", ["hrank", "apoz", "bn_scale", "taylor_map"])
def test_what_stripes_do_not_have_is_not_looked_at(by: str) -> None:
    it = seen("plain")
    told = said(SelectionError, lambda: score_fibres(it.anatomy, it.layers, by))
    assert f"'{by}' looks at " in told
    assert "such as l1, l2 or taylor_weight" in told


def test_every_criterion_scores_or_says_why_not() -> None:
    anatomy = anatomy_of(small())
    layers = find_stripes(anatomy)
    for by, found in CRITERIA.items():
        try:
            scores = score_fibres(anatomy, layers, by, batches=pictures(), quiet=True)
        except SelectionError as error:
            assert found.needs not in ("weights", "gradients"), error  # noqa: PT017
        else:
            assert {n: len(v) for n, v in scores.values.items()} == {"conv1": 54, "conv2": 45}


def test_what_has_no_values_is_not_scored() -> None:
    with torch.device("meta"):
        net = NETS["plain"][0]().eval()
    anatomy = tonsor.inspect(net, torch.empty(2, 3, 7, 7, device="meta"))
    told = said(ScoreError, lambda: score_fibres(anatomy, find_stripes(anatomy), "l1"))
    assert "'body.0.weight' is on the meta device and has no values" in told


def test_there_must_be_something_to_score() -> None:
    anatomy = tonsor.inspect(nn.Sequential(nn.Linear(4, 2)), torch.randn(2, 4))
    told = said(SelectionError, lambda: score_fibres(anatomy, find_stripes(anatomy)))
    assert "the model has no convolution" in told
