"""Which convolutions may lose stripes, and why others may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import tonsor
from tests.families.stripe_nets import (
    NETS,
    computed,
    drawn,
    followed,
    looked_at,
    seen,
    zeroed,
)
from tests.refusals import said
from tonsor.errors import PlanError, SelectionError
from tonsor.families.fibres import no_layer_free
from tonsor.families.stripes.layers import find_stripes
from tonsor.fibres import Fibres
from tonsor.plans import Plan
from tonsor.surgery.stripe_conv import StripeConv

pytestmark = pytest.mark.filterwarnings("ignore")
X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def three(given: int, made: int, side: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(given, made, side, padding=side // 2, **more)


class Subclass(nn.Conv2d):
    """It only adds an attribute."""

    def __init__(self, given: int, made: int, side: int) -> None:
        super().__init__(given, made, side)
        self.mark = 3


class Doubling(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Standardised(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Any) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Own(nn.Module):
    """It runs its convolutions as it was told to."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.run = three(3, 3), three(3, 3), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def tied() -> Own:
    net = Own(lambda m, x: m.b(m.a(x)))
    net.b.weight = net.a.weight
    return net


def aliased() -> Own:
    net = Own(lambda m, x: m.b(m.a(x)))
    net.b = net.a
    return net


def patched() -> nn.Module:
    conv: Any = nn.Conv2d(3, 4, 3)
    conv.forward = lambda x: F.conv2d(x, conv.weight.abs())
    return nn.Sequential(conv)


def frozen() -> nn.Module:
    conv: Any = nn.Conv2d(3, 4, 3)
    weight = conv.weight.detach()
    del conv.weight
    conv.register_buffer("weight", weight)
    return nn.Sequential(conv)


COMPUTED = "its weight is not its own parameter, but computed or held elsewhere"
NOT_FREE: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3)), "0", "it is transposed"),
    "one position": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1)), "0", "one position only"),
    "own forward": (lambda: nn.Sequential(Doubling(3, 4, 3)), "0", "class Doubling does more"),
    "own weight": (lambda: nn.Sequential(Standardised(3, 4, 3)), "0", COMPUTED),
    "patched": (patched, "0", COMPUTED),
    "buffer": (frozen, "0", "its weight is no parameter, but a buffer"),
    "weight norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3))), "0", COMPUTED
    ),
    "old weight norm": (
        lambda: nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 3))), "0", COMPUTED
    ),
    "spectral norm": (
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))), "0", COMPUTED
    ),
    "tied": (tied, "a", "its weight is tied to 'b.weight'"),
    "tied too": (tied, "b", "its weight is tied to 'a.weight'"),
    "two names": (aliased, "b", "the model holds it under several names, 'a' and 'b'"),
    "read elsewhere": (
        lambda: Own(lambda m, x: F.conv2d(m.a(x), m.a.weight)), "a",
        "its weight is also read by aten.conv2d in the model itself",
    ),
    "functional": (lambda: Own(lambda m, x: F.conv2d(x, m.a.weight, padding=1)), "", COMPUTED),
    "the model itself": (lambda: nn.Conv2d(3, 4, 3), "", "it is the model itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_FREE)
def test_what_may_not_lose_stripes_says_why(case: str) -> None:
    build, name, reason = NOT_FREE[case]
    layers = find_stripes(tonsor.inspect(build().eval(), X))
    assert reason in layers.by_name[name].reason
    assert layers.by_name[name] not in layers.free
    assert f"stays: {layers.by_name[name].reason}" in str(layers)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(Subclass(3, 4, 3)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3).requires_grad_(False)),
        lambda: nn.Sequential(nn.LazyConv2d(4, 3)),
        lambda: nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3))),
        lambda: Own(lambda m, x: m.b(m.a(m.a(x)))),
    ],
    ids=["subclass", "frozen", "lazy", "nested", "called twice"],
)  # fmt: skip
def test_what_may_lose_them_does(build: Callable[[], Any]) -> None:
    model = build()
    model(X)
    it = looked_at(model, X)
    assert len(it.layers.free) == len(it.layers)
    plan = followed(it, drawn(it.layers, 0, 0.4))
    slim = plan.apply(it.model)
    assert any(isinstance(m, StripeConv) for m in slim.modules())
    assert (computed(slim, X) - computed(zeroed(plan, it.model), X)).abs().max() < 1e-9
    for name, parameter in slim.named_parameters():
        assert parameter.requires_grad == it.model.get_parameter(name).requires_grad


@pytest.mark.parametrize("name", NETS)
def test_layers_are_seen_as_they_are(name: str) -> None:
    it = seen(name)
    convs = [(n, m) for n, m in it.model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)]
    assert [x.name for x in it.layers] == [n for n, _ in convs]
    for layer, (_, conv) in zip(it.layers, convs, strict=True):
        assert (layer.filters, layer.kernel) == (conv.out_channels, conv.kernel_size)
        assert layer.inputs == conv.in_channels // conv.groups
        assert bool(layer.reason) == (np.prod(conv.kernel_size) == 1)
        rows = layer.view(conv.weight)
        at = list(np.ndindex(*layer.kernel))
        for stripe in (0, layer.size // 2, layer.size - 1):
            filter_, position = divmod(stripe, layer.positions)
            assert torch.equal(rows[stripe], conv.weight[(filter_, slice(None), *at[position])])


def test_a_model_with_nothing_to_lose_says_so() -> None:
    linear = find_stripes(tonsor.inspect(nn.Sequential(nn.Linear(6, 2)), X))
    assert "the model has no convolution" in str(no_layer_free(linear))
    one = find_stripes(tonsor.inspect(nn.Sequential(nn.Conv2d(3, 4, 1)), X))
    assert "no convolution of this model may lose stripes: '0' stays" in str(no_layer_free(one))


def test_what_holds_stripes_already_is_not_cut_again() -> None:
    it = seen("residual")
    slim = followed(it, drawn(it.layers, 0, 0.4)).apply(it.model)
    found = find_stripes(tonsor.inspect(slim, it.x))
    assert not found.free
    assert "it holds stripes already; plan on the original" in found[0].reason


def test_a_plan_for_the_model_itself_is_refused() -> None:
    model = nn.Conv2d(3, 2, 3)
    plan = Plan(
        {"weight": (2, 3, 3, 3), "bias": (2,)}, {}, {},
        fibres={"weight": Fibres("stripes", (3, 3), (1, 3))},
    )  # fmt: skip
    told = said(PlanError, lambda: plan.apply(model, inputs=X))
    assert told.startswith("the model is a convolution itself")


def test_layers_are_a_sequence() -> None:
    layers = seen("residual").layers
    assert layers[0] is layers.every[0]
    assert layers[1:3] == layers.every[1:3]
    held = layers.without(["stem"], "why not", ["some group"])
    assert (held.by_name["stem"].reason, held.held) == ("why not", {"some group"})
    assert held.without(["stem"], "again").by_name["stem"].reason == "why not"
    with pytest.raises(SelectionError):
        raise no_layer_free(layers.without([x.name for x in layers], "all of it"))
