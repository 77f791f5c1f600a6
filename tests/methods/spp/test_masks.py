from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.methods.spp.nets import NETS, chances, drive, gone, looks, masks, pictures, sgd
from tests.refusals import said
from tonsor.errors import SelectionError, TrainError
from tonsor.methods.spp import ByChance

FAMILIES: Any = ("columns", "stripes", "channels", "blocks")
FAST: dict[str, Any] = {"interval": 1, "most": 0.2, "seed": 3}


def begun(family: Any, steps: int = 3, **options: Any) -> tuple[Any, ByChance]:
    """A net of which some pieces may be masked."""
    torch.manual_seed(0)
    net = tonsor.zoo.build("resnet20", width=0.25, channels=1).train()
    anatomy = tonsor.inspect(net, torch.zeros(2, 1, 8, 8))
    method = ByChance(net, anatomy, family=family, ratio=0.5, **{**FAST, **options})
    drive(net, method, pictures(steps))
    return net, method


def whole(net: nn.Module) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in net.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(t, b[n]) for n, t in a.items())


@pytest.mark.parametrize("elementwise", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_stay_while_they_are_masked(family: Any, elementwise: bool) -> None:
    net, method = begun(family, elementwise=elementwise)
    before, shown = whole(net), []
    for step in range(3, 8):
        method.after_step(step)
        shown.append({n: m.drawn.clone() for n, m in masks(net).items()})
    assert same(before, whole(net))
    assert any(not torch.equal(shown[0][n], shown[1][n]) for n in shown[0])
    for name, mask in masks(net).items():
        owner, _, last = name.rpartition(".")
        weight = before[f"{owner}.parametrizations.{last}.original"]
        assert torch.equal(getattr(net.get_submodule(owner), last), weight * mask.drawn)
        assert bool(((mask.drawn == 0) | (mask.drawn == 1)).all())


@pytest.mark.parametrize("elementwise", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_masked_gets_no_gradient(family: Any, elementwise: bool) -> None:
    net, _ = begun(family, steps=4, elementwise=elementwise)
    images, labels = pictures(1)[0]
    F.cross_entropy(net(images), labels).backward()
    masked = 0
    for name, mask in masks(net).items():
        owner, _, last = name.rpartition(".")
        holder: Any = net.get_submodule(owner)
        grad = holder.parametrizations[last].original.grad
        out = (mask.drawn == 0).expand_as(grad)
        assert not grad[out].any()
        masked += int(out.sum())
    assert masked > 0


@pytest.mark.parametrize("elementwise", [False, True])
@pytest.mark.parametrize("family", ["columns", "channels"])
def test_weights_of_a_piece_are_masked_together_unless_each_is_drawn(
    family: Any, elementwise: bool
) -> None:
    net, method = begun(family, steps=0, elementwise=elementwise)
    for pool in method.chances.pools:
        pool.chance.fill_(0.5)
    method.after_step(0)
    mask = masks(net)["layer2.1.conv2.weight"].drawn.expand(8, 8, 3, 3)
    each = mask.flatten(1) if family == "columns" else mask.transpose(0, 1).flatten(1).t()
    together = bool((each == each[:1]).all())
    assert together is not elementwise
    assert 0.3 < mask.mean() < 0.7


@pytest.mark.parametrize("family", FAMILIES)
def test_outside_of_training_only_what_is_gone_is_masked(family: Any) -> None:
    net, method = begun(family, steps=12)
    assert any(gone(method).values())
    x = pictures(1)[0][0]
    net.eval()
    judged = net(x)
    method.interval = 1000
    method.after_step(50)
    assert torch.equal(net(x), judged)
    twin = copy.deepcopy(net)
    for held in method.pools.held.values():
        for one in held:
            assert torch.equal(one.mask.kept, one.mask.kept.bool().to(one.weight))
    for name, mask in masks(twin).items():
        owner, _, last = name.rpartition(".")
        weight: Any = twin.get_submodule(owner)
        with torch.no_grad():
            weight.parametrizations[last].original.mul_(mask.kept)
        mask.kept = torch.ones(())
    assert torch.equal(twin(x), judged)


@pytest.mark.parametrize("elementwise", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_judging_with_drawn_masks_is_not_noticed_by_training(
    family: Any, elementwise: bool
) -> None:
    states = []
    for looked in (False, True):
        net, method = begun(family, steps=3, elementwise=elementwise)
        optimizer = sgd(net)
        for step, batch in enumerate(pictures(6, seed=1), 3):
            if looked:
                net.eval()
                x, plain = batch[0], net(batch[0])
                with method.sampled():
                    one = net(x)
                    assert torch.equal(net(x), one)
                with method.sampled():
                    assert torch.equal(net(x), one)  # from the same chance
                assert not torch.equal(one, plain)
                assert torch.equal(net(x), plain)
                net.train()
            drive(net, method, [batch], optimizer=optimizer, first=step)
        states.append((whole(net), gone(method), method.state_dict()["drawn"]))
    assert same(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]
    assert all(torch.equal(a, b) for a, b in zip(states[0][2], states[1][2], strict=True))


def test_sampled_masks_end_with_an_error_too() -> None:
    net, method = begun("columns")
    net.eval()
    x = pictures(1)[0][0]
    before = net(x)
    with pytest.raises(ZeroDivisionError), method.sampled():
        raise ZeroDivisionError
    assert torch.equal(net(x), before)


@pytest.mark.parametrize("gradient", ["masked", "caffe"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_can_be_copied_in_the_middle(family: Any, gradient: Any) -> None:
    net, method = begun(family, gradient=gradient, steps=8)
    x, labels = pictures(1)[0]
    F.cross_entropy(net(x), labels).backward()
    twin = copy.deepcopy(net)
    assert torch.equal(twin(x), net(x))
    twin.eval()
    net.eval()
    before = twin(x)
    assert torch.equal(net(x), before)
    method.finish()
    assert torch.equal(twin(x), before)  # the copy keeps its masks, as they were
    assert masks(twin)
    assert not masks(net)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["resnet20", "tied", "mixer", "inverted", "convnet"])
def test_a_model_is_known_by_the_same_things_afterwards(name: str, family: Any) -> None:
    build, shape = NETS[name]
    net = build().train()
    before = looks(net)
    anatomy = tonsor.inspect(net, torch.randn(2, *shape))
    for end, gradient in (("release", "masked"), ("finish", "caffe")):
        options: Any = {"family": family, "ratio": 0.5, "gradient": gradient, **FAST}
        if family == "blocks" and name not in ("resnet20", "mixer"):
            said(SelectionError, lambda options=options: ByChance(net, anatomy, **options))
            assert looks(net) == before
            return
        method = ByChance(net, anatomy, **options)
        assert looks(net) != before
        method.after_step(0)
        getattr(method, end)()
        assert looks(net) == before
        acts: Any = (lambda m: m.finish(), lambda m: m.before_step(0), lambda m: m.after_step(0),
                     lambda m: m.sampled().__enter__())  # fmt: skip
        for act in acts:
            assert "is finished" in said(TrainError, lambda act=act, m=method: act(m))
        method.release()


def test_a_weight_of_two_layers_is_masked_in_both() -> None:
    build, shape = NETS["tied"]
    net: Any = build().double().train()
    method = ByChance(net, tonsor.inspect(net, torch.randn(2, *shape).double()),
                      family="channels", ratio=0.5, **FAST)  # fmt: skip
    for step in range(4):
        method.after_step(step)
    assert torch.equal(net.one.weight, net.two.weight)
    assert bool((net.one.weight == 0).any())
    method.release()
    assert net.one.weight is net.two.weight


def test_it_trains_in_bfloat16() -> None:
    net, method = begun("columns", steps=0)
    optimizer = sgd(net)
    method.attach(optimizer)
    for step, (images, labels) in enumerate(pictures(12)):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(images), labels)
        loss.backward()
        for name, mask in masks(net).items():
            holder: Any = net.get_submodule(name.removesuffix(".weight"))
            grad = holder.parametrizations.weight.original.grad
            assert not grad[(mask.drawn == 0).expand_as(grad)].any()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
    assert all(t.isfinite().all() for t in net.state_dict().values())
    assert any(c.any() for c in chances(method))
    method.finish().apply(net.eval())


@pytest.mark.parametrize("name", ["inverted", "bare", "residual", "dense"])
def test_norms_do_not_see_masks_of_channels(name: str) -> None:
    build, shape = NETS[name]
    net = build().double().train()
    x = torch.randn(4, *shape, dtype=torch.float64)
    plain = copy.deepcopy(net)
    method = ByChance(net, tonsor.inspect(net, x), family="channels", ratio=0.5, **FAST)
    for pool in method.chances.pools:
        pool.chance.fill_(0.5)
    method.after_step(0)
    seen: dict[str, list[Tensor]] = {}
    for each in (net, plain):
        for path, module in each.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(
                    lambda m, args, out, p=path: seen.setdefault(p, []).append(args[0].detach())
                )
    for each in (net, plain):
        each(x)
    for path, (mine, _) in seen.items():
        # no channel that a norm sees is silent, as it would be if what makes it were masked
        assert bool((mine.flatten(2).std(2) > 1e-9).all()), path
    assert sum(int((m.drawn == 0).sum()) for m in masks(net).values()) > 0
