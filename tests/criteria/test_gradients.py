"""Criteria that read gradients, against explicit backward passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import Batch, Small, looked_at, pictures, settled, small
from tonsor import zoo
from tonsor.criteria.gradients import GradientGatherer
from tonsor.criteria.registry import find_criterion
from tonsor.criteria.score import score
from tonsor.errors import ScoreError

Array = np.ndarray
GROUPS = ("conv1.weight[0]", "conv2.weight[0]")


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters())


def backward(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The gradients of a minibatch, by the ordinary backward pass."""
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def mean(values: list[Tensor]) -> Array:
    return torch.stack(values).mean(0).detach().double().numpy()


def one_by_one(batches: list[Batch]) -> list[Batch]:
    return [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(len(x))]


# ---------------------------------------------------------------- weights


def test_weight_taylor_is_by_minibatch() -> None:
    model, batches = small(), pictures()
    scores = score(looked_at(model), "taylor_weight", batches=batches, combine="producer")
    for group, name in zip(GROUPS, ("conv1.weight", "conv2.weight"), strict=True):
        weight = parameters(model)[name]
        wanted = [(weight * backward(model, b)[name]).square().sum((1, 2, 3)) for b in batches]
        np.testing.assert_allclose(scores[group], mean(wanted), rtol=1e-8)


def test_minibatches_count_for_their_samples() -> None:
    model, (x, y) = small(), pictures(1, size=6)[0]
    parts = [(x[:4], y[:4]), (x[4:], y[4:])]
    scores = score(looked_at(model), "taylor_weight", batches=parts, combine="producer")
    weight = parameters(model)["conv1.weight"]
    first, second = (
        (weight * backward(model, b)["conv1.weight"]).square().sum((1, 2, 3)) for b in parts
    )
    wanted = ((4 * first + 2 * second) / 6).detach().numpy()
    np.testing.assert_allclose(scores[GROUPS[0]], wanted, rtol=1e-8)


def test_batch_norm_taylor() -> None:
    model, batches = small(), pictures()
    scores = score(looked_at(model), "taylor_bn", batches=batches)
    for group, name in zip(GROUPS, ("bn1", "bn2"), strict=True):
        scale, shift = (parameters(model)[f"{name}.{kind}"] for kind in ("weight", "bias"))
        wanted = []
        for batch in batches:
            found = backward(model, batch)
            added = scale * found[f"{name}.weight"] + shift * found[f"{name}.bias"]
            wanted.append(added.square())
        np.testing.assert_allclose(scores[group], mean(wanted), rtol=1e-8)


def test_batch_norm_without_a_shift() -> None:
    norm = nn.BatchNorm2d(4)
    norm.bias = None  # type: ignore[assignment]
    net = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    model, batches = settled(net.double()), pictures()
    scores = score(looked_at(model), "taylor_bn", batches=batches)
    wanted = [(norm.weight * backward(model, b)["1.weight"]).square() for b in batches]
    np.testing.assert_allclose(scores["0.weight[0]"], mean(wanted), rtol=1e-8)


def test_fisher_is_over_samples() -> None:
    model, batches = small(), pictures()
    scores = score(looked_at(model), "fisher", batches=batches, combine="producer")
    for group, name in zip(GROUPS, ("conv1.weight", "conv2.weight"), strict=True):
        squares = [backward(model, b)[name].square() for b in one_by_one(batches)]
        diagonal = torch.stack(squares).mean(0)
        wanted = 0.5 * (diagonal * parameters(model)[name].square()).sum((1, 2, 3))
        np.testing.assert_allclose(scores[group], wanted.detach().numpy(), rtol=1e-8)


@pytest.mark.parametrize("by", ["fisher", "taylor_gate:per_sample=true", "apoz", "mean_map",
                                "taylor_map", "taylor_map:absolute=sample"])  # fmt: skip
def test_how_samples_are_batched_does_not_matter(by: str) -> None:
    model, (x, y) = small(), pictures(1, size=6)[0]
    whole = score(looked_at(model), by, batches=[(x, y)])
    parts = score(looked_at(model), by, batches=[(x[:1], y[:1]), (x[1:], y[1:])])
    for group in GROUPS:
        np.testing.assert_allclose(whole[group], parts[group], rtol=1e-8)


# ---------------------------------------------------------------- curvature


class Quadratic(nn.Module):
    """Two layers whose outputs are all that the loss looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


def of_weights(model: Quadratic, curvature: Tensor, coupling: float = 0.0) -> Callable[..., Tensor]:
    """A loss that is quadratic in the first layer: its Hessian is known."""

    def loss(output: Tensor, target: object) -> Tensor:
        w = model.first.weight
        whole = w.sum()
        return 0.5 * (curvature * w.square()).sum() + 0.5 * coupling * whole**2 + 0 * output.sum()

    return loss


def test_a_diagonal_hessian_takes_one_vector() -> None:
    model = settled(Quadratic().double())
    curvature = torch.linspace(-1, 2, 12, dtype=torch.float64).view(4, 3)
    x = torch.randn(2, 3, dtype=torch.float64)
    scores = score(
        tonsor.inspect(model, x), "obd", batches=[(x, None)], combine="producer",
        loss=of_weights(model, curvature),
    )  # fmt: skip
    wanted = 0.5 * (curvature * model.first.weight.square()).sum(1)
    np.testing.assert_allclose(scores["first.weight[0]"], wanted.detach().numpy(), rtol=1e-9)
    assert scores["first.weight[0]"].min() < 0  # a maximum is a reason to go, and not to stay


def test_more_vectors_come_nearer_to_the_diagonal() -> None:
    model = settled(Quadratic().double())
    curvature = torch.linspace(1, 2, 12, dtype=torch.float64).view(4, 3)
    x = torch.randn(2, 3, dtype=torch.float64)
    anatomy = tonsor.inspect(model, x)
    wanted = 0.5 * ((curvature + 0.5) * model.first.weight.square()).sum(1).detach().numpy()
    errors = []
    for count in (8, 800):
        scores = score(anatomy, "obd", batches=[(x, None)] * count, combine="producer",
                       loss=of_weights(model, curvature, 0.5))  # fmt: skip
        errors.append(np.abs(scores["first.weight[0]"] - wanted).max())
    assert errors[1] < errors[0] / 3
    assert errors[1] < 0.02 * wanted.max()


def test_the_curvature_of_a_real_loss() -> None:
    model, count = settled(Quadratic().double()), 1000
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randint(0, 2, (5,))
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])

    def loss(flat: Tensor) -> Tensor:
        return F.cross_entropy(x @ flat[:12].view(4, 3).T @ flat[12:].view(2, 4).T, y)

    hessian = torch.autograd.functional.hessian(loss, weights)
    assert isinstance(hessian, Tensor)
    size = 0.5 * weights.square()
    wanted = (size * hessian.diagonal())[:12].view(4, 3).sum(1)
    noise = (size * (hessian - hessian.diagonal().diag()).norm(dim=1))[:12].view(4, 3).sum(1)
    scores = score(tonsor.inspect(model, x), "obd", batches=[(x, y)] * count, combine="producer")[
        "first.weight[0]"
    ]
    errors = np.abs(scores - wanted.numpy()) / (noise.numpy() / count**0.5)
    assert errors.max() < 4


def test_where_the_loss_is_linear_there_is_no_curvature() -> None:
    model, x = settled(Quadratic().double()), torch.randn(2, 3, dtype=torch.float64)
    with pytest.raises(ScoreError, match="same score"):
        score(
            tonsor.inspect(model, x), "obd", batches=[(x, None)], combine="producer",
            loss=lambda o, _: model.first.weight.sum() + 0 * o.sum(),
        )  # fmt: skip


# ---------------------------------------------------------------- gates


class Gated(nn.Module):
    """The small net with a gate behind each norm, written by hand."""

    def __init__(self, inner: Small) -> None:
        super().__init__()
        self.inner = inner
        self.gates = [torch.ones(6).double(), torch.ones(5).double()]
        for gate in self.gates:
            gate.requires_grad_()

    def forward(self, x: Tensor) -> Tensor:
        m = self.inner
        x = m.bn1(m.conv1(x)) * self.gates[0][:, None, None]
        x = F.max_pool2d(x.relu(), 2)
        x = (m.bn2(m.conv2(x)) * self.gates[1][:, None, None]).relu()
        return m.linear(F.adaptive_avg_pool2d(x, 2).flatten(1))


def of_gates(model: Small, batches: list[Batch]) -> list[list[Tensor]]:
    gated = Gated(model)
    found = [torch.autograd.grad(F.cross_entropy(gated(x), y), gated.gates) for x, y in batches]
    return [list(g) for g in zip(*found, strict=True)]


def test_gates() -> None:
    model, batches = small(), pictures()
    scores = score(looked_at(model), "taylor_gate", batches=batches)
    for group, found in zip(GROUPS, of_gates(model, batches), strict=True):
        np.testing.assert_allclose(scores[group], mean([g.square() for g in found]), rtol=1e-8)


def test_gates_of_each_sample() -> None:
    model, batches = small(), pictures()
    scores = score(looked_at(model), "taylor_gate:per_sample=true", batches=batches)
    alone = of_gates(model, one_by_one(batches))
    for group, found in zip(GROUPS, alone, strict=True):
        np.testing.assert_allclose(scores[group], mean([g.square() for g in found]), rtol=1e-8)


def test_gates_on_a_residual_stream() -> None:
    net = settled(zoo.build("resnet20", width=0.5, shortcut="B").double())
    batches = pictures(2, classes=10)
    anatomy = looked_at(net)
    scores = score(anatomy, "taylor_gate", batches=batches)
    norms = {n: m for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    gates = {n: torch.ones(m.num_features).double().requires_grad_() for n, m in norms.items()}
    hooks = [
        m.register_forward_hook(lambda _, __, out, z=gates[n]: out * z[:, None, None])
        for n, m in norms.items()
    ]
    found = [
        dict(
            zip(
                gates,
                torch.autograd.grad(F.cross_entropy(net(x), y), list(gates.values())),
                strict=True,
            )
        )
        for x, y in batches
    ]
    for hook in hooks:
        hook.remove()
    assert any(
        len([m for m in g.members if m.tensor.endswith("bn2.weight")]) > 2 for g in anatomy.prunable
    )
    for group in anatomy.prunable:
        mine = [
            m.tensor.removesuffix(".weight")
            for m in group.members
            if m.tensor.removesuffix(".weight") in norms
        ]
        wanted = np.mean([mean([f[n].square() for f in found]) for n in mine], axis=0)
        np.testing.assert_allclose(scores[group.name], wanted, rtol=1e-7)


@pytest.mark.parametrize("name", ["small", "resnet20", "vgg16"])
def test_a_gate_behind_a_batch_norm_is_its_scale_and_shift(name: str) -> None:
    """A law: multiplying scale and shift by z is multiplying what comes out by z."""
    model = small() if name == "small" else settled(zoo.build(name, width=0.25).double())
    side = 32 if name == "vgg16" else 8
    batches = pictures(2, side=side, classes=10 if name != "small" else 4)
    anatomy = tonsor.inspect(model, batches[0][0][:1])
    gate = score(anatomy, "taylor_gate", batches=batches)
    norm = score(anatomy, "taylor_bn", batches=batches)
    assert gate.values.keys() == norm.values.keys()
    for group in gate.values:
        np.testing.assert_allclose(gate[group], norm[group], rtol=1e-6, atol=1e-18)


# ---------------------------------------------------------------- maps


@pytest.mark.parametrize("absolute", ["position", "sample", "batch"])
def test_map_taylor(absolute: str) -> None:
    model, batches = small(), pictures()
    scores = score(looked_at(model), f"taylor_map:absolute={absolute}", batches=batches)
    norms = [model.bn1, model.bn2]
    found: list[list[Tensor]] = [[], []]
    for x, y in batches:
        kept: list[Tensor] = []

        def keep(_: object, __: object, out: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(out)
            return out.clone()

        hooks = [n.register_forward_hook(keep) for n in norms]
        loss = F.cross_entropy(model(x), y, reduction="sum")
        for hook in hooks:
            hook.remove()
        for i, (out, gradient) in enumerate(
            zip(kept, torch.autograd.grad(loss, kept), strict=True)
        ):
            product = out * gradient
            if absolute == "position":
                found[i].append(product.abs().mean((0, 2, 3)))
            elif absolute == "sample":
                found[i].append(product.mean((2, 3)).abs().mean(0))
            else:
                found[i].append(product.mean((0, 2, 3)).abs())
    for group, each in zip(GROUPS, found, strict=True):
        wanted = mean(each)
        wanted = wanted / ((wanted**2).sum() ** 0.5 + 1e-8)
        np.testing.assert_allclose(scores[group], wanted, rtol=1e-7)


def test_scaled_by_place() -> None:
    scores = score(looked_at(small()), "taylor_map", batches=pictures())
    for group in GROUPS:
        assert (scores[group] ** 2).sum() == pytest.approx(1, abs=1e-4)


# ---------------------------------------------------------------- what no gradient reaches


class TwoHeads(nn.Module):
    """A loss of the first head says nothing of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, 5)
        self.a, self.b = (nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in "ab")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.trunk(x).relu()
        return {"a": self.a(x), "b": self.b(x)}


@pytest.mark.parametrize("by", ["taylor_weight", "fisher", "obd", "taylor_gate", "taylor_map"])
def test_what_the_loss_does_not_see_is_not_scored(by: str) -> None:
    model, x = settled(TwoHeads()), torch.randn(4, 3)
    scores = score(tonsor.inspect(model, x), by, batches=[(x, torch.zeros(4, 2))],
                   loss=lambda out, y: F.mse_loss(out["a"], y))  # fmt: skip
    assert "a.0.weight[0]" in scores.values
    assert scores.unscored.keys() == {"b.0.weight[0]"}
    assert "no gradient of the loss reaches it" in scores.unscored["b.0.weight[0]"]


def test_what_only_some_minibatches_reach_counts_for_nothing_in_the_others() -> None:
    model = settled(TwoHeads().double())
    x = torch.randn(4, 3, dtype=torch.float64)

    def loss(out: dict[str, Tensor], head: str) -> Tensor:
        return out[head].square().mean()

    anatomy = tonsor.inspect(model, x)
    for by in ("taylor_weight", "taylor_gate", "fisher"):
        once = score(anatomy, by, batches=[(x, "b")], loss=loss)
        for order in ("aab", "aba", "baa"):
            mixed = score(anatomy, by, batches=[(x, h) for h in order], loss=loss)
            np.testing.assert_allclose(mixed["b.0.weight[0]"], once["b.0.weight[0]"] / 3, rtol=1e-9)


def test_a_loss_without_a_gradient_is_refused() -> None:
    model, batches = small(), pictures(1)
    for by in ("taylor_weight", "fisher", "obd", "taylor_gate", "taylor_bn"):
        with pytest.raises(ScoreError, match="depends on no parameter"):
            score(looked_at(model), by, batches=batches, loss=lambda o, _: o.detach().mean())


def test_without_batch_norms_their_taylor_says_so_before_any_data() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ScoreError, match="no BatchNorm"):
        score(tonsor.inspect(model, torch.randn(1, 3)), "taylor_bn", batches=pictures())


def test_gradients_that_come_from_elsewhere() -> None:
    model, batches = small(), pictures()
    anatomy = looked_at(model)
    gatherer = GradientGatherer(anatomy, find_criterion("taylor_weight"))
    for batch in batches:
        gatherer.add(backward(model, batch), len(batch[0]))
    wanted = score(anatomy, "taylor_weight", batches=batches, combine="producer")
    rows = gatherer.rows()
    for group in GROUPS:
        (made,) = (r for r in rows[group] if r.made)
        np.testing.assert_allclose(made.values, wanted[group], rtol=1e-9)
