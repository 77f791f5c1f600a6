"""What the unusual parts of the zoo compute, against plain formulas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tonsor import zoo
from tonsor.zoo.cifar_resnet import Block, Shortcut, Subsample
from tonsor.zoo.convnet import LocalNorm

SHORTCUTS = [(4, 8, False), (4, 8, True), (3, 6, False), (5, 10, True)]


def coarser(x: Tensor, outputs: int, mean: bool) -> Tensor:
    """Shortcut A pixel by pixel."""
    batch, inputs, height, width = x.shape
    out = x.new_zeros(batch, outputs, height // 2, width // 2)
    before = (outputs - inputs) // 2
    for c, i, j in itertools.product(range(inputs), range(height // 2), range(width // 2)):
        window = x[:, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        out[:, before + c, i, j] = window.mean((1, 2)) if mean else window[:, 0, 0]
    return out


@pytest.mark.parametrize(("inputs", "outputs", "mean"), SHORTCUTS)
def test_shortcut_a_and_its_gradient_are_those_of_the_formula(
    inputs: int, outputs: int, mean: bool
) -> None:
    shortcut = Subsample(inputs, outputs, 2, mean=mean)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, inputs, 6, 4, dtype=torch.float64, generator=generator).requires_grad_()
    out, wanted = shortcut(x), coarser(x, outputs, mean)
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-15)
    weights = torch.randn(out.shape, dtype=torch.float64, generator=generator)
    (found,) = torch.autograd.grad((out * weights).sum(), x)
    (right,) = torch.autograd.grad((wanted * weights).sum(), x)
    torch.testing.assert_close(found, right, rtol=0, atol=1e-15)
    assert found.count_nonzero() == (found.numel() if mean else found.numel() // 4)
    assert torch.autograd.gradcheck(shortcut, (x,))


@pytest.mark.parametrize("shortcut", ["A", "A-mean", "B"])
def test_the_shortcut_alone_carries_the_gradient(shortcut: Shortcut) -> None:
    """With the convolutions of a block silenced, what comes before it still learns."""
    torch.manual_seed(0)
    block = Block(2, 4, 2, shortcut).double().train()
    nn.init.zeros_(block.bn2.weight)
    stem = nn.Conv2d(1, 2, 3, padding=1).double()
    x = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    weights = torch.randn(3, 4, 3, 3, dtype=torch.float64)

    def loss(weight: Tensor) -> Tensor:
        y = torch.nn.functional.conv2d(x, weight, stem.bias, padding=1)
        return (block(y) * weights).sum()

    weight = stem.weight.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(weight), weight)
    assert found.abs().max() > 1e-3
    step = 1e-6
    for place in itertools.product(*(range(n) for n in weight.shape)):
        moved = torch.zeros_like(weight)
        moved[place] = step
        with torch.no_grad():
            slope = (loss(weight + moved) - loss(weight - moved)) / (2 * step)
        torch.testing.assert_close(found[place], slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("shortcut", "mean"), [("A", False), ("A-mean", True)])
def test_a_silent_block_is_its_shortcut(shortcut: Shortcut, mean: bool) -> None:
    block = Block(2, 4, 2, shortcut).double().eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(block(x), coarser(x, 4, mean).relu())


def test_the_local_norm_is_that_of_caffe() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64) * 100
    found = LocalNorm()(x)
    for place in itertools.product(*(range(n) for n in x.shape)):
        n, c, i, j = place
        near = x[n, c, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        wanted = x[place].item() / (1 + 5e-5 / 9 * near.square().sum().item()) ** 0.75
        assert math.isclose(found[place].item(), wanted, rel_tol=1e-12)


def test_the_convnet_is_put_together_in_the_order_of_caffe() -> None:
    """Maximum before ReLU, ReLU before mean, windows that end at the border."""
    net = zoo.build("convnet", width=0.25).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    conv1, conv2, conv3, linear = (
        net.get_submodule(n) for n in ("conv1", "conv2", "conv3", "linear")
    )
    norm = LocalNorm()
    y = norm(pool(conv1(x), torch.amax).clamp(min=0))
    y = norm(pool(conv2(y).clamp(min=0), torch.mean))
    y = pool(conv3(y).clamp(min=0), torch.mean)
    torch.testing.assert_close(net(x), linear(y.flatten(1)))


def pool(x: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
    """Windows of 3 with step 2, over what there is of the picture."""
    side = x.shape[-1] // 2
    rows = [
        torch.stack(
            [reduce(x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], (2, 3)) for j in range(side)], -1
        )
        for i in range(side)
    ]
    return torch.stack(rows, -2)


def test_caffe_starts_small() -> None:
    torch.manual_seed(0)
    net = zoo.build("convnet", init="caffe")
    layers = {"conv1": 1e-4, "conv2": 0.01, "conv3": 0.01, "linear": 0.01}
    for name, deviation in layers.items():
        layer = net.get_submodule(name)
        assert layer.get_parameter("weight").std().item() == pytest.approx(deviation, rel=0.05)
        assert not layer.get_parameter("bias").any()


def test_vgg_ends_with_the_mean_of_what_is_left() -> None:
    last = [zoo.build("vgg16", ending=e).get_submodule("features")[-1] for e in ("max", "mean")]  # type: ignore[index]
    assert [type(m) for m in last] == [nn.MaxPool2d, nn.AvgPool2d]
