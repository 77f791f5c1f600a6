"""One block after another: what is gone stays gone, and a stopped run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import tonsor
from tonsor.criteria.blocks import score as scoring
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.errors import BudgetError, PlanError
from tonsor.families.blocks.block import Blocks
from tonsor.methods.layerprune import iterative
from tonsor.methods.layerprune.iterative import prune_iteratively
from tonsor.zoo.cifar_resnet import CifarResNet

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net() -> CifarResNet:
    torch.manual_seed(0)
    return CifarResNet(20).eval()


def drifting(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Scores whose order turns round at every step, and the blocks that each was asked about."""
    asked: list[list[str]] = []

    def score(anatomy: object, blocks: Blocks, by: str, **options: object) -> BlockScores:
        names = [b.name for b in blocks]
        asked.append([b.name for b in blocks.removable])
        turn = 1.0 if len(asked) % 2 else -1.0
        return BlockScores({n: turn * i for i, n in enumerate(names)}, by)

    monkeypatch.setattr(iterative, "score_blocks", score)
    assert scoring.score_blocks is not score
    return asked


def test_what_is_gone_stays_gone(net: CifarResNet, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = drifting(monkeypatch)
    slim, plan, steps = prune_iteratively(net, X, 4, by="mine", quiet=True)
    gone = [n for step in steps for n in step.gone]
    assert gone == ["layer1.0", "layer3.2", "layer1.1", "layer3.1"]
    assert {d.name for d in plan.drops} == set(gone)
    for i, names in enumerate(asked):
        assert not set(names) & set(gone[:i])
    assert torch.equal(plan.apply(net)(X), slim(X))
    assert [s.spearman for s in steps] == pytest.approx([-1.0, 1.0, -1.0, 1.0])


def test_each_step_trains_what_is_left(net: CifarResNet) -> None:
    seen: list[tuple[int, int]] = []

    def tune(slim: nn.Module, number: int) -> None:
        seen.append((number, sum(p.numel() for p in slim.parameters())))
        with torch.no_grad():
            next(slim.parameters()).mul_(2.0)

    before = net.conv1.weight.clone()
    slim, plan, _ = prune_iteratively(net, X, 2, each=2, by="l2", tune=tune, quiet=True)
    assert [n for n, _ in seen] == [1, 2]
    assert seen[0][1] > seen[1][1]
    assert len(plan.drops) == 4
    assert isinstance(slim, CifarResNet)
    assert torch.equal(slim.conv1.weight, 4 * before)
    assert torch.equal(net.conv1.weight, before)


def test_a_stopped_run_goes_on(net: CifarResNet, tmp_path: Path) -> None:
    def stop(slim: nn.Module, number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    whole = prune_iteratively(net, X, 4, by="l2", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        prune_iteratively(net, X, 4, by="l2", tune=stop, folder=tmp_path, quiet=True)
    slim, plan, steps = prune_iteratively(net, X, 4, by="l2", folder=tmp_path, quiet=True)
    assert [s.gone for s in steps] == [s.gone for s in whole[2]]
    assert plan.drops == whole[1].drops
    assert torch.equal(slim(X), whole[0](X))
    again = prune_iteratively(net, X, 4, by="l2", folder=tmp_path, quiet=True)
    assert torch.equal(again[0](X), slim(X))
    assert tonsor.load(tmp_path / "step4.tonsor", net)(X).equal(slim(X))


def test_a_damaged_record_is_refused(net: CifarResNet, tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text("{}")
    with pytest.raises(PlanError, match="delete it to begin anew"):
        prune_iteratively(net, X, 1, by="l2", folder=tmp_path, quiet=True)


@pytest.mark.parametrize(("steps", "each"), [(0, 1), (1, 0), (-2, 1)])
def test_bad_numbers_are_refused(net: CifarResNet, steps: int, each: int) -> None:
    with pytest.raises(BudgetError, match="at least one block"):
        prune_iteratively(net, X, steps, each=each, by="l2", quiet=True)
