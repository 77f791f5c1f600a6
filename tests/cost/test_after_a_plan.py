"""What an account foretells for a plan is what the account of the smaller model says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.cost.nets import Basic, accounted, conv_norm, solved
from tonsor.cost.account import Account, account
from tonsor.cost.conventions import CONVENTIONS
from tonsor.errors import SelectionError
from tonsor.types import Axis, Concat, Leaf, Product, Solution, leaves


def grouped(g: int, a: int, b: int, c: int) -> nn.Module:
    return nn.Sequential(
        *[nn.Conv2d(3, g * a, 3), nn.GroupNorm(g, g * a), nn.ReLU()],
        *[nn.Conv2d(g * a, g * b, 3, groups=g), nn.BatchNorm2d(g * b), nn.MaxPool2d(2)],
        *[nn.ConvTranspose2d(g * b, g * c, 2, groups=g, bias=False), nn.PReLU(g * c)],
        *[nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(2), nn.Flatten()],
        nn.Linear(4 * g * c, 10),
    )


def residual(a: int, b: int, c: int, d: int) -> nn.Module:
    return nn.Sequential(
        *[conv_norm(3, a, 3), nn.ReLU(), Basic(a, b, a, 1, "B", True)],
        *[Basic(a, c, d, 2, "B", True), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(9 * d, 10)],
    )


class Dense(nn.Module):
    """Every layer reads all before it; the last is gated by half of itself."""

    def __init__(self, a: int, b: int, c: int, d: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, a, 3, padding=1)
        self.first = nn.Conv2d(a, b, 3, padding=1)
        self.second = nn.Conv2d(a + b, c, 3, padding=1)
        self.mix = nn.Conv2d(a + b + c, 2 * d, 1)
        self.out = nn.Conv2d(d, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.stem(x)]
        for layer in (self.first, self.second):
            found.append(F.relu(layer(torch.cat(found, 1))))
        value, gate = self.mix(torch.cat(found, 1)).chunk(2, 1)
        return self.out(value * gate.sigmoid())


class Decoder(nn.Module):
    """Grouped-query attention with keys and values of their own widths, and a gated MLP."""

    def __init__(self, kv: int, rep: int, d: int, mlp: int) -> None:
        super().__init__()
        width, value = 11, d + 1
        self.kv, self.rep = kv, rep
        self.embed = nn.Embedding(7, width)
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, kv * rep * d)
        self.k = nn.Linear(width, kv * d, bias=False)
        self.v = nn.Linear(width, kv * value)
        self.o = nn.Linear(kv * rep * value, width)
        self.up, self.gate = nn.Linear(width, mlp), nn.Linear(width, mlp)
        self.down = nn.Linear(mlp, width)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        n = self.norm(x)
        q = self.q(n).unflatten(-1, (self.kv * self.rep, -1)).transpose(1, 2)
        k, v = (f(n).unflatten(-1, (self.kv, -1)).transpose(1, 2) for f in (self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        x = x + self.down(F.silu(self.gate(x)) * self.up(x))
        return x @ self.embed.weight.T


class Recurrent(nn.Module):
    def __init__(self, a: int, b: int, c: int, d: int) -> None:
        super().__init__()
        self.before = nn.Linear(5, a)
        self.lstm = nn.LSTM(a, b, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(2 * b, c, batch_first=True, bias=False)
        self.after = nn.Sequential(nn.Linear(c, d), nn.Tanh(), nn.Linear(d, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.gru(self.lstm(self.before(x))[0])[0])


WIDEST = (7, 6, 9, 8)
IMAGE, ROWS = torch.zeros(2, 3, 12, 12), torch.zeros(2, 4, 5)
IDS = torch.zeros(2, 5, dtype=torch.long)
BUILDS: dict[str, tuple[Callable[..., nn.Module], Tensor]] = {
    "grouped": (grouped, IMAGE),
    "residual": (residual, IMAGE),
    "dense": (Dense, IMAGE),
    "decoder": (Decoder, IDS),
    "recurrent": (Recurrent, ROWS),
}


@cache
def whole(name: str) -> tuple[Solution, Account]:
    build, x = BUILDS[name]
    solution = solved(build(*WIDEST), x)
    return solution, account(solution)


def pairs(big: Axis, small: Axis) -> Iterator[tuple[Leaf, Leaf]]:
    """Walk two trees of the same form together."""
    match big, small:
        case Leaf(), Leaf():
            yield big, small
        case (Product(a), Product(b)) | (Concat(a), Concat(b)):
            for x, y in zip(a, b, strict=True):
                yield from pairs(x, y)
        case _:
            pytest.fail(f"{big} and {small} differ in form")


def counts_of(big: Solution, small: Solution) -> dict[str, int]:
    """Read the counts off the leaves of two models of the same form."""
    counts: dict[str, int] = {}
    for name in big.graph.tensors:
        for a, b in zip(big.of(name), small.of(name), strict=True):
            for leaf, smaller in pairs(a, b):
                assert counts.setdefault(leaf.name, smaller.size) == smaller.size
    return counts


@pytest.mark.parametrize("name", BUILDS)
@settings(max_examples=10)
@given(widths=st.tuples(*(st.integers(2, w) for w in WIDEST)))
def test_a_plan_costs_what_the_smaller_model_costs(name: str, widths: tuple[int, ...]) -> None:
    solution, before = whole(name)
    build, x = BUILDS[name]
    smaller = solved(build(*widths), x)
    after, counts = account(smaller), counts_of(solution, smaller)
    for convention in CONVENTIONS:
        if "spp" not in convention:
            assert before.total(convention, counts) == after.total(convention)
    assert before.params(counts) == after.params()
    assert before.by_module(counts) == after.by_module()
    assert before.by_module(counts, "params") == after.by_module(target="params")
    assert before.by_operator(counts, "counter_rethinking") == after.by_operator(
        target="counter_rethinking"
    )
    if widths != WIDEST:
        assert after.macs() < before.macs()
        assert after.params() < before.params()


def test_parameters_are_those_of_torch_tied_ones_once() -> None:
    model = Decoder(2, 3, 4, 8)
    model.register_buffer("table", torch.zeros(100))
    model.unused = nn.Linear(3, 4)
    model.again = model.embed.weight
    result = accounted(model, IDS)
    assert result.params() == sum(p.numel() for p in model.parameters())
    assert result.by_module(target="params")["unused"] == 16


def test_modules_hold_what_is_inside_them() -> None:
    result = accounted(residual(*WIDEST), IMAGE)
    costs = result.by_module()
    assert costs[""] == result.macs() == sum(result.by_operator().values())
    assert costs["3"] == costs["3.first"] + costs["3.second"] + costs["3.shortcut"]
    assert costs["3.first.0"] == 6 * 6 * 9 * 7 * 9
    assert list(costs) == [name for name, _ in residual(*WIDEST).named_modules()]
    assert result.by_module(target="params")["3.first"] == 9 * 7 * 9 + 2 * 9


def test_a_module_called_twice_costs_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.fc(x))

    result = accounted(Twice(), torch.zeros(1, 4))
    assert result.by_module() == {"": 32, "fc": 32}
    assert result.params() == 20


def test_a_meter_measures_what_the_account_says() -> None:
    solution, result = whole("dense")
    counts = {"stem.weight[0]": 3, "first.weight[0]": 2}
    assert counts.keys() <= {leaf.name for leaf in leaves(solution.of("mix.weight")[1])}
    assert result.meter("macs")(counts) == result.macs(counts) < result.macs()
    assert result.meter("params")(counts) == result.params(counts) < result.params()
    assert result.meter("flops2_conv")(counts) == result.total("flops2_conv", counts)


def test_a_count_for_an_axis_that_is_not_there_is_refused() -> None:
    _, result = whole("dense")
    for ask in (result.macs, result.params, result.by_module, result.meter("macs")):
        with pytest.raises(SelectionError, match=r"no axis called 'stem\.weigth\[0\]'"):
            ask({"stem.weigth[0]": 3})
