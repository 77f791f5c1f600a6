"""Criteria that look at feature maps only, against explicit hooks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import Batch, looked_at, pictures, settled, small
from tests.models import ALL
from tonsor import zoo
from tonsor.criteria.registry import CRITERIA
from tonsor.criteria.score import score
from tonsor.errors import ScoreError

Measure = Callable[[Tensor], Tensor]
MEASURES: dict[str, Measure] = {  # of a map [sample, piece, ...]
    "apoz": lambda x: (x != 0).transpose(0, 1).flatten(1).double().mean(1),
    "mean_map": lambda x: x.abs().transpose(0, 1).flatten(1).mean(1),
    "hrank": lambda x: torch.tensor(
        [[int(torch.linalg.matrix_rank(channel)) for channel in sample] for sample in x]
    ).double().mean(0),
}  # fmt: skip


def _note(seen: list[Tensor], _: nn.Module, given: tuple[Tensor, ...]) -> None:
    seen.append(given[0].clone())


def read_by_layers(
    net: nn.Module, anatomy: tonsor.Anatomy, batches: list[Batch], measure: Measure
) -> dict[str, np.ndarray]:
    """Look with hooks at each tensor that layers read; one that several read counts once."""
    layers = {n: m for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    inputs: dict[str, list[Tensor]] = {n: [] for n in layers}
    hooks = [m.register_forward_pre_hook(partial(_note, inputs[n])) for n, m in layers.items()]
    for x, _ in batches:
        net(x)
    for hook in hooks:
        hook.remove()
    found = {}
    for group in anatomy.prunable:
        rows: list[np.ndarray] = []
        firsts: list[Tensor] = []
        for member in group.members:
            name = member.tensor.removesuffix(".weight")
            if name not in layers or member.dim != 1:
                continue
            first = inputs[name][0]
            if any(f.shape == first.shape and f.equal(first) for f in firsts):
                continue
            firsts.append(first)
            maps = [x if x.dim() > 2 else x.view(len(x), group.size, -1) for x in inputs[name]]
            rows.append(torch.stack([measure(x) for x in maps]).mean(0).double().detach().numpy())
        found[group.name] = np.mean(rows, axis=0)
    return found


@pytest.mark.parametrize("by", ["apoz", "mean_map"])
@pytest.mark.parametrize("name", ["small", "resnet20", "vgg16"])
def test_as_hooks_see_it(by: str, name: str) -> None:
    variant: dict[str, Any] = {"shortcut": "B"} if name == "resnet20" else {}
    net = small() if name == "small" else settled(zoo.build(name, width=0.25, **variant).double())
    batches = pictures(2, side=32 if name == "vgg16" else 8)
    anatomy = tonsor.inspect(net, batches[0][0][:1])
    scores = score(anatomy, by, batches=batches)
    wanted = read_by_layers(net, anatomy, batches, MEASURES[by])
    assert any(len(g.members) > 20 for g in anatomy.prunable) == (name == "resnet20")
    assert scores.values.keys() == wanted.keys()
    for group, row in wanted.items():
        np.testing.assert_allclose(scores[group], row, rtol=1e-9, atol=1e-12)


def test_ranks_of_pictures() -> None:
    net, batches = settled(zoo.build("vgg16", width=0.125).double()), pictures(2, side=32)
    anatomy = tonsor.inspect(net, batches[0][0][:1])
    # Some channels see nothing, and are all one value.
    first = net.get_submodule("features.0")
    with torch.no_grad():
        first.get_parameter("weight")[:3] = 0
    scores = score(anatomy, "hrank", batches=batches)
    ranks: list[Tensor] = []
    hook = net.get_submodule("features.3").register_forward_pre_hook(
        lambda _, given: ranks.append(MEASURES["hrank"](given[0]))
    )
    for x, _ in batches:
        net(x)
    hook.remove()
    wanted = torch.stack(ranks).mean(0).numpy()
    np.testing.assert_allclose(scores["features.0.weight[0]"], wanted)
    assert scores["features.0.weight[0]"].max() > scores["features.0.weight[0]"].min()
    assert "no pictures" in scores.unscored["features.40.weight[0]"]


class Functional(nn.Module):
    """No module but this one; ReLU in place, and added to in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (
            nn.Parameter(torch.randn(5, 3, 3, 3)),
            nn.Parameter(torch.randn(5, 5, 1, 1)),
        )
        self.c = nn.Parameter(torch.randn(2, 5 * 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.a), inplace=True)
        y = F.conv2d(x, self.b)
        y += x
        x.zero_()
        return F.linear(F.adaptive_max_pool2d(y.relu_(), 2).flatten(1), self.c)


def test_without_modules_and_in_place() -> None:
    net, (x, y) = settled(Functional().double()), pictures(1)[0]
    scores = score(looked_at(net), "mean_map", batches=[(x, y)])
    first = F.conv2d(x, net.a).relu()
    joined = (F.conv2d(first, net.b) + first).relu()
    sizes = [t.abs().mean((0, 2, 3)) for t in (first, F.adaptive_max_pool2d(joined, 2))]
    np.testing.assert_allclose(scores["a[0]"], torch.stack(sizes).mean(0).detach().numpy())


@pytest.mark.parametrize("by", ["mean_map", "taylor_map", "taylor_gate"])
def test_channels_last_is_only_another_order_in_memory(by: str) -> None:
    net, batches = small(), pictures()
    wanted = score(looked_at(net), by, batches=batches)
    net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    last = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in batches]
    found = score(looked_at(net), by, batches=last)
    for group in wanted.values:
        np.testing.assert_allclose(found[group], wanted[group], rtol=1e-9)


@pytest.mark.parametrize("name", ["hf_bert", "hf_llama", "vit_multihead", "vit_qkv_reshape"])
@pytest.mark.parametrize("by", ["mean_map", "taylor_gate", "taylor_map"])
def test_transformers(name: str, by: str) -> None:
    if name.startswith("hf_"):
        pytest.importorskip("transformers")
    model, args, kwargs = next(c for c in ALL if c.name == name).build()
    inputs = tonsor.Inputs(*args, **kwargs)
    anatomy = tonsor.inspect(model, inputs)

    def loss(output: object, _: object) -> Tensor:
        found = output if isinstance(output, Tensor) else getattr(output, "logits")  # noqa: B009
        return found.square().mean()

    scores = score(anatomy, by, batches=[(inputs, None)], loss=loss)
    assert not scores.unscored
    assert not scores.tied


def test_heads_are_seen_where_attention_ends() -> None:
    pytest.importorskip("transformers")
    model, args, kwargs = next(c for c in ALL if c.name == "hf_bert").build()
    inputs = tonsor.Inputs(*args, **kwargs)
    anatomy = tonsor.inspect(model, inputs)
    seen: list[Tensor] = []
    path = "bert.encoder.layer.0.attention.output.dense"
    hook = model.get_submodule(path).register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    inputs.call(model)
    hook.remove()
    (group,) = (g for g in anatomy.groups_of(path) if g.kind == "heads")
    scores = score(anatomy, "mean_map", batches=[(inputs, None)])
    wanted = seen[0].unflatten(-1, (group.size, -1)).abs().mean((0, 1, 3))
    np.testing.assert_allclose(scores[group.name], wanted.double().detach().numpy(), rtol=1e-5)


# ---------------------------------------------------------------- what can't be seen


def test_nan_in_a_map_is_named() -> None:
    net = small()
    net.get_buffer("bn1.running_var").fill_(float("nan"))
    for by in ("apoz", "mean_map", "hrank", "taylor_gate"):
        with pytest.raises(ScoreError, match=r"holds NaN|loss is nan"):
            score(looked_at(net), by, batches=pictures(1))


class Turns(nn.Module):
    """A layer that runs as often as the batch is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.turn, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.side = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, x: Tensor, turns: int) -> Tensor:
        y = self.side(x)
        x = self.first(x).relu()
        for _ in range(turns):
            x = self.turn(x).relu()
        return self.last(x) + y


@pytest.mark.parametrize("by", ["mean_map", "taylor_gate", "taylor_map"])
@pytest.mark.parametrize("turns", [[3], [2, 3], [3, 2]])
def test_a_model_that_goes_another_way_is_not_scored_there(by: str, turns: list[int]) -> None:
    model, x = settled(Turns()), torch.randn(4, 3)
    anatomy = tonsor.inspect(model, (x, 2))
    batches = [((x, n), None) for n in turns]
    scores = score(anatomy, by, batches=batches, loss=lambda o, _: o.square().mean())
    assert "side.0.weight[0]" in scores.values
    assert "used 3 times on this data, and 2 times" in scores.unscored["first.weight[0]"]
    alike = score(anatomy, by, batches=[((x, 2), None)], loss=lambda o, _: o.square().mean())
    assert "first.weight[0]" in alike.values


@pytest.mark.parametrize("by", [n for n, c in CRITERIA.items() if "map" in c.needs])
def test_the_model_computes_what_it_does_unwatched(by: str) -> None:
    net, (x, y) = small(), pictures(1)[0]
    wanted, seen = net(x), []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.append(output.detach())
        return F.cross_entropy(output, target)

    score(looked_at(net), by, batches=[(x, y)], loss=loss)
    assert all(o.equal(wanted) for o in seen)
    assert bool(seen) == (CRITERIA[by].needs == "map_gradients")
