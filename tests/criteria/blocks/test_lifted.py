"""Criteria of pieces lifted to blocks, against explicit means over the filters of their layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.criteria.blocks.nets import outputs, plain, resnet, seen, tokens
from tests.criteria.nets import pictures, settled
from tests.models import ALL
from tonsor import inspect
from tonsor.criteria.blocks.score import score_blocks
from tonsor.criteria.registry import CRITERIA
from tonsor.errors import ScoreError
from tonsor.families.blocks.block import Block
from tonsor.families.blocks.find import find_blocks

Filters = Callable[[Tensor], Tensor]

STILL: dict[str, Filters] = {  # of a weight [filter, ...]
    "l1": lambda w: w.flatten(1).abs().sum(1),
    "l2": lambda w: w.flatten(1).norm(dim=1),
    "l2:squared=true": lambda w: w.flatten(1).square().sum(1),
    "geometric_median": lambda w: torch.stack([(w - f).flatten(1).norm(dim=1) for f in w]).sum(0),
}


def layers(net: nn.Module, block: Block, kind: type[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    for path in block.modules:
        for name, module in net.get_submodule(path).named_modules(prefix=path):
            if isinstance(module, kind):
                yield name, module


def weights(net: nn.Module, block: Block) -> list[Tensor]:
    found = [m for _, m in layers(net, block, nn.Module) if isinstance(m, (nn.Conv2d, nn.Linear))]
    return [m.weight.detach() for m in found]


@pytest.mark.parametrize("by", STILL)
@pytest.mark.parametrize("kind", ["A", "B", "plain"])
def test_the_mean_over_all_filters(by: str, kind: str) -> None:
    net = plain() if kind == "plain" else resnet(kind)
    anatomy, blocks = seen(net, 32)
    found = score_blocks(anatomy, blocks, by)
    assert len(found.values) == len(blocks)
    for block in blocks:
        wanted = torch.cat([STILL[by](w) for w in weights(net, block)]).mean()
        assert found[block.name] == pytest.approx(float(wanted)), block.name
    if kind == "B":  # also the filters of the projection
        assert len(weights(net, blocks.named("layer2.0"))) == 3


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_inside_of_a_block_only_what_no_other_makes(shortcut: str) -> None:
    net = resnet(shortcut)
    anatomy, blocks = seen(net, 32)
    found = score_blocks(anatomy, blocks, "l1:inner=true")
    for block in blocks:
        conv = cast(nn.Conv2d, net.get_submodule(f"{block.name}.conv1"))
        assert found[block.name] == pytest.approx(float(STILL["l1"](conv.weight.detach()).mean()))
    assert found.by == "l1:inner=True"
    anatomy, blocks = seen(plain(), 32)
    inner = score_blocks(anatomy, blocks, "l1:inner=true")
    assert inner.values == score_blocks(anatomy, blocks, "l1").values


@pytest.mark.parametrize("kind", ["A", "B", "plain"])
def test_scales_of_all_norms(kind: str) -> None:
    net = plain() if kind == "plain" else resnet(kind)
    anatomy, blocks = seen(net, 32)
    found = score_blocks(anatomy, blocks, "bn_scale")
    for block in blocks:
        scales = [
            cast(nn.BatchNorm2d, m).weight.detach() for _, m in layers(net, block, nn.BatchNorm2d)
        ]
        if scales:
            assert found[block.name] == pytest.approx(float(torch.cat(scales).abs().mean()))
        else:
            assert "no BatchNorm" in found.unscored[block.name]
    assert set(found.unscored) == ({"classifier"} if kind == "plain" else set())


def _note(maps: dict[str, Tensor], name: str, _: nn.Module, given: object, out: Tensor) -> None:
    maps[name] = out


@pytest.mark.parametrize("by", ["taylor_map", "taylor_gate", "taylor_weight", "taylor_bn"])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_what_needs_gradients(by: str, shortcut: str) -> None:
    net = resnet(shortcut)
    anatomy, blocks = seen(net, 32)
    batches = pictures(2, side=32)
    found = score_blocks(anatomy, blocks, by, batches=iter(batches), quiet=True)
    maps: dict[str, Tensor] = {}
    norms = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [m.register_forward_hook(partial(_note, maps, n)) for n, m in norms]
    sums: dict[str, Tensor] = {}

    def add(name: str, values: Tensor) -> None:
        sums[name] = sums.get(name, 0) + values / len(batches)

    for x, y in batches:
        net.zero_grad()
        loss = F.cross_entropy(net(x), y)
        for tensor in maps.values():
            tensor.retain_grad()
        loss.backward()
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d) and by == "taylor_weight":
                assert module.weight.grad is not None
                add(name, (module.weight * module.weight.grad).square().flatten(1).sum(1))
            if not isinstance(module, nn.BatchNorm2d):
                continue
            out, grad = maps[name], maps[name].grad
            assert grad is not None
            assert module.weight.grad is not None
            assert module.bias.grad is not None
            if by == "taylor_map":
                add(name, (out * grad * len(x)).abs().mean((0, 2, 3)))
            elif by == "taylor_gate":
                add(name, (out * grad).sum((0, 2, 3)).square())
            elif by == "taylor_bn":
                added = module.weight * module.weight.grad + module.bias * module.bias.grad
                add(name, added.square())
    for hook in hooks:
        hook.remove()
    for block in blocks:
        mine = [v.detach() for n, v in sums.items() if n.startswith(f"{block.name}.")]
        assert len(mine) == (3 if (shortcut, block.name[-1], block.name != "layer1.0") ==
                             ("B", "0", True) else 2)  # fmt: skip
        if by == "taylor_map":
            mine = [v / (v.norm() + 1e-8) for v in mine]
        assert found[block.name] == pytest.approx(float(torch.cat(mine).mean()), rel=1e-6)
    assert found.conditions == {"samples": 8}


def test_maps_that_the_weights_of_a_block_read() -> None:
    net, (x, y) = plain(), pictures(1, side=32)[0]
    anatomy, blocks = seen(net, 32)
    found = score_blocks(anatomy, blocks, "mean_map", batches=[(x, y)], quiet=True)
    for name, (given, _) in outputs(net, blocks, x).items():
        wanted = given.abs().mean((0, 2, 3) if given.dim() == 4 else (0,)).mean()
        if name not in ("features.0", "classifier"):
            assert found[name] == pytest.approx(float(wanted))


@pytest.mark.parametrize("by", CRITERIA)
def test_every_criterion_can_be_lifted(by: str) -> None:
    net = resnet()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    anatomy, blocks = seen(net, 32)
    batches = pictures(1, 2, side=32) if CRITERIA[by].reads_data else None
    found = score_blocks(anatomy, blocks, by, batches=batches, quiet=True)
    assert len(found.values) == len(blocks)
    assert np.isfinite(list(found.values.values())).all()
    assert len(set(found.values.values())) == len(blocks)
    assert all(t.equal(before[n]) for n, t in net.state_dict().items())
    assert all(p.grad is None for p in settled(net).parameters()) or by != "l1"


def test_layers_of_tokens() -> None:
    net, anatomy, blocks = tokens()
    found = score_blocks(anatomy, blocks, "l1")
    for block in blocks:
        wanted = torch.cat([STILL["l1"](w) for w in weights(net, block)]).mean()
        assert found[block.name] == pytest.approx(float(wanted))
    with pytest.raises(ScoreError, match=r"can't judge any block.*no BatchNorm"):
        score_blocks(anatomy, blocks, "bn_scale")


def test_each_output_of_a_projection_is_a_filter() -> None:
    pytest.importorskip("transformers")
    model: Any
    model, args, kwargs = next(c for c in ALL if c.name == "hf_bert").build()
    anatomy = inspect(model, (*args,) if args else kwargs)
    blocks = find_blocks(anatomy)
    found = score_blocks(anatomy, blocks, "l1")
    assert blocks.removable
    for block in blocks.removable:
        each = torch.cat([STILL["l1"](w) for w in weights(model, block)])
        assert found[block.name] == pytest.approx(float(each.mean()), rel=1e-5)
