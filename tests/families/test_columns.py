"""Which convolutions may lose columns, and why others may not."""

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
from tests.families.column_nets import (
    NETS,
    columns_only,
    deadened,
    looked_at,
    seen,
    whole,
)
from tests.families.stripe_nets import computed, drawn, followed
from tests.refusals import said
from tonsor.errors import PlanError
from tonsor.families.columns.layers import find_columns
from tonsor.families.fibres import no_layer_free
from tonsor.families.stripes.layers import find_stripes
from tonsor.fibres import Fibres
from tonsor.plans import Plan
from tonsor.surgery.column_conv import ColumnConv

pytestmark = pytest.mark.filterwarnings("ignore")
X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def three(given: int, made: int) -> nn.Conv2d:
    return nn.Conv2d(given, made, 3, padding=1)


class Doubling(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


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


def listed() -> Own:
    net: Any = Own(lambda m, x: m.table["b"][0](m.a(x)))
    net.table = {"b": [net.b]}
    return net


def bound() -> Own:
    net: Any = Own(lambda m, x: m.first(x) + m.b(x))
    net.first = net.a.__call__
    return net


def row(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


COMPUTED = "its weight is not its own parameter, but computed or held elsewhere"
NOT_FREE: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "groups": (row(nn.Conv2d(3, 6, 3, groups=3)), "0", "it has groups, so that no column is one"),
    "transposed": (
        row(nn.ConvTranspose2d(3, 4, 3)), "0",
        "it is transposed, and columns of its weight make no sense of their own",
    ),
    "own forward": (row(Doubling(3, 4, 3)), "0", "class Doubling does more"),
    "weight norm": (row(parametrizations.weight_norm(nn.Conv2d(3, 4, 3))), "0", COMPUTED),
    "spectral norm": (row(parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))), "0", COMPUTED),
    "tied": (tied, "a", "its weight is tied to 'b.weight'"),
    "tied too": (tied, "b", "its weight is tied to 'a.weight'"),
    "in a table": (listed, "b", "the attribute 'table' holds it too, where no other layer can"),
    "a method of it": (bound, "a", "the attribute 'first' holds it too"),
    "read elsewhere": (
        lambda: Own(lambda m, x: F.conv2d(m.a(x), m.a.weight)), "a",
        "its weight is also read by aten.conv2d in the model itself",
    ),
    "functional": (lambda: Own(lambda m, x: F.conv2d(x, m.a.weight, padding=1)), "", COMPUTED),
    "the model itself": (lambda: nn.Conv2d(3, 4, 3), "", "it is the model itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_FREE)
def test_what_may_not_lose_columns_says_why(case: str) -> None:
    build, name, reason = NOT_FREE[case]
    layers = find_columns(tonsor.inspect(build().eval(), X))
    assert reason in layers.by_name[name].reason
    assert layers.by_name[name] not in layers.free
    assert f"stays: {layers.by_name[name].reason}" in str(layers)


@pytest.mark.parametrize(
    "build",
    [
        row(nn.Conv2d(3, 4, 3)),
        row(nn.Conv2d(3, 4, 1)),
        row(nn.Conv2d(3, 4, (1, 5), (2, 1), (0, 2), padding_mode="circular")),
        row(nn.Conv2d(3, 4, 3).requires_grad_(False)),
        row(nn.Sequential(nn.Conv2d(3, 4, 3, padding="same", dilation=2))),
        lambda: Own(lambda m, x: m.b(m.a(m.a(x)))),
    ],
    ids=["plain", "one position", "circular", "frozen", "nested", "called twice"],
)  # fmt: skip
def test_what_may_lose_them_does(build: Callable[[], Any]) -> None:
    it = looked_at(build(), X)
    assert len(it.layers.free) == len(it.layers)
    masks = drawn(it.layers, 0, 0.4)
    plan = followed(it, masks)
    slim = plan.apply(it.model)
    assert any(isinstance(m, ColumnConv) for m in slim.modules())
    assert (computed(slim, X) - computed(deadened(it, masks), X)).abs().max() < 1e-12
    for name, parameter in slim.named_parameters():
        assert parameter.requires_grad == it.model.get_parameter(name).requires_grad


@pytest.mark.parametrize("name", NETS)
def test_layers_are_seen_as_they_are(name: str) -> None:
    it = seen(name)
    convs = [(n, m) for n, m in it.model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)]
    assert sorted(x.name for x in it.layers) == sorted(n for n, _ in convs)
    for name_, conv in convs:
        layer = it.layers.by_name[name_]
        assert (layer.filters, layer.kernel) == (conv.out_channels, conv.kernel_size)
        assert layer.inputs == conv.in_channels // conv.groups
        assert bool(layer.reason) == (conv.groups > 1)
        assert (layer.rows, layer.width) == (layer.inputs, layer.filters)
        columns = layer.view(conv.weight)
        assert columns.shape == (layer.size, layer.filters)
        at = list(np.ndindex(*layer.kernel))
        for column in (0, layer.size // 2, layer.size - 1):
            given, position = divmod(column, layer.positions)
            assert torch.equal(columns[column], conv.weight[(slice(None), given, *at[position])])


def test_a_model_with_nothing_to_lose_says_so() -> None:
    linear = find_columns(tonsor.inspect(nn.Sequential(nn.Linear(6, 2)), X))
    assert str(no_layer_free(linear)) == (
        "the model has no convolution, and columns are parts of those"
    )
    one = find_columns(tonsor.inspect(nn.Sequential(nn.Conv2d(3, 3, 1, groups=3)), X))
    assert "no convolution of this model may lose columns: '0' stays" in str(no_layer_free(one))


@pytest.mark.parametrize("finds", [find_columns, find_stripes])
def test_what_holds_columns_already_is_not_cut_again(finds: Any) -> None:
    it = seen("residual")
    slim = columns_only(it, drawn(it.layers, 0, 0.4)).apply(it.model)
    found = finds(tonsor.inspect(slim, it.x))
    assert not found.free
    assert found[0].reason == (
        "it holds columns already; plan on the original, with after=the plan that made it"
    )


def test_a_plan_of_what_has_groups_is_refused() -> None:
    it = seen("grouped")
    weight = "body.3.weight"
    plan = followed(it, whole(it))
    wrong = {weight: Fibres("columns", (3, 3), (1,) * it.model.body[3].weight.shape[1])}
    wrong_plan = Plan(
        plan.fingerprint, {}, plan.layout, probe=plan.probe, fibres=wrong
    )  # fmt: skip
    told = said(PlanError, lambda: wrong_plan.apply(it.model))
    assert told == "'body.3' has groups, and a plan keeps columns of convolutions without"


def test_a_plan_for_the_model_itself_is_refused() -> None:
    model = nn.Conv2d(3, 2, 3)
    plan = Plan(
        {"weight": (2, 3, 3, 3), "bias": (2,)}, {}, {},
        fibres={"weight": Fibres("columns", (3, 3), (1, 3, 2))},
    )  # fmt: skip
    told = said(PlanError, lambda: plan.apply(model, inputs=X))
    assert told.startswith("the model is a convolution itself, in whose place no layer of columns")
