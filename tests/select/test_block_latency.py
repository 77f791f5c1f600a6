"""Latency budgets of blocks: the table foretells, the measurement decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

import tonsor
from tonsor.anatomy import Anatomy
from tonsor.cost.bench import Bench
from tonsor.cost.latency import Latency, timing
from tonsor.cost.table import Memory
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.errors import BudgetError
from tonsor.families.blocks.block import Blocks
from tonsor.select import block_budget
from tonsor.select.block_budget import _fewest
from tonsor.select.block_table import block_table
from tonsor.select.drop import that_go_together
from tonsor.surgery.shortcut import Shortcut
from tonsor.zoo.cifar_resnet import CifarResNet
from tonsor.zoo.vgg import Vgg


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    torch.manual_seed(0)
    return tonsor.inspect(CifarResNet(20).eval(), torch.randn(2, 3, 32, 32))


@pytest.fixture(scope="module")
def found(anatomy: Anatomy) -> Blocks:
    return tonsor.blocks(anatomy)


def order_of(blocks: Blocks) -> BlockScores:
    return BlockScores({b.name: float(i) for i, b in enumerate(blocks)}, "mine")


class Clock:
    """Time models by how many blocks they have: a millisecond each, and one for the rest."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.measured: list[int] = []

    def measure(self, bench: Bench, models: Mapping[str, Any], inputs: Any = None,
                about: str = "") -> Latency:  # fmt: skip
        times = {}
        for name, ready in models.items():
            gone = self.gone(ready.model)
            self.measured += [gone] if name == "slim" else []
            times[name] = [8.0 - gone * self.factor] * bench.rounds
        return Latency(
            {n: timing(t) for n, t in times.items()}, rounds=bench.rounds, threads=1, batch=2,
            device="cpu", dtype="float32", samples=times,
        )  # fmt: skip

    @staticmethod
    def gone(model: torch.nn.Module) -> int:
        return sum(isinstance(m, Shortcut) for m in model.modules())


class Held:
    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model


class Table:
    """A table that takes each block for a millisecond."""

    error = 0.0

    def predict(self, gone: Any = ()) -> float:
        return 8.0 - len(gone)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(Bench, "measure", lambda *args, **kwargs: made.measure(*args, **kwargs))
    monkeypatch.setattr(Bench, "ready", lambda self, model, inputs: Held(model))
    monkeypatch.setattr(block_budget, "block_table", lambda *args, **kwargs: Table())
    return made


@pytest.mark.parametrize(("kept", "gone"), [(1.0, 0), (0.9, 1), (0.7, 3), (0.5, 4), (0.13, 7)])
def test_just_enough_blocks_go(
    anatomy: Anatomy, found: Blocks, clock: Clock, kept: float, gone: int
) -> None:
    plan = tonsor.plan_blocks(anatomy, tonsor.latency(kept), by=order_of(found), quiet=True)
    assert len(plan.drops) == gone
    made = plan.made_by
    assert made["ratio"] <= kept or gone == 0
    assert made["reached"] == 8.0 - gone
    assert made["whole"] == 8.0
    assert "1 thread" in made["conditions"]


@pytest.mark.parametrize(("factor", "gone"), [(0.5, 4), (2.0, 1), (0.75, 3)])
def test_the_measurement_corrects_the_table(
    anatomy: Anatomy, found: Blocks, clock: Clock, factor: float, gone: int
) -> None:
    clock.factor = factor
    plan = tonsor.plan_blocks(anatomy, "latency=75%", by=order_of(found), quiet=True)
    assert len(plan.drops) == gone
    assert plan.made_by["ratio"] <= 0.75
    assert plan.made_by["predicted"] == 8.0 - gone


def test_a_time_may_be_asked_for(anatomy: Anatomy, found: Blocks, clock: Clock) -> None:
    plan = tonsor.plan_blocks(anatomy, "latency=5.5ms", by=order_of(found), quiet=True)
    assert len(plan.drops) == 3
    assert plan.made_by["limit"] == 5.5


def test_what_is_out_of_reach_says_what_is_in_it(
    anatomy: Anatomy, found: Blocks, clock: Clock
) -> None:
    with pytest.raises(BudgetError, match=r"12\.5% .*of the whole .*Ask for latency=13%") as caught:
        tonsor.plan_blocks(anatomy, "latency=5%", by=order_of(found), quiet=True)
    assert caught.value.minimum == pytest.approx(0.125)


def test_fewest_from_any_guess() -> None:
    for wanted in range(8):
        for guess in range(8):
            asked: list[int] = []

            def holds(n: int, wanted: int = wanted, asked: list[int] = asked) -> bool:
                asked.append(n)
                return n >= wanted

            assert _fewest(guess, 7, holds) == wanted
            assert len(set(asked)) == len(asked)
    assert _fewest(3, 7, lambda n: False) is None


def test_a_table_measures_each_make_once_and_adds_up(anatomy: Anatomy, found: Blocks) -> None:
    memory = Memory()
    table = block_table(anatomy, found, Bench(rounds=3), memory=memory, quiet=True)
    assert list(table.makes) == [b.name for b in found.removable]
    assert table.parts.measured == 5  # a make for each stage, the rest and the whole
    assert len({table.makes[f"layer1.{i}"][0] for i in range(3)}) == 1
    some = ["layer1.0", "layer3.2"]
    every = sum(table[n].median_ms for n in table.makes)
    assert table.summed == pytest.approx(table.rest.median_ms + every)
    assert table.error == pytest.approx(table.summed / table.whole.median_ms - 1)
    assert table.predict() == pytest.approx(table.whole.median_ms)
    assert table.predict(list(table.makes)) == pytest.approx(table.rest.median_ms)
    share = sum(table[n].median_ms for n in some) / every
    beyond = table.whole.median_ms - table.rest.median_ms
    assert table.predict() - table.predict(some) == pytest.approx(share * beyond)
    assert "together" in str(table)
    again = block_table(anatomy, found, Bench(rounds=3), memory=memory, quiet=True)
    assert again.parts.measured == 0
    assert again.predict() == table.predict()


def test_plain_layers_and_other_batches_have_a_table_too() -> None:
    torch.manual_seed(0)
    anatomy = tonsor.inspect(Vgg(16, width=0.125).eval(), torch.randn(1, 3, 32, 32))
    found = tonsor.blocks(anatomy)
    table = block_table(anatomy, found, Bench(rounds=2, batch=3), quiet=True)
    assert set(table.makes) == {b.name for b in found.removable}
    assert "batch 3" in table.parts.conditions


def test_a_real_budget_holds_when_measured(anatomy: Anatomy, found: Blocks) -> None:
    plan = tonsor.plan_blocks(
        anatomy, "latency=60%", by=order_of(found), bench=Bench(rounds=5), quiet=True
    )
    assert plan.drops
    assert plan.made_by["ratio"] <= 0.6


def test_blocks_that_can_not_all_go_have_a_table_of_those_that_can() -> None:
    class Bottleneck(nn.Module):
        """Three plain layers of which the last narrows what the first could hand on."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 1)
            self.wide = nn.Conv2d(6, 12, 1)
            self.same = nn.Conv2d(12, 12, 1)
            self.narrow = nn.Conv2d(12, 8, 1)
            self.last = nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.narrow(self.same(self.wide(self.stem(x)))))

    torch.manual_seed(0)
    anatomy = tonsor.inspect(Bottleneck(), torch.randn(2, 3, 8, 8))
    found = tonsor.blocks(anatomy)
    names = [b.name for b in found.removable]
    assert names == ["wide", "same", "narrow"]
    going, left = that_go_together(anatomy, found, names)
    assert going == ["wide", "same"]
    assert "cut otherwise" in left["narrow"]
    table = block_table(anatomy, found, Bench(rounds=2), quiet=True)
    assert list(table.makes) == going
    plan = tonsor.plan_blocks(anatomy, remove=2, by=BlockScores(dict.fromkeys(names, 1.0), "mine"))
    assert [d.name for d in plan.drops] == going
    assert any("left in place: 'narrow'" in n for n in plan.made_by["notes"])


def test_a_branch_with_a_scale_behind_it_has_a_time() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(8, 8)
            self.scale = nn.LayerNorm(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.scale(self.mix(x))

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), Scaled(), Scaled(), nn.Linear(8, 2))
    anatomy = tonsor.inspect(net, torch.randn(2, 4))
    found = tonsor.blocks(anatomy, level="branch")
    assert [b.modules for b in found.removable] == [("1.mix", "1.scale"), ("2.mix", "2.scale")]
    table = block_table(anatomy, found, Bench(rounds=2), quiet=True)
    assert all(table[b.name].median_ms > 0 for b in found.removable)
