"""Gradients as in the authors' code: through whole weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_input

from tests.families.stripe_nets import Twice
from tests.methods.spp.nets import drive, gone, made, masks, pictures
from tests.methods.spp.test_update import both
from tests.refusals import said
from tonsor.anatomy import inspect
from tonsor.errors import TrainError
from tonsor.methods.spp import ByChance


@pytest.mark.parametrize("kind", ["chain", "residual bias"])
def test_the_steps_are_those_of_the_authors(kind: str) -> None:
    _, method, net, masked = both(kind, 130, caffe=True, lr=0.01)
    assert len(set(masked)) > 20
    before = net.eval()(pictures(1, double=True)[0][0])
    plan = method.finish()
    assert torch.equal(net(pictures(1, double=True)[0][0]), before)
    assert not any(m._forward_hooks for m in net.modules())
    plan.apply(net)


def test_gradients_go_through_whole_weights_until_something_is_gone() -> None:
    net, anatomy = made("chain", double=True)
    method = ByChance(net, anatomy, ratio=0.5, interval=1, most=0.25, gradient="caffe")
    plain, other = made("chain", double=True)
    clean = ByChance(plain, other, ratio=0.5, interval=1, most=0.25)
    for each, how in ((net, method), (plain, clean)):
        drive(each, how, pictures(2, double=True))
    plain.load_state_dict(net.state_dict())
    clean.load_state_dict({**clean.state_dict(), "chances": method.state_dict()["chances"],
                           "drawn": method.state_dict()["drawn"]})  # fmt: skip
    assert not any(gone(method).values())
    (x, y) = pictures(1, seed=2, double=True)[0]
    grads = {}
    for name, each in (("caffe", net), ("clean", plain)):
        given = x.clone().requires_grad_()
        F.cross_entropy(each(given), y).backward()
        weight = each.conv2.parametrizations.weight.original
        grads[name] = given.grad, weight.grad
    out = masks(net)["conv2.weight"].drawn == 0
    assert bool(out.any())
    assert not grads["clean"][1][out.expand(8, -1, -1, -1)].any()
    assert bool(grads["caffe"][1][out.expand(8, -1, -1, -1)].all())
    assert not torch.allclose(grads["caffe"][0], grads["clean"][0])


def test_a_layer_that_runs_twice_gets_its_weight_back_each_time() -> None:
    torch.manual_seed(0)
    net: Any = Twice().double().train()
    method = ByChance(net, inspect(net, torch.zeros(2, 3, 7, 7).double()), ratio=0.5, interval=1,
                      most=0.5, gradient="caffe")  # fmt: skip
    method.after_step(0)
    mask = masks(net)["both.weight"].drawn
    assert not mask.all()
    weight, x = net.both.parametrizations.weight.original, torch.randn(2, 3, 7, 7).double()
    hidden: list[torch.Tensor] = []
    net.both.register_forward_pre_hook(lambda m, args: hidden.append(args[0]))
    out = net(x)
    for one in hidden:
        one.retain_grad()
    out.square().sum().backward()
    # the gradient that comes to the second run goes to the first through the whole weight
    last = torch.relu(hidden[1])
    made_last = F.conv2d(last, weight * mask, net.both.bias, padding=1)
    away = torch.autograd.grad(
        net.fc(made_last.mean((2, 3))).square().sum(), made_last
    )[0]  # fmt: skip
    wanted = conv2d_input(last.shape, weight.detach(), away, padding=1)
    torch.testing.assert_close(hidden[1].grad, wanted, rtol=1e-12, atol=1e-12)


def test_there_is_no_autocast_with_it() -> None:
    net, anatomy = made("chain")
    method = ByChance(net, anatomy, ratio=0.5, interval=1, gradient="caffe")
    x = pictures(1)[0][0]
    with torch.autocast("cpu", torch.bfloat16):
        assert "does not work under autocast" in said(TrainError, lambda: net(x))
        net.eval()(x)  # judging takes no gradient
    method.release()


def test_a_copy_has_whole_weights_behind_it_too() -> None:
    net, anatomy = made("chain", double=True)
    method = ByChance(net, anatomy, ratio=0.5, interval=1, most=0.3, gradient="caffe")
    drive(net, method, pictures(2, double=True))
    assert net.conv1.weight.requires_grad  # read, with no forward pass behind it
    twin = copy.deepcopy(net)
    x = pictures(1, double=True)[0][0]
    grads = []
    for each in (net, twin):
        given = x.clone().requires_grad_()
        each(given).square().sum().backward()
        grads.append(given.grad)
    assert torch.equal(*grads)
    method.release()
    assert torch.equal(twin(x), twin(x))
    assert not masks(net)
    assert masks(twin)
