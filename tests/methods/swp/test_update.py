"""The steps of the authors' loop, written down a second time and run beside ours."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.methods.nets import Batch
from tests.methods.swp.nets import drive, gone, made, pictures, put, sgd
from tonsor.methods.swp import FilterSkeleton

# Which BatchNorms the authors silence: all of a VGG, but only those inside of residual blocks.
SILENCED = {
    "chain": {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3"},
    "residual": {"first": "norm1"},
}


class Skeletal(nn.Module):
    """A convolution of which each stripe is multiplied by a number."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.numbers = nn.Parameter(conv.weight.new_ones(len(conv.weight), *conv.kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight * self.numbers[:, None]
        return F.conv2d(
            x, weight, self.conv.bias, self.conv.stride, self.conv.padding, self.conv.dilation,
            self.conv.groups,
        )  # fmt: skip


class Authors:
    """Their loop; with `tidy` what it leaves slightly off zero is zero after each step."""

    def __init__(self, net: nn.Module, kind: str, alpha: float, threshold: float) -> None:
        self.net, self.alpha, self.threshold = net, alpha, threshold
        self.convs = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
        for name in self.convs:
            setattr(net, name, Skeletal(self.convs[name]))
        self.norms = {n: net.get_submodule(b) for n, b in SILENCED[kind].items()}
        self.optimizer = sgd(net)

    def numbers(self, name: str) -> nn.Parameter:
        held: Any = self.net.get_submodule(name)
        return held.numbers

    @torch.no_grad()
    def _mask(self) -> None:
        for name in self.convs:
            numbers = self.numbers(name)
            mask = (numbers.abs() > self.threshold).to(numbers)
            numbers.mul_(mask)
            if numbers.grad is not None:
                numbers.grad.mul_(mask)
            norm: Any = self.norms.get(name)
            if norm is not None:
                alive = (mask.sum((1, 2)) > 0).to(numbers)
                for vector in (norm.weight, norm.bias):
                    vector.mul_(alive)
                    if vector.grad is not None:
                        vector.grad.mul_(alive)

    def step(self, batch: Batch, tidy: bool = True) -> None:
        images, labels = batch
        self.optimizer.zero_grad()
        F.cross_entropy(self.net(images), labels).backward()
        for name in self.convs:
            numbers = self.numbers(name)
            assert numbers.grad is not None
            numbers.grad.add_(self.alpha * numbers.detach().sign())
        self._mask()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if tidy:
            self._mask()


def state(net: nn.Module) -> dict[str, Tensor]:
    """All parameters and statistics, by the names that ours have."""
    swaps = {
        ".conv.weight": ".parametrizations.weight.original", ".conv.bias": ".bias",
        ".numbers": ".parametrizations.weight.0.skeleton",
    }  # fmt: skip
    found = {}
    for name, tensor in net.state_dict().items():
        for old, new in swaps.items():
            name = name.replace(old, new) if name.endswith(old) else name
        found[name] = tensor.clone()
    return found


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], rtol=0, atol=1e-12, msg=name)


def both(
    kind: str, threshold: float, alpha: float, steps: int, revival: bool = True
) -> tuple[Authors, FilterSkeleton, Any, int]:
    """Run their loop and ours; return both, and how many stripes have come back."""
    net, anatomy = made(kind, double=True)
    theirs = Authors(copy.deepcopy(net), kind, alpha, threshold)
    ours = FilterSkeleton(net, anatomy, alpha=alpha, threshold=threshold, revival=revival)
    put(ours)
    for layer, numbers in zip(ours.course.layers, ours.skeletons, strict=True):
        if layer.name not in ("stem", "second"):
            numbers.data[1::3].mul_(0.5)  # filters that are to die
        numbers.data.clamp_min_(1.5 * threshold)
        theirs.numbers(layer.name).data.copy_(numbers)
    seen: list[dict[str, set[int]]] = [gone(ours)]
    back = 0

    def watch(step: int) -> None:
        nonlocal back
        now = gone(ours)
        back += sum(len(seen[-1][n] - now[n]) for n in now)
        seen.append(now)
        for layer, numbers in zip(ours.course.layers, ours.skeletons, strict=True):
            assert set((numbers == 0).reshape(-1).nonzero().flatten().tolist()) == now[layer.name]

    data = pictures(steps, double=True)
    drive(net, ours, data, watch=watch)
    for batch in data:
        theirs.step(batch)
    return theirs, ours, net, back


@pytest.mark.parametrize("kind", ["chain", "residual"])
@pytest.mark.parametrize(("threshold", "alpha"), [(0.2, 0.005), (0.005, 0.015)])
def test_the_loop_is_that_of_the_authors(kind: str, threshold: float, alpha: float) -> None:
    theirs, ours, net, back = both(kind, threshold, alpha, 120)
    equal(state(theirs.net), state(net))
    assert sum(len(some) for some in gone(ours).values()) > 100
    assert (back > 0) == (threshold < 0.1)
    assert ours.course.held == 0  # the authors guard no layer
    if (kind, threshold) != ("chain", 0.005):
        norms: Any = theirs.norms.values()
        assert any(not norm.weight.all() for norm in norms)


def test_what_they_leave_off_zero_between_two_steps_is_all_that_differs() -> None:
    theirs, ours, net, _ = both("residual", 0.2, 0.005, 60)
    equal(state(theirs.net), state(net))
    (batch,) = pictures(1, seed=3, double=True)
    drive(net, ours, [batch], optimizer=_with_momentum(net, theirs), first=60)
    theirs.step(batch, tidy=False)
    loose, tight = state(theirs.net), state(net)
    differing = 0
    for name, left in loose.items():
        right = tight[name]
        off = (left - right).abs() > 1e-12
        differing += int(off.sum())
        if name.endswith("skeleton"):
            assert (right[off] == 0).all()
            assert (left[off].abs() <= 0.2).all()
        else:
            assert not off.any() or name in ("norm1.weight", "norm1.bias")
    assert differing > 0
    theirs._mask()
    equal(state(theirs.net), tight)


def _with_momentum(net: nn.Module, theirs: Authors) -> torch.optim.Optimizer:
    """An optimizer of ours that has come as far as theirs."""
    ours, old = dict(net.named_parameters()), theirs.optimizer.state
    names = list(state(theirs.net))
    known = dict(zip(names, theirs.net.state_dict(keep_vars=True).values(), strict=True))
    optimizer = sgd(net)
    for name, parameter in ours.items():
        optimizer.state[parameter] = {
            "momentum_buffer": old[known[name]]["momentum_buffer"].clone()
        }
    return optimizer


def test_without_revival_nothing_comes_back() -> None:
    *_, open_door = both("residual", 0.005, 0.015, 80)
    _, ours, _, back = both("residual", 0.005, 0.015, 80, revival=False)
    assert open_door > 0
    assert back == 0
    assert sum(len(some) for some in gone(ours).values()) > 60


@pytest.mark.parametrize("alpha", [0.0, 1e-5, 0.3])
def test_the_penalty_adds_the_sign_of_each_number(alpha: float) -> None:
    net, anatomy = made("chain", double=True)
    method = FilterSkeleton(net, anatomy, alpha=alpha)
    put(method)
    with torch.no_grad():
        for numbers in method.skeletons:
            numbers[::2] *= -1
            numbers[1, 0, 0] = 0
    ((images, labels),) = pictures(1, double=True)
    F.cross_entropy(net(images), labels).backward()
    before = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    method.before_step(0)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        pull = alpha * parameter.detach().sign() if name.endswith("skeleton") else 0.0
        torch.testing.assert_close(parameter.grad, before[name] + pull, rtol=0, atol=1e-15)


def test_a_step_without_gradients_does_no_harm() -> None:
    net, anatomy = made("chain")
    method = FilterSkeleton(net, anatomy)
    method.before_step(0)
    assert all(p.grad is None for p in net.parameters())


def test_norms_are_silent_where_all_that_makes_a_channel_is_dead() -> None:
    net, anatomy = made("residual bias")
    method = FilterSkeleton(net, anatomy)
    stem, first, second = (torch.ones(n, 3, 3) for n in (6, 12, 6))
    stem[[0, 2]], first[[1, 3]], second[[0, 5]] = 0.0, 0.0, 0.0
    put(method, {"stem": stem, "first": first, "second": second})
    method.after_step(0)
    zero = {
        name: set((parameter == 0).nonzero().flatten().tolist())
        for name, parameter in net.named_parameters() if parameter.dim() == 1
    }  # fmt: skip
    within = {n: {1, 3} for n in ("norm1.weight", "norm1.bias", "first.bias")}
    stream = ("norm.weight", "norm.bias", "norm2.weight", "norm2.bias", "stem.bias", "second.bias")
    both_lack = {n: {0} for n in stream}  # of the stream only what no layer makes
    assert zero == within | both_lack | {"linear.bias": set()}
    ((images, labels),) = pictures(1)
    F.cross_entropy(net(images), labels).backward()
    method.before_step(1)
    for name, dead in zero.items():
        grad = net.get_parameter(name).grad
        assert grad is not None
        assert not grad[list(dead)].any(), name
