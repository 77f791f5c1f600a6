"""What `tonsor.deploy` gives back, refuses, and leaves alone."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tests.deploy.nets import NETS, Mobile, PreActivation, images, shaken
from tonsor.deploy import Deployed, bodies, calls, deploying, portable, whole
from tonsor.deploy.capture import sites_of
from tonsor.deploy.deployed import AsItIs, FromGraph
from tonsor.errors import DeployError


def test_the_verb_is_called_by_the_name_of_the_library() -> None:
    fast, report = tonsor.deploy(PreActivation(), images(2), rounds=1)
    assert isinstance(fast, Deployed)
    assert report.rows
    assert tonsor.deploy.portable is portable  # type: ignore[attr-defined]


@pytest.mark.usefixtures("deployed_wins")
def test_the_model_that_was_given_is_not_touched() -> None:
    model = shaken(NETS["stripes"]()).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    modules = list(model.modules())
    fast, _ = tonsor.deploy(model, images(2), rounds=1)
    assert model.training
    assert [id(m) for m in model.modules()] == [id(m) for m in modules]
    assert all(not m._forward_pre_hooks and "forward" not in vars(m) for m in modules)
    assert all(p.requires_grad for p in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    wanted = fast(*images(1)).clone()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()
    assert torch.equal(fast(*images(1)), wanted)  # nor does it share tensors with it


@pytest.mark.parametrize("wins", ["as given", "channels_last", "deployed"])
@torch.no_grad()
def test_the_fastest_model_is_given_back(wins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        whole, "_timed",
        lambda runs, given, rounds: {n: [1.0 if n == wins else 2.0] * 9 for n in runs},
    )  # fmt: skip
    model = shaken(PreActivation())
    fast, report = tonsor.deploy(model, images(2), rounds=1)
    assert report.returned == wins
    assert report.speedup == (1 if wins == "as given" else 2)
    assert isinstance(fast, FromGraph if wins == "deployed" else AsItIs)
    assert bool(report.notes) == (wins != "deployed")
    torch.testing.assert_close(fast(*images(5)), model(*images(5)), rtol=1e-4, atol=1e-5)
    with pytest.raises(DeployError, match="can't train"):
        fast.train()
    assert not fast.eval().training


def test_a_model_that_may_be_slower_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"deployed": [0.9, 0.9, 0.9, 0.9, 0.9, 1.2, 1.2], "as given": [1.0] * 7}
    monkeypatch.setattr(
        whole, "_timed", lambda runs, *_: {n: times.get(n, [3.0] * 7) for n in runs}
    )
    _, report = tonsor.deploy(PreActivation(), images(2), rounds=1)
    assert report.ratio == pytest.approx(0.9)
    assert report.returned == "as given"


class Branching(nn.Module):
    """Has no graph: what it does depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.one(x))
        return self.two(x).relu() if x.sum() > 1e6 else self.two(self.two(x))


@pytest.mark.usefixtures("deployed_wins")
@torch.no_grad()
def test_without_a_graph_convolutions_are_replaced_where_they_are() -> None:
    model = shaken(Branching())
    fast, report = tonsor.deploy(model, images(2), rounds=1)
    assert isinstance(fast, AsItIs)
    assert "no graph could be made" in report.notes[0]
    assert [(r.name, r.fused) for r in report.rows] == [("one", ""), ("two", "")]
    assert [site.chosen for site in sites_of(fast)] == [r.chosen for r in report.rows]
    assert all(row.chosen for row in report.rows)
    for batch in (1, 2, 5):
        torch.testing.assert_close(fast(*images(batch)), model(*images(batch)))
    torch.testing.assert_close(portable(fast)(*images(2)), model(*images(2)))


class Peeking(Branching):
    """Also reads attributes of its convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.one.weight.sum()


@pytest.mark.usefixtures("deployed_wins")
@torch.no_grad()
def test_a_model_that_can_t_be_changed_is_left_as_it_is() -> None:
    model = shaken(Peeking())
    fast, report = tonsor.deploy(model, images(2), rounds=1)
    assert "left as it is" in report.notes[1]
    assert not report.rows
    torch.testing.assert_close(fast(*images(5)), model(*images(5)))


class ByBatch(nn.Module):
    """Has a graph for one size of the batch only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x[i : i + 1]) for i in range(len(x))])


@pytest.mark.usefixtures("deployed_wins")
@pytest.mark.parametrize("batch", [1, 2])
@torch.no_grad()
def test_a_graph_for_one_batch_refuses_another(batch: int) -> None:
    model = ByBatch().eval()
    fast, report = tonsor.deploy(model, images(batch), rounds=1)
    assert isinstance(fast, FromGraph)
    assert not report.any_batch
    assert "the batch is fixed" in report.notes[0]
    torch.testing.assert_close(fast(*images(batch)), model(*images(batch)))
    with pytest.raises(DeployError, match=rf"takes \({batch}, 3, 16, 16\) float32; it was given"):
        fast(*images(5))


class AtMostFour(nn.Module):
    """Does something else from five samples on, and for one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        if x.shape[0] == 1:
            return out * 3
        return out if x.shape[0] < 5 else out * 2


@pytest.mark.usefixtures("deployed_wins")
@torch.no_grad()
def test_sizes_at_which_a_model_does_something_else_are_refused() -> None:
    model = AtMostFour().eval()
    fast, _ = tonsor.deploy(model, images(2), rounds=1)
    assert isinstance(fast, FromGraph)
    for batch in (2, 3, 4):
        torch.testing.assert_close(fast(*images(batch)), model(*images(batch)))
    for batch in (1, 5):
        with pytest.raises(DeployError, match="batch from 2 to 4; it was given batch ="):
            fast(*images(batch))


@pytest.mark.usefixtures("deployed_wins")
@pytest.mark.parametrize(
    ("name", "way"),
    [("resnet20", "prepacked"), ("stripes", "torch"), ("columns", "kernel"), ("mobile", "dense")],
)
@torch.no_grad()
def test_a_deployed_model_is_copied_saved_and_exported(name: str, way: str) -> None:
    model = shaken(NETS[name]())
    fast, _ = tonsor.deploy(model, images(2), rounds=1, ways=[way])
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    copies: list[Any] = [
        copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), torch.load(file, weights_only=False),
    ]  # fmt: skip
    wanted = fast(*images(5))
    for other in copies:
        assert [s.chosen for s in sites_of(other)] == [s.chosen for s in sites_of(fast)]
        assert torch.equal(other(*images(5)), wanted)
    program = torch.export.export(fast, images(2))
    torch.testing.assert_close(program.module()(*images(2)), fast(*images(2)), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("deployed_wins")
def test_gradients_are_neither_needed_nor_made() -> None:
    fast, _ = tonsor.deploy(shaken(Mobile()), images(2), rounds=1)
    assert not any(p.requires_grad for p in fast.parameters())
    assert not fast(images(2)[0].requires_grad_()).requires_grad


@pytest.mark.usefixtures("deployed_wins")
def test_a_wrong_result_is_withheld_and_the_layer_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose = deploying.choose

    def spoiling(body: nn.Module, sites: list[Any], *rest: Any, **more: Any) -> Any:
        rows = choose(body, sites, *rest, **more)
        with torch.no_grad():
            sites[1].way.weight.mul_(1.5)
        return rows

    monkeypatch.setattr(deploying, "choose", spoiling)
    with pytest.raises(DeployError, match=r"first layer to differ is 'conv1' \(dense\)"):
        tonsor.deploy(shaken(PreActivation()), images(2), rounds=1, ways=["dense"])
    tonsor.deploy(shaken(PreActivation()), images(2), rounds=1, ways=["dense"], verify=False)


@pytest.mark.usefixtures("deployed_wins")
@torch.no_grad()
def test_a_graph_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiling(graph: Any) -> None:
        sites_of(graph)[0].reference.conv.weight.mul_(1.01)

    monkeypatch.setattr(bodies, "fuse", spoiling)
    model = shaken(PreActivation())
    fast, report = tonsor.deploy(model, images(2), rounds=1)
    assert "what the graph computes differs" in report.notes[0]
    torch.testing.assert_close(fast(*images(2)), model(*images(2)), rtol=1e-4, atol=1e-5)


class Random(nn.Module):
    """Computes something else each time."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_what_can_t_be_deployed_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    with pytest.raises(DeployError, match="another output each time"):
        tonsor.deploy(Random(), images(1))
    with pytest.raises(DeployError, match="no way called"):
        tonsor.deploy(net, images(1), ways=["dence"])
    with pytest.raises(DeployError, match="at least one round"):
        tonsor.deploy(net, images(1), rounds=0)
    with pytest.raises(DeployError, match="margin=1"):
        tonsor.deploy(net, images(1), margin=1.0)
    with pytest.raises(DeployError, match="deployed already"):
        tonsor.deploy(tonsor.deploy(net, images(1), rounds=1)[0], images(1))
    with pytest.raises(DeployError, match="portable takes what"):
        portable(net)


@pytest.mark.usefixtures("deployed_wins")
@torch.no_grad()
def test_a_size_that_the_exporter_let_in_wrongly_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_limits", lambda found: (2, None))
    model = AtMostFour().eval()
    fast, report = tonsor.deploy(model, images(3), rounds=1)
    assert not report.any_batch
    torch.testing.assert_close(fast(*images(3)), model(*images(3)))
    with pytest.raises(DeployError, match=r"takes \(3, 3, 16, 16\)"):
        fast(*images(4))
