"""Blocks are found wherever they are held, and however the model goes through them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor

from .check import count, found, going, ready, same, without, zeroed
from .odd import WIDTH, Block

X = tonsor.Inputs(torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1)))


class ByName(nn.Module):
    """Blocks in a dict, run in an order of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({k: Block() for k in ("deep", "flat", "odd")})

    def forward(self, x: Tensor) -> Tensor:
        for key in ("odd", "deep", "flat"):
            x = self.parts[key](x)
        return x


class ByLength(nn.Module):
    """What it returns depends on how many blocks it thinks there are."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x) * (i + 1) / len(self.layers)
        return x


class Stages(nn.Module):
    """Stages of one block, of several, and a sequence in which not everything is a block."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(Block())
        self.more = nn.Sequential(nn.LayerNorm(WIDTH), Block(), nn.GELU(), Block(), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.more(self.one(x))


class Pairs(nn.Module):
    """Attention and network in pairs, added by the model that holds them all."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(3):
            attend = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))
            feed = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH))
            self.layers.append(nn.ModuleList([attend, feed]))

    def forward(self, x: Tensor) -> Tensor:
        for attend, feed in self.layers:  # type: ignore[misc]
            x = attend(x) + x
            x = feed(x) + x
        return x


class Inside(nn.Module):
    """The same, one module further down."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.body, self.last = nn.Linear(WIDTH, WIDTH), Pairs(), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.first(x)))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ByName, ["parts.odd", "parts.deep", "parts.flat"]),
        (ByLength, ["layers.0", "layers.1", "layers.2"]),
        (Stages, ["one.0", "more.1", "more.3"]),
    ],
)
def test_blocks_are_found_in_the_order_in_which_they_run(
    kind: type[nn.Module], names: list[str]
) -> None:
    net = ready(kind())
    anatomy, blocks = found(net, X)
    assert going(blocks) == names
    for gone in (names[:1], names[1:], names):
        oracle: Any = copy.deepcopy(net)
        for name in gone:
            oracle.get_submodule(name).off = True
        assert same(without(anatomy, blocks, gone)[1], oracle, X)


@pytest.mark.parametrize("at", ["", "body."])
def test_pairs_in_one_forward_are_branches(at: str) -> None:
    net = ready(Inside() if at else Pairs())
    anatomy, blocks = found(net, X)
    assert going(blocks) == [f"{at}layers.{i}.{j}" for i in range(3) for j in range(2)]
    gone = [f"{at}layers.0.1", f"{at}layers.2.0"]
    oracle = zeroed(net, [f"{at}layers.0.1.2", f"{at}layers.2.0.1"])
    assert same(without(anatomy, blocks, gone)[1], oracle, X)


class DecoderLayer(Block):
    """Two branches of one make, and one of another: a layer all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.mine, self.its = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(3)])
        self.feed = nn.Sequential(nn.Linear(WIDTH, 9), nn.ReLU(), nn.Linear(9, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](x + self.mine(x))
        x = self.norms[1](x + self.its(x))
        return self.norms[2](x + self.feed(x))


class ScaledBranches(Block):
    """Branches that end alike, in a scale, and are not alike."""

    def __init__(self) -> None:
        super().__init__()
        self.feed = nn.Sequential(nn.Linear(WIDTH, 9), nn.ReLU(), nn.Linear(9, WIDTH))
        self.scales = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scales[0](self.f(x))
        return x + self.scales[1](self.feed(x))


@pytest.mark.parametrize("kind", [DecoderLayer, ScaledBranches])
def test_a_layer_with_branches_that_look_alike_is_one_block(kind: type[nn.Module]) -> None:
    net = ready(nn.Sequential(nn.Linear(WIDTH, WIDTH), kind(), kind(), nn.Linear(WIDTH, 3)))
    anatomy, blocks = found(net, X)
    assert going(blocks) == ["1", "2"]
    without(anatomy, blocks, ["1", "2"])


def test_hooks_on_a_block_go_on_working() -> None:
    net: Any = ready(ByLength())
    seen: list[float] = []
    net.layers[0].register_forward_pre_hook(lambda _, given: (given[0] * 2,))
    net.layers[1].register_forward_hook(lambda m, given, out: seen.append(float(out.sum())))
    net.layers[2].register_forward_hook(lambda m, given, kw, out: out + 1, with_kwargs=True)
    anatomy, blocks = found(net, X)
    oracle: Any = copy.deepcopy(net)
    for layer in oracle.layers:
        layer.off = True
    _, slim = without(anatomy, blocks, going(blocks))
    seen.clear()
    assert same(slim, oracle, X)
    assert len(seen) == 2
    assert seen[0] == pytest.approx(seen[1])


def _three_times(_: nn.Module, given: Any, out: Tensor) -> Tensor:
    return out * 3


def test_hooks_on_a_plain_layer_go_on_working() -> None:
    net: Any = ready(nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(3))))
    net[1].register_forward_hook(_three_times)
    anatomy, blocks = found(net, X)
    oracle = nn.Sequential(net[0], nn.Identity(), net[2])
    oracle[1].register_forward_hook(_three_times)
    assert same(without(anatomy, blocks, ["1"])[1], oracle, X)


class Tied(nn.Module):
    """The first block shares its weight with the last layer, and the second one with the third."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(3)])
        self.last = nn.Linear(WIDTH, WIDTH)
        layers: Any = self.layers
        self.last.weight = layers[0].f.weight
        layers[2].f.weight = layers[1].f.weight

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


def test_a_weight_that_something_else_has_too_stays(tmp_path: Any) -> None:
    net: Any = ready(Tied())
    anatomy, blocks = found(net, X)
    assert blocks.named("layers.0").parameters == tuple(
        f"layers.0.{n}" for n in ("norm.weight", "norm.bias", "f.bias")
    )
    slim: Any
    plan, slim = without(anatomy, blocks, ["layers.0", "layers.1"])
    assert count(slim) == count(net) - 2 * 3 * WIDTH
    assert slim.last.weight.data_ptr() != net.last.weight.data_ptr()
    with torch.no_grad():
        slim.last.weight.add_(1)
        slim.layers[2].f.weight.add_(2)
    tonsor.save(tmp_path / "slim.safetensors", slim, plan)
    again: Any = tonsor.load(tmp_path / "slim.safetensors", net)
    back: Any = plan.revert(slim, net)
    for other in (again, back):
        assert torch.equal(other.last.weight, slim.last.weight)
        assert torch.equal(other.layers[2].f.weight, slim.layers[2].f.weight)
    assert back.last.weight is back.layers[0].f.weight
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    plan.apply_to(optimizer, net, slim)
    held = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert held == {id(p) for p in slim.parameters()}
    assert slim.load_state_dict(plan.cut_state(net.state_dict()), strict=True)


class Dense(nn.Module):
    """Every layer adds channels to those there are, and none has a way around it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(4 * (i + 1), 4, 3, padding=1) for i in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, F.relu(layer(x))], 1)
        return x


def test_a_dense_net_has_no_residual_block() -> None:
    anatomy, blocks = found(ready(Dense()), torch.randn(2, 4, 6, 6))
    assert all(b.kind == "plain" for b in blocks)
    for name in going(blocks):  # a layer that makes fewer channels than it reads may be narrowed
        without(anatomy, blocks, [name])


def test_torchs_own_encoder_does_without_its_first_layer() -> None:
    """It asks the first layer for its attention, and its fused path for the weights."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = ready(nn.TransformerEncoder(layer, 3))
    x = torch.randn(2, 5, 8)
    anatomy, blocks = found(net, x)
    assert going(blocks) == ["layers.0", "layers.1", "layers.2"]
    plan, slim = without(anatomy, blocks, ["layers.0"])
    padded = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    torch.backends.mha.set_fastpath_enabled(True)
    with torch.no_grad():
        given = slim(x, src_key_padding_mask=padded)
        meant = plan.mask(net)(x, src_key_padding_mask=padded)
    assert torch.allclose(given[~padded], meant[~padded], atol=1e-5)
