"""Recovery says what each step won, and leaves nothing half done."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.recover.nets import cut, data, same, settled, state
from tonsor import zoo
from tonsor.errors import DataError, RecoverError, SelectionError
from tonsor.recover import recalibrate, recover
from tonsor.recover.distance import distances
from tonsor.recover.recover import Step
from tonsor.train import Batches, Recipe, calibrate, fit, open_data, split
from tonsor.train.data import Memory, Subset


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return settled(nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6),
        nn.ReLU(), nn.Flatten(), nn.Linear(96, 4),
    ))  # fmt: skip


def labelled(seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    batches = data((7, 3, 8, 8), (4, 3, 8, 8), (7, 3, 8, 8), seed=seed)
    return [(x, torch.randint(4, (len(x),), generator=generator)) for x, _ in batches]


@torch.no_grad()
def answers(model: nn.Module, batches: list[tuple[Tensor, Any]]) -> Tensor:
    return torch.cat([model(x) for x, _ in batches])


# ---------------------------------------------------------------- distances


def test_distances_are_those_of_all_answers_at_once() -> None:
    one, other, batches = net(), net(1), labelled()
    own, (apart, none) = distances(one, [other, one], batches)
    wanted, got = answers(one, batches), answers(other, batches)
    labels = torch.cat([y for _, y in batches])
    spread = ((wanted - wanted.mean(0)) ** 2).mean()
    assert apart.error == pytest.approx(float(((got - wanted) ** 2).mean() / spread))
    p, q = wanted.softmax(1), got.softmax(1)
    divergence = float((p * (p / q).log()).sum(1).mean())
    assert apart.divergence == pytest.approx(divergence)
    assert apart.agreement == float((wanted.argmax(1) == got.argmax(1)).double().mean())
    assert own is not None
    assert apart.evaluation is not None
    assert own.accuracy == float((wanted.argmax(1) == labels).double().mean())
    assert apart.evaluation.accuracy == float((got.argmax(1) == labels).double().mean())
    assert apart.evaluation.loss == pytest.approx(float(F.cross_entropy(got, labels)))
    assert (none.error, none.divergence, none.agreement) == (0, pytest.approx(0, abs=1e-12), 1)
    assert apart.samples == len(labels)


def test_the_mean_answer_has_an_error_of_one() -> None:
    class Constant(nn.Module):
        def __init__(self, value: Tensor) -> None:
            super().__init__()
            self.value = nn.Parameter(value)

        def forward(self, x: Tensor) -> Tensor:
            return self.value.expand(len(x), -1)

    one, batches = net(), labelled()
    _, (apart,) = distances(one, [Constant(answers(one, batches).mean(0))], batches)
    assert apart.error == pytest.approx(1)


@pytest.mark.parametrize("labels", [None, torch.zeros(6), torch.full((6,), 4), torch.zeros(3)])
def test_targets_that_are_no_classes_are_not_judged(labels: Tensor | None) -> None:
    one = net()
    own, (apart,) = distances(one, [one], [(data((6, 3, 8, 8))[0][0], labels)])
    assert own is None
    assert apart.evaluation is None
    assert apart.to_json()["accuracy"] is None


def test_outputs_that_are_no_scores_have_an_error_only() -> None:
    one = nn.Conv2d(3, 4, 1).double()
    other = copy.deepcopy(one)
    with torch.no_grad():
        other.bias.add_(0.5)  # type: ignore[union-attr]
    batches = data((2, 3, 5, 5), (3, 3, 6, 4))
    _, (apart,) = distances(one, [other], batches)
    rows = torch.cat([one(x).detach().movedim(1, -1).flatten(0, -2) for x, _ in batches])
    assert apart.error == pytest.approx(
        0.25 * rows.numel() / float(((rows - rows.mean(0)) ** 2).sum())
    )
    assert (apart.divergence, apart.agreement) == (None, None)


def test_outputs_of_other_shapes_are_refused() -> None:
    batches = data((2, 3))
    with pytest.raises(RecoverError, match="can't be compared"):
        distances(nn.Linear(3, 4).double(), [nn.Linear(3, 5).double()], batches)
    with pytest.raises(DataError, match="no minibatch"):
        distances(nn.Linear(3, 4), [], [])


# ---------------------------------------------------------------- new statistics


def test_statistics_are_those_of_calibration() -> None:
    source = Memory(
        torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8), torch.zeros(40).long(), ("0",)
    )
    batches = Batches(source, size=8, mean=(0.5,) * 3, std=(0.5,) * 3, shuffle=False, seed=0)
    model = net().float()
    one, other = copy.deepcopy(model), copy.deepcopy(model).train()
    tracked = other.get_buffer("1.num_batches_tracked").clone()
    calibrate(one, batches)
    done = recalibrate(None, other, batches)
    assert same(state(one), state(other))
    assert (done.norms, done.batches, done.before) == (2, 5, None)
    assert done.moved > 0
    assert other.training
    assert torch.equal(other.get_buffer("1.num_batches_tracked"), tracked)
    assert recalibrate(None, other, batches).moved < 1e-6


def test_what_new_statistics_win_is_told() -> None:
    model, batches = net(), labelled()
    calibrate_like_training(model, batches)
    _, _, slim = cut(model, batches[0][0])
    before = copy.deepcopy(slim)
    done = recalibrate(model, slim, batches, held_out=iter(labelled(1)))
    _, (was, now) = distances(model, [before, slim], labelled(1))
    assert (done.before, done.after, done.held_out) == (was, now, True)
    assert json.loads(json.dumps(done.to_json()))["after"]["error"] == now.error
    assert f"{now.error:.4g}" in str(done)


def calibrate_like_training(model: nn.Module, batches: list[tuple[Tensor, Any]]) -> None:
    recalibrate(None, model, batches)


def test_a_model_without_statistics_is_left_alone() -> None:
    model = nn.Linear(3, 2)
    done = recalibrate(None, model, [])
    assert (done.norms, done.batches) == (0, 0)
    assert "nothing to take anew" in str(done)
    with pytest.raises(DataError, match="batches is empty"):
        recalibrate(None, net(), [])


# ---------------------------------------------------------------- all steps


def test_every_step_is_judged_on_what_it_left() -> None:
    model, batches, held = net(), labelled(), labelled(1)
    anatomy, plan, slim = cut(model, batches[0][0])
    done = recover(model, slim, plan, anatomy, batches, held_out=held)
    assert list(done.stages) == ["cut", "compensate", "batchnorm"]
    again = plan.apply(model, verify=False)
    alone: tuple[tuple[Step], ...] = (("compensate",), ("batchnorm",))
    for how in alone:
        # One after the other gives the same as both at once.
        step = recover(model, again, plan, anatomy, batches, how=how, held_out=held)
        assert list(step.stages.values())[-1] == done.stages[how[0]]
    assert same(state(again), state(slim))
    own, (last,) = distances(model, [slim], held)
    assert last == done.stages["batchnorm"]
    assert own == done.original
    assert "held_out" not in "".join(done.notes)


def test_the_report_is_a_table_and_plain_data() -> None:
    model, batches = net(), labelled()
    anatomy, plan, slim = cut(model, batches[0][0])
    done = recover(model, slim, plan, anatomy, batches)
    text = str(done)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["original", "cut", "+", "+"]
    assert f"{done.stages['compensate'].error:.4g}" in lines[4]
    assert str(done.original) in lines[2]
    assert "the very batches" in text
    found = json.loads(json.dumps(done.to_json()))
    assert found["stages"]["cut"]["error"] == done.stages["cut"].error
    assert found["compensated"]["changed"] == dict(
        done.compensated.changed if done.compensated else {}
    )
    assert found["original"]["total"] == 18
    assert not found["held_out"]


def test_a_step_that_hurts_is_told() -> None:
    model, batches = net(), labelled()
    anatomy, plan, slim = cut(model, batches[0][0])
    far = [(x * 20 + 50, None) for x, _ in batches]
    done = recover(model, slim, plan, anatomy, far, held_out=batches, how=("batchnorm",))
    assert done.stages["batchnorm"].error > done.stages["cut"].error
    assert any("'batchnorm' made the error larger" in note for note in done.notes)


def test_should_anything_fail_the_slim_model_is_as_it_was() -> None:
    model, batches = net(), labelled()
    anatomy, plan, slim = cut(model, batches[0][0])
    slim.train()
    before, own, chance = state(slim), state(model), torch.get_rng_state()

    def broken() -> Iterator[Any]:
        torch.rand(3)
        yield batches[0]
        message = "the disk is gone"
        raise OSError(message)

    with pytest.raises(OSError, match="the disk is gone"):
        recover(model, slim, plan, anatomy, batches, held_out=broken())
    with pytest.raises(OSError, match="the disk is gone"):
        recover(model, slim, plan, anatomy, broken())
    assert same(state(slim), before)
    assert same(state(model), own)
    assert slim.training
    assert not model.training
    assert torch.equal(torch.get_rng_state(), chance)


def test_an_iterator_is_gone_through_once_for_all_steps() -> None:
    model, batches = net(), labelled()
    anatomy, plan, slim = cut(model, batches[0][0])
    again = copy.deepcopy(slim)
    endless = itertools.cycle(batches)
    one = recover(model, slim, plan, anatomy, endless, at_most=2)
    other = recover(model, again, plan, anatomy, batches[:2])
    assert one == other
    assert same(state(slim), state(again))


def test_a_plan_that_cuts_nothing_is_no_distance_away() -> None:
    model, batches = net(), labelled()
    anatomy, plan, slim = cut(model, batches[0][0], budget="params=100%")
    done = recover(model, slim, plan, anatomy, batches, how=("compensate",))
    assert {d.error for d in done.stages.values()} == {0.0}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (("pray",), "'pray' is no step"),
        (("batchnorm", "batchnorm"), "twice"),
        (("batchnorm", "compensate"), "compensate first"),
    ],
)
def test_steps_that_make_no_sense_are_refused(how: Any, said: str) -> None:
    model, batches = net(), labelled()
    anatomy, plan, slim = cut(model, batches[0][0])
    before = state(slim)
    with pytest.raises(SelectionError, match=said):
        recover(model, slim, plan, anatomy, batches, how=how)
    assert same(state(slim), before)


# ---------------------------------------------------------------- trained networks


def test_without_batchnorm_compensation_wins_where_new_statistics_can_not(tmp_path: Path) -> None:
    splits = split(open_data("digits"), validation=300, seed=0)
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    fit(
        model, splits, Recipe(epochs=8, batch=32, lr=0.03), folder=tmp_path, board=False, quiet=True
    )
    model.eval()
    anatomy, plan, slim = cut(
        model, torch.randn(1, 1, 8, 8), budget="macs=50%", by="l1", rank="per_group"
    )
    given = {"mean": splits.mean, "std": splits.std, "shuffle": False, "seed": 0}
    calibration = Batches(splits.train, size=100, **given)
    held = Batches(splits.validation, size=100, **given)
    done = recover(model, slim, plan, anatomy, calibration, held_out=held, quiet=True)
    before, after = done.stages["cut"], done.stages["compensate"]
    assert after.error < 0.9 * before.error
    assert (after.divergence or 1) < 0.8 * (before.divergence or 0)
    assert before.evaluation is not None
    assert after.evaluation is not None
    assert after.evaluation.accuracy > before.evaluation.accuracy
    assert done.stages["batchnorm"] == after
    assert any("no BatchNorm" in note for note in done.notes)


def test_trained_resnet_gets_most_of_its_answers_back(data_dir: Path) -> None:
    cifar = open_data(f"cifar10:{data_dir / 'cifar10'}")
    model = zoo.load("resnet20", data_dir / "weights" / "cifar10_resnet20.safetensors")
    given = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "shuffle": False}
    calibration = Batches(Subset(cifar.train, torch.arange(1000)), size=200, seed=0, **given)
    held = Batches(Subset(cifar.test, torch.arange(500)), size=250, seed=0, **given)
    anatomy = tonsor.inspect(model, torch.randn(1, 3, 32, 32))
    plan = tonsor.plan(anatomy, "macs=50%", by="l1", rank="per_group")
    slim = plan.apply(model, verify=False)
    done = recover(model, slim, plan, anatomy, calibration, held_out=held, quiet=True)
    was, helped, last = done.stages.values()
    assert helped.error < was.error
    assert last.error < 0.5 * was.error
    assert last.agreement is not None
    assert was.agreement is not None
    assert last.agreement > was.agreement + 0.2
    assert done.compensated is not None
    assert not done.compensated.left
