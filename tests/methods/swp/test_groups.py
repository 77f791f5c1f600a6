"""Filters that share their skeleton, or the norms of their stripes: they lose stripes as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tonsor
from tests.criteria.nets import settled
from tests.families.stripe_nets import NETS
from tests.methods.nets import Batch
from tests.methods.swp.nets import drive, gone, made, pictures, put, sgd
from tests.refusals import said
from tonsor.errors import SelectionError
from tonsor.methods.swp import FilterSkeleton, StripeLasso
from tonsor.methods.swp.run import stripe_method
from tonsor.methods.swp.skeleton import skeleton_of

KINDS = st.sampled_from(["chain", "residual", "chain bias"])
SIZES = st.integers(2, 9)


def summed(tensor: Tensor, size: int) -> Tensor:
    """Add up what consecutive filters have, by hand."""
    return torch.stack([part.sum(0) for part in tensor.split(size)])


def repeated(numbers: Tensor, size: int, filters: int) -> Tensor:
    return torch.stack([numbers[i // size] for i in range(filters)])


def backward(net: Any, batch: Batch) -> None:
    images, labels = batch
    F.cross_entropy(net(images), labels).backward()


def even(masks: dict[str, Any], size: int) -> bool:
    """Whether the filters of each group have the same stripes."""
    return all(
        (mask[i : i + size] == mask[i]).all()
        for mask in masks.values() for i in range(0, len(mask), size)
    )  # fmt: skip


def twins(kind: str, size: int, **options: Any) -> tuple[Any, FilterSkeleton, Any, FilterSkeleton]:
    """A net whose filters share skeletons, and one whose own are all the same in each group."""
    net, anatomy = made(kind, double=True)
    ours = FilterSkeleton(net, anatomy, stripe_group=size, **options)
    put(ours)
    other, anatomy2 = made(kind, double=True)
    single = FilterSkeleton(other, anatomy2, **options)
    shared = zip(ours.course.layers, ours.skeletons, strict=True)
    put(single, {x.name: repeated(s.detach(), size, x.filters) for x, s in shared})
    return net, ours, other, single


# ---------------------------------------------------------------- gradients and steps


@given(KINDS, SIZES, st.floats(0, 0.2))
@settings(max_examples=12)
def test_a_shared_number_gets_the_gradients_and_the_pull_of_all_its_filters(
    kind: str, size: int, alpha: float
) -> None:
    net, ours, other, single = twins(kind, size, alpha=alpha)
    (batch,) = pictures(1, double=True)
    assert torch.equal(net(batch[0]), other(batch[0]))
    for each, method in ((net, ours), (other, single)):
        backward(each, batch)
        method.before_step(0)
    for layer, a, b in zip(ours.course.layers, ours.skeletons, single.skeletons, strict=True):
        assert a.shape == (-(-layer.filters // size), *layer.kernel)
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, summed(b.grad, size), rtol=1e-12, atol=1e-14)
    for name, weight in net.named_parameters():
        if "skeleton" not in name:
            torch.testing.assert_close(weight.grad, other.get_parameter(name).grad)


@pytest.mark.parametrize("kind", ["chain", "residual"])
@pytest.mark.parametrize("size", [2, 4, 16])
@pytest.mark.parametrize(
    "options", [{"threshold": 0.15, "alpha": 0.003}, {"threshold": 0.1, "revival": False}]
)
def test_training_is_that_of_skeletons_that_are_held_equal(
    kind: str, size: int, options: dict[str, Any]
) -> None:
    net, ours, other, single = twins(kind, size, **options)
    data = pictures(25, double=True)
    drive(net, ours, data)
    optimizer = sgd(other)
    for step, batch in enumerate(data):
        backward(other, batch)
        single.before_step(step)
        for layer, numbers in zip(single.course.layers, single.skeletons, strict=True):
            assert numbers.grad is not None
            numbers.grad.copy_(repeated(summed(numbers.grad, size), size, layer.filters))
        optimizer.step()
        optimizer.zero_grad()
        single.after_step(step)
    assert ours.course.held == single.course.held == 0  # a floor would hold whole groups, or not
    assert gone(ours) == gone(single)
    assert max(map(len, gone(ours).values())) > 0
    for layer, a, b in zip(ours.course.layers, ours.skeletons, single.skeletons, strict=True):
        torch.testing.assert_close(repeated(a.detach(), size, layer.filters), b.detach())
    x = data[0][0]
    torch.testing.assert_close(net(x), other(x))
    assert ours.finish().cut() == single.finish().cut()


@pytest.mark.parametrize("size", [1, 2, 5, 99])
def test_norms_are_where_a_skeleton_may_start(size: int) -> None:
    net, anatomy = made("residual", double=True)
    x = pictures(1, double=True)[0][0]
    before, weight = net(x), net.first.weight.detach().clone()
    method = FilterSkeleton(net, anatomy, stripe_group=size, start="norms")
    torch.testing.assert_close(net(x), before, rtol=1e-12, atol=1e-12)
    numbers = dict(zip((y.name for y in method.course.layers), method.skeletons, strict=True))
    squares = torch.stack([p.square().sum(1).mean(0) for p in weight.split(size)])
    root = squares.sqrt()
    torch.testing.assert_close(numbers["first"].detach(), root / root.mean())


def test_what_went_before_has_no_part_in_where_a_skeleton_starts() -> None:
    net, anatomy = made("chain", double=True)
    keep, by = ["conv2", "conv3"], "random"
    earlier = tonsor.plan_stripes(anatomy, "pieces=80%", by=by, keep=keep)
    there = torch.from_numpy(earlier.stripes["conv1.weight"].mask).view(6, 3, 3)
    squares = net.conv1.weight.detach().square().sum(1) * there
    method = FilterSkeleton(net, anatomy, after=earlier, stripe_group=3, start="norms")
    counts = summed(there.double(), 3)
    root = (summed(squares, 3) / counts.clamp_min(1)).sqrt()
    started = (root / root.mean()).clamp_min(1e-3) * (counts > 0)
    assert 0 < (counts < 3).sum() < 18
    torch.testing.assert_close(method.skeletons[0].detach(), started)


def test_copies_and_what_is_printed_know_the_groups() -> None:
    net, anatomy = made("chain")
    method = FilterSkeleton(net, anatomy, stripe_group=4)
    assert repr(skeleton_of(net.conv1)) == "Skeleton(18/18)"
    put(method)
    fresh, anatomy2 = made("chain", seed=3)
    FilterSkeleton(fresh, anatomy2, stripe_group=4)
    fresh.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(fresh.eval()(x), net.eval()(x))


# ---------------------------------------------------------------- what goes


@given(st.sampled_from(["swp", "lasso"]), SIZES, st.integers(0, 9),
       st.sampled_from(["pieces=50%", "macs=60%"]))  # fmt: skip
@settings(max_examples=15)
def test_a_budget_takes_whole_groups_at_each_turn(
    kind: Any, size: int, seed: int, budget: str
) -> None:
    net, anatomy = made("residual" if seed % 2 else "chain", seed=seed)
    method = stripe_method(net, anatomy, kind, budget=budget, ramp=6, every=2, stripe_group=size)
    seen: list[int] = []

    def watch(_: int) -> None:
        assert even(method.course.masks, size)
        seen.append(sum(map(len, gone(method).values())))

    drive(net, method, pictures(6, seed), watch=watch)
    assert seen == sorted(seen)
    assert seen[-1] > 0
    net.eval()
    x = torch.randn(2, 1, 8, 8)
    before = net(x)
    decided = method.finish()
    assert decided.made_by["stripe_group"] == size
    assert decided.made_by["reached"] <= decided.made_by["limit"]
    assert even({n: s.mask for n, s in decided.stripes.items()}, size)
    torch.testing.assert_close(net(x), before)
    torch.testing.assert_close(decided.apply(net)(x), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["swp", "lasso"])
def test_an_end_before_the_budget_is_met_cuts_whole_groups_at_once(kind: Any) -> None:
    net, anatomy = made("residual")
    method = stripe_method(net, anatomy, kind, budget="pieces=40%", ramp=99, stripe_group=4)
    drive(net, method, pictures(3))
    assert not any(gone(method).values())
    decided = method.finish()
    assert even(method.course.masks, 4)
    assert decided.made_by["reached"] <= decided.made_by["limit"]
    assert any("are cut at once" in note for note in decided.made_by["notes"])


def test_steps_of_a_group_are_named_where_they_miss_the_budget() -> None:
    net, anatomy = made("chain")
    method = FilterSkeleton(net, anatomy, budget="macs=33.3%", ramp=1, every=1, stripe_group=8)
    put(method)
    method.after_step(0)
    plan = method.finish()
    assert not plan.made_by["met"]
    assert any("a stripe of 8 filters, or" in note for note in plan.made_by["notes"])


def test_a_floor_holds_the_highest_of_a_group_and_no_part_of_another() -> None:
    net, anatomy = made("chain")
    method = FilterSkeleton(net, anatomy, floor=7, stripe_group=4)
    small = 0.009 * torch.linspace(0.1, 1, 18).view(2, 3, 3)  # of four filters, and of two
    put(method, {"conv1": small})
    method.after_step(0)
    mask = method.course.masks["conv1"]
    assert mask[4:].sum(axis=1).tolist() == [4, 4]
    assert not mask[:4].any()
    assert any(
        n.startswith("8 stripes below the threshold") for n in method.finish().made_by["notes"]
    )


def test_a_group_without_stripes_is_silent_as_a_whole() -> None:
    net, anatomy = made("residual bias")
    method = FilterSkeleton(net, anatomy, stripe_group=5)
    first = torch.ones(3, 3, 3)
    first[1] = 0.0
    put(method, {"first": first})
    method.after_step(0)
    for name in ("norm1.weight", "norm1.bias", "first.bias"):
        assert (net.get_parameter(name) == 0).nonzero().flatten().tolist() == [5, 6, 7, 8, 9]
    net.eval()
    x = torch.randn(2, 1, 8, 8)
    before = net(x)
    slim: Any = method.finish().apply(net)
    assert slim.get_submodule("first").weight.shape[0] == 7
    torch.testing.assert_close(slim(x), before, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- group lasso


def penalty(weights: Sequence[Tensor], alpha: float, size: int) -> Tensor:
    """The penalty by its definition: position by position of each group."""
    total = torch.zeros((), dtype=torch.float64)
    for weight in weights:
        for part in weight.split(size):
            for at in np.ndindex(*weight.shape[2:]):
                squares = sum(one[(slice(None), *at)].square().sum() for one in part)
                total = total + len(part) ** 0.5 * torch.as_tensor(squares).sqrt()
    return alpha * total


@given(st.sampled_from(["plain", "strided", "grouped", "one dimension"]), SIZES, st.floats(0, 1))
@settings(max_examples=12)
def test_the_lasso_spans_the_filters_of_a_group(name: str, size: int, alpha: float) -> None:
    build, shape = NETS[name]
    model = settled(build().double())
    x = torch.randn(2, *shape, dtype=torch.float64)
    method = StripeLasso(model, tonsor.inspect(model, x), alpha=alpha, stripe_group=size)
    weights = [model.get_parameter(layer.weight) for layer in method.course.layers]
    model(x).square().sum().backward()
    before = [w.grad.clone() for w in weights if w.grad is not None]
    wanted = torch.autograd.grad(penalty(weights, alpha, size), weights)
    method.before_step(0)
    for weight, old, pull in zip(weights, before, wanted, strict=True):
        torch.testing.assert_close(weight.grad, old + pull, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", [2, 4, 99])
def test_a_threshold_of_the_lasso_is_compared_with_the_root_mean_square(size: int) -> None:
    net, anatomy = made("residual")
    old = {n: getattr(net, n).weight.detach().clone() for n in ("first", "second")}
    method = StripeLasso(net, anatomy, threshold=0.19, stripe_group=size)
    method.after_step(0)
    for name, weight in old.items():
        mask = torch.from_numpy(method.course.masks[name]).view(-1, 3, 3)
        for rows, kept in zip(weight.split(size), mask.split(size), strict=True):
            value = rows.square().sum(1).mean(0).sqrt()
            assert torch.equal(kept, (value > 0.19).expand_as(kept))
        assert torch.equal(getattr(net, name).weight, weight * mask.unsqueeze(1))


# ---------------------------------------------------------------- after another plan


@pytest.mark.parametrize("method", ["swp", "lasso"])
@pytest.mark.parametrize("kind", ["channels", "stripes"])
def test_groups_are_of_the_filters_that_are_there_when_training_starts(
    method: Any, kind: str
) -> None:
    torch.manual_seed(0)
    net: Any = tonsor.zoo.build("resnet20", width=0.5, channels=1).train()
    anatomy = tonsor.inspect(net, torch.zeros(2, 1, 8, 8))
    cut = tonsor.plan if kind == "channels" else tonsor.plan_stripes
    earlier = cut(anatomy, "macs=70%", by="random")
    learning = stripe_method(
        net, anatomy, method, after=earlier, budget="macs=40%", ramp=6, every=2, stripe_group=3,
        alpha=0.01,
    )  # fmt: skip
    drive(net, learning, pictures(8))
    net.eval()
    x = torch.randn(4, 1, 8, 8)
    before = net(x)
    if isinstance(learning, FilterSkeleton) and kind == "channels":
        numbers = zip(learning.course.layers, learning.skeletons, strict=True)
        rows = {layer.name: len(own) for layer, own in numbers}
        for name, kept in earlier.cut().keep.items():
            layer = name.removesuffix(".weight")
            if layer in rows and kept[0] is not None:
                assert rows[layer] == -(-len(kept[0]) // 3)
    decided = learning.finish()
    there = learning.course.frame.start
    for layer in learning.course.layers:
        mask, whole = learning.course.masks[layer.name], there[layer.name]
        kept = earlier.cut().keep.get(layer.weight, (None,))[0]
        left = list(range(layer.filters)) if kept is None else list(kept)
        for i in range(0, len(left), 3):
            rows_ = left[i : i + 3]
            assert np.array_equal(mask[rows_], whole[rows_] & mask[rows_].any(axis=0))
    torch.testing.assert_close(net(x), before)
    torch.testing.assert_close(decided.apply(net)(x), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["swp", "lasso"])
@pytest.mark.parametrize("size", [0, -1, 1.5, True, "16", None])
def test_what_is_no_number_of_filters_is_refused(kind: Any, size: Any) -> None:
    net, anatomy = made("chain")
    names = list(net.state_dict())
    words = said(SelectionError, lambda: stripe_method(net, anatomy, kind, stripe_group=size))
    assert words.startswith("stripe_group is how many filters share their stripes, at least 1, got")
    assert list(net.state_dict()) == names
