from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import settled
from tests.families.stripe_nets import NETS
from tests.methods.swp.nets import drive, gone, made, pictures
from tests.refusals import said
from tonsor.errors import SelectionError, TrainError
from tonsor.methods.swp import StripeLasso


def penalty(weights: Sequence[Tensor], alpha: float) -> Tensor:
    """The penalty by its definition: stripe by stripe."""
    total = torch.zeros((), dtype=torch.float64)
    for weight in weights:
        for filter_ in range(len(weight)):
            for at in np.ndindex(*weight.shape[2:]):
                total = total + weight[(filter_, slice(None), *at)].square().sum().sqrt()
    return alpha * total


@given(st.sampled_from(["plain", "strided", "grouped", "depthwise", "one dimension",
                        "three dimensions"]), st.floats(0, 1))  # fmt: skip
@settings(max_examples=15)
def test_the_gradient_is_that_of_the_sum_of_norms(name: str, alpha: float) -> None:
    build, shape = NETS[name]
    model = settled(build().double())
    x = torch.randn(2, *shape, dtype=torch.float64)
    method = StripeLasso(model, tonsor.inspect(model, x), alpha=alpha)
    weights = [model.get_parameter(layer.weight) for layer in method.course.layers]
    model(x).square().sum().backward()
    before = [w.grad.clone() for w in weights if w.grad is not None]
    others = {
        n: p.grad.clone() for n, p in model.named_parameters()
        if p.grad is not None and not any(p is w for w in weights)
    }  # fmt: skip
    wanted = torch.autograd.grad(penalty(weights, alpha), weights)
    method.before_step(0)
    for weight, old, pull in zip(weights, before, wanted, strict=True):
        torch.testing.assert_close(weight.grad, old + pull, rtol=1e-12, atol=1e-12)
    for n, old in others.items():
        assert torch.equal(model.get_parameter(n).grad, old)  # type: ignore[arg-type]


def test_stripes_that_are_zero_are_pulled_nowhere() -> None:
    net, anatomy = made("residual")
    with torch.no_grad():
        net.first.weight[2] = 0
        net.first.weight[:, :, 0, 0] = 0
    method = StripeLasso(net, anatomy, alpha=0.1, threshold=0.0)
    ((images, labels),) = pictures(1)
    F.cross_entropy(net(images), labels).backward()
    before = net.first.weight.grad.clone()
    method.before_step(0)
    assert net.first.weight.grad.isfinite().all()
    assert torch.equal(net.first.weight.grad[2], before[2])
    assert torch.equal(net.first.weight.grad[:, :, 0, 0], before[:, :, 0, 0])
    method.after_step(0)
    assert gone(method)["first"] == set(range(18, 27)) | set(range(0, 108, 9))


@pytest.mark.parametrize("relative", [False, True])
def test_what_is_not_above_the_threshold_is_zero_with_its_gradient(relative: bool) -> None:
    net, anatomy = made("residual")
    norms = {n: getattr(net, n).weight.detach().norm(dim=1) for n in ("stem", "first", "second")}
    means = {n: float(v.mean()) if relative else 1.0 for n, v in norms.items()}
    threshold = 0.9 if relative else 0.18
    method = StripeLasso(net, anatomy, threshold=threshold, relative=relative)
    method.after_step(0)
    for name, values in norms.items():
        low = (values <= threshold * means[name]).flatten()
        assert gone(method)[name] == set(low.nonzero().flatten().tolist())
        assert torch.equal(getattr(net, name).weight.detach().norm(dim=1).flatten() == 0, low)
    assert any(gone(method).values())
    ((images, labels),) = pictures(1)
    F.cross_entropy(net(images), labels).backward()
    method.before_step(1)
    for name, lost in gone(method).items():
        by_stripe = getattr(net, name).weight.grad.movedim(1, -1).flatten(0, 2)
        assert len(by_stripe) == norms[name].numel()
        assert not by_stripe[list(lost)].any()


def test_the_lasso_prunes_where_plain_training_does_not() -> None:
    found = {}
    for alpha in (0.0, 0.1):
        net, anatomy = made("chain")
        method = StripeLasso(net, anatomy, alpha=alpha, threshold=0.1)
        drive(net, method, pictures(40))
        found[alpha] = sum(len(lost) for lost in gone(method).values())
    assert found[0.1] > found[0.0] + 60


def test_the_slim_model_computes_what_was_trained() -> None:
    net, anatomy = made("chain bias")
    method = StripeLasso(net, anatomy, alpha=0.1, threshold=0.1)
    drive(net, method, pictures(40))
    net.eval()
    x = torch.randn(3, 1, 8, 8)
    before = net(x)
    plan = method.finish()
    assert torch.equal(net(x), before)
    slim = plan.apply(net)
    torch.testing.assert_close(slim(x), before, rtol=1e-4, atol=1e-5)
    assert plan.made_by["method"] == "lasso"
    for act in (method.finish, lambda: method.before_step(0), lambda: method.after_step(0)):
        assert "is finished" in said(TrainError, act)


def test_models_that_it_could_not_prune_are_refused() -> None:
    net, anatomy = made("residual")
    other, _ = made("residual")
    assert "made of another" in said(SelectionError, lambda: StripeLasso(other, anatomy))
    assert "alpha" in said(SelectionError, lambda: StripeLasso(net, anatomy, alpha=-1))
    net.second.requires_grad_(False)
    words = said(SelectionError, lambda: StripeLasso(net, anatomy))
    assert "'second.weight' is frozen" in words
    nn.utils.parametrizations.weight_norm(net.first)
    seen: Any = tonsor.inspect(net, torch.zeros(2, 1, 8, 8))
    assert "weight norm" in said(SelectionError, lambda: StripeLasso(net, seen))
    net, anatomy = made("residual")
    method = StripeLasso(net, anatomy)
    net.first.weight = nn.Parameter(net.first.weight.detach().clone())
    words = said(TrainError, lambda: drive(net, method, pictures(1)))
    assert "'first.weight' is no longer" in words
