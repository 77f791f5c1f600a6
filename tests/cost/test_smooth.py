from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tonsor
from tests.methods.lfpc.nets import NETS, made
from tests.refusals import said
from tonsor.cost.conventions import CONVENTIONS
from tonsor.errors import SelectionError

SUMS = ["macs", "params", *(n for n, c in CONVENTIONS.items() if c.finish is None)]
ZOO = ["convnet", "vgg16", "resnet56", "resnet50"]


@functools.cache
def seen(name: str) -> tonsor.Anatomy:
    if name in NETS:
        return made(name)[1]
    return tonsor.inspect(tonsor.zoo.build(name, width=0.25), torch.zeros(1, 3, 32, 32))


def counts_for(anatomy: tonsor.Anatomy, seed: int) -> dict[str, int]:
    chance = random.Random(seed)
    return {g.name: chance.randint(1, g.size) for g in anatomy.prunable}


def as_tensor(counts: Any) -> Tensor:
    return torch.tensor(list(counts), dtype=torch.float64)


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from(SUMS))
@pytest.mark.parametrize("name", [*sorted(NETS), *ZOO])
def test_whole_counts_cost_what_they_cost(name: str, seed: int, target: str) -> None:
    anatomy = seen(name)
    counts = counts_for(anatomy, seed)
    names = list(counts)
    random.Random(seed).shuffle(names)
    smooth = anatomy.cost.smooth(target, names)
    assert float(smooth(as_tensor(counts[n] for n in names))) == anatomy.cost.amount(target, counts)
    # some may be given beforehand, and others stay whole
    given, rest = dict(list(counts.items())[::2]), names[:1]
    known = {n: c for n, c in given.items() if n not in rest}
    found = anatomy.cost.smooth(target, rest, known)(as_tensor(counts[n] for n in rest))
    assert float(found) == anatomy.cost.amount(target, {**known, **{n: counts[n] for n in rest}})


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from(["macs", "params"]))
@pytest.mark.parametrize("name", sorted(NETS))
def test_gradients_are_differences(name: str, seed: int, target: str) -> None:
    anatomy = seen(name)
    counts = counts_for(anatomy, seed)
    smooth = anatomy.cost.smooth(target, list(counts))
    at = as_tensor(counts.values()) * torch.rand(
        len(counts), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )  # fmt: skip
    at.requires_grad_()
    (gradient,) = torch.autograd.grad(smooth(at), at)
    for i in range(len(counts)):
        step = torch.zeros_like(at)
        step[i] = 2.0**-10
        with torch.no_grad():
            slope = float(smooth(at + step) - smooth(at - step)) / 2.0**-9
        assert float(gradient[i]) == pytest.approx(slope, rel=1e-5, abs=1e-3)
    # where nothing is left there is a slope as well
    at = torch.zeros(len(counts), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(smooth(at), at)
    assert gradient.isfinite().all()


BY_HAND: dict[str, tuple[Callable[[Any, Any], Any], list[str]]] = {
    "normed": (
        lambda a, b: 27 * a + 2 * a + 9 * a * b + 3 * b + 3 * b + 3,
        ["one.weight[0]", "two.weight[0]"],
    ),
    "early": (  # one count is of the stem, the end of the branch, two norms and the classifier
        lambda a, b: 27 * a + 2 * a + 9 * a * b + 2 * b + 9 * b * a + 2 * a + 3 * a + 3,
        ["stem.weight[0]", "norm2.weight[0]"],
    ),
    "inverted": (
        lambda a, b: 27 * a + 2 * a + a * b + 2 * b + 9 * b + 2 * b + b * a + 2 * a + 3 * a + 3,
        ["stem.weight[0]", "wide.weight[0]"],
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
@given(st.floats(0.25, 6), st.floats(0.25, 6))
def test_one_count_moves_all_layers_that_are_coupled(name: str, a: float, b: float) -> None:
    formula, names = BY_HAND[name]
    at = as_tensor([a, b]).requires_grad_()
    cost, wanted = seen(name).cost.smooth("params", names)(at), formula(at[0], at[1])
    torch.testing.assert_close(cost, wanted)
    torch.testing.assert_close(torch.autograd.grad(cost, at), torch.autograd.grad(wanted, at))


def test_parts_of_a_concatenation_add_up() -> None:
    anatomy = seen("dense")
    names = ["stem.weight[0]", "one.weight[0]", "two.weight[0]"]
    at = as_tensor([1.5, 2.25, 0.5]).requires_grad_()
    a, b, c = at
    cost = anatomy.cost.smooth("params", names)(at)
    wanted = (27 * a + a + 2 * a + 2 * a + 9 * a * b + 2 * (a + b) + 9 * (a + b) * c
              + 2 * (a + b + c) + 3 * (a + b + c) + 3)  # fmt: skip
    torch.testing.assert_close(cost, wanted)
    torch.testing.assert_close(torch.autograd.grad(cost, at), torch.autograd.grad(wanted, at))


def test_what_does_not_add_up_or_is_not_there_is_refused() -> None:
    cost = seen("normed").cost
    for name, found in CONVENTIONS.items():
        if found.finish is not None:
            assert "no sum of parts" in said(
                SelectionError, lambda name=name: cost.smooth(name, [])
            )
    assert said(SelectionError, lambda: cost.smooth("macs", ["no such"]))
    assert "no convention" in said(SelectionError, lambda: cost.smooth("maccs", []))
