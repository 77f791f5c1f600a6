from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.methods.swp.nets import drive, made, pictures, put, sgd
from tests.refusals import said
from tonsor.errors import TrainError
from tonsor.methods.swp import FilterSkeleton
from tonsor.methods.swp.skeleton import Skeleton, Start, insert, merge, skeleton_of

KINDS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Any, torch.Tensor]:
    """Draw a convolution of any rank, with its input, in float64."""
    rank = draw(st.integers(1, 3))
    groups, inputs, outputs = (draw(st.integers(1, 3)) for _ in range(3))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    torch.manual_seed(draw(st.integers(0, 99)))
    build: Any = KINDS[rank - 1]
    conv = build(
        inputs * groups, outputs * groups, kernel, groups=groups, bias=draw(st.booleans()),
        stride=draw(st.integers(1, 2)), padding=draw(st.integers(0, 2)),
        dilation=draw(st.integers(1, 2)),
        padding_mode=draw(st.sampled_from(["zeros", "circular"])), dtype=torch.float64,
    )  # fmt: skip
    return conv, torch.randn(2, inputs * groups, *[6] * rank, dtype=torch.float64)


@given(convolutions(), st.sampled_from(["ones", "norms"]))
@settings(max_examples=60)
def test_it_changes_nothing_when_it_is_put_in(
    drawn: tuple[Any, torch.Tensor], start: Start
) -> None:
    conv, x = drawn
    before, weight = conv(x), conv.weight.detach().clone()
    skeleton = insert(conv, start)
    if start == "ones":
        assert (skeleton.skeleton == 1).all()
        assert torch.equal(conv(x), before)
    else:
        torch.testing.assert_close(conv(x), before, rtol=1e-13, atol=1e-13)
        norms = weight.square().sum(1).sqrt()
        torch.testing.assert_close(skeleton.skeleton.detach(), norms / norms.mean())


@given(convolutions(), st.sampled_from(["ones", "norms"]))
@settings(max_examples=60)
def test_it_multiplies_each_stripe_and_leaves_the_product_behind(
    drawn: tuple[Any, torch.Tensor], start: Start
) -> None:
    conv, x = drawn
    names, kind, parameters = list(conv.state_dict()), type(conv), dict(conv.named_parameters())
    skeleton = insert(conv, start)
    with torch.no_grad():
        skeleton.skeleton.copy_(torch.randn_like(skeleton.skeleton))
    expected = conv.parametrizations.weight.original.detach().clone()
    for filter_ in range(len(expected)):
        for input_ in range(expected.shape[1]):
            expected[filter_, input_] *= skeleton.skeleton[filter_].detach()
    answered = conv(x)
    merge(conv)
    assert torch.equal(conv.weight, expected)
    assert torch.equal(conv(x), answered)
    assert list(conv.state_dict()) == names
    assert type(conv) is kind
    assert skeleton_of(conv) is None
    assert all(getattr(conv, n) is p for n, p in parameters.items())
    assert [n for n, _ in conv.named_parameters()] == list(parameters)


def test_gradients_are_those_of_the_product() -> None:
    torch.manual_seed(0)
    conv: Any = nn.Conv2d(4, 6, 3, groups=2, dtype=torch.float64)
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    skeleton = insert(conv)
    with torch.no_grad():
        skeleton.skeleton.copy_(torch.randn_like(skeleton.skeleton))
    weight = conv.weight.detach().clone().requires_grad_()
    F.conv2d(x, weight, conv.bias.detach(), groups=2).square().sum().backward()
    conv(x).square().sum().backward()
    original, product = conv.parametrizations.weight.original, weight.grad
    assert product is not None
    numbers = skeleton.skeleton
    torch.testing.assert_close(original.grad, product * numbers.detach()[:, None])
    torch.testing.assert_close(numbers.grad, (product * original.detach()).sum(1))


def test_stripes_that_are_zero_start_small_and_finite() -> None:
    conv: Any = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        conv.weight[1] = 0
        before = conv.weight.clone()
    skeleton = insert(conv, "norms")
    assert skeleton.skeleton.isfinite().all()
    assert (skeleton.skeleton > 0).all()
    torch.testing.assert_close(conv.weight, before)
    with torch.no_grad():
        merge(conv)
        conv.weight.zero_()
    assert (insert(conv, "norms").skeleton == 1).all()  # there is nothing to compare


def test_a_copy_has_skeletons_of_its_own() -> None:
    net, anatomy = made("residual")
    method = FilterSkeleton(net, anatomy)
    twin = copy.deepcopy(net)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(twin.eval()(x), net.eval()(x))
    put(method)
    assert not torch.equal(twin(x), net(x))
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(x), net(x))
    assert [k for k in net.state_dict() if k.startswith("first.")] == [
        "first.parametrizations.weight.original", "first.parametrizations.weight.0.skeleton",
    ]  # fmt: skip


def test_repr_counts_what_is_left() -> None:
    skeleton = Skeleton(torch.ones(2, 3, 3))
    with torch.no_grad():
        skeleton.skeleton[0] = 0
    assert repr(skeleton) == "Skeleton(3/6)"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_trains_in_mixed_precision(dtype: torch.dtype) -> None:
    net, anatomy = made("residual")
    method = FilterSkeleton(net, anatomy, threshold=0.3, alpha=0.03)
    optimizer = sgd(net)
    for step, (images, labels) in enumerate(pictures(60)):
        with torch.autocast("cpu", dtype):
            answers = net(images)
        assert answers.dtype == dtype
        F.cross_entropy(answers.float(), labels).backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
    assert all(p.dtype == torch.float32 for p in net.parameters())
    decided = method.finish()
    assert any(s.left < s.size for s in decided.stripes.values())
    decided.apply(net.eval())


# ---------------------------------------------------------------- optimizers


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_made_before_is_noticed_and_may_be_given_the_skeletons(kind: type) -> None:
    net, anatomy = made("chain")
    early = kind(net.parameters(), lr=0.01)
    method = FilterSkeleton(net, anatomy)
    words = said(TrainError, lambda: drive(net, method, pictures(2), optimizer=early))
    assert "does not train the skeletons" in words
    method.release()
    method = FilterSkeleton(net, anatomy)
    early.add_param_group({"params": method.skeletons})
    before = [s.detach().clone() for s in method.skeletons]
    drive(net, method, pictures(3), optimizer=early)
    assert all(not torch.equal(a, b) for a, b in zip(before, method.skeletons, strict=True))


def test_a_step_that_changes_nothing_says_nothing_of_the_optimizer() -> None:
    net, anatomy = made("chain")
    method = FilterSkeleton(net, anatomy)
    method.before_step(0)
    method.after_step(0)  # as when the gradients of a step are thrown away
    drive(net, method, pictures(2), first=1)
    assert method._looked


# ---------------------------------------------------------------- skeletons alone


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_stay_as_they_are_where_skeletons_train_alone(frozen: bool) -> None:
    net, anatomy = made("residual")
    for name in ("stem", "first", "second"):
        getattr(net, name).weight.requires_grad_(not frozen)
    weights = {n: net.get_parameter(f"{n}.weight") for n in ("stem", "first", "second")}
    before = {n: w.detach().clone() for n, w in weights.items()}
    others = {
        n: p.detach().clone() for n, p in net.named_parameters() if p.dim() < 4
    }  # fmt: skip
    method = FilterSkeleton(net, anatomy, skeleton_only=True, threshold=0.3, alpha=0.05)
    drive(net, method, pictures(30))
    for name, weight in weights.items():
        assert torch.equal(weight, before[name])
        assert not weight.requires_grad
    for name, old in others.items():
        if name not in ("stem.bias", "first.bias", "second.bias"):  # BatchNorm takes them away
            assert not torch.equal(net.get_parameter(name), old), name
    numbers = dict(zip(weights, [s.detach().clone() for s in method.skeletons], strict=True))
    assert any((n == 0).any() for n in numbers.values())
    assert method.finish().made_by["skeleton_only"]
    for name, weight in weights.items():
        assert weight.requires_grad == (not frozen)
        assert net.get_submodule(name).weight is weight
        torch.testing.assert_close(weight.detach(), before[name] * numbers[name][:, None])
