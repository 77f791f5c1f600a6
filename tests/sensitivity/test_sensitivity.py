"""What is measured is what a loop measures that cuts for real and judges all through."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tests.sensitivity.nets import NETS, made, validation
from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError, TonsorError, TrainError
from tonsor.sensitivity import Sensitivity, sensitivity
from tonsor.sensitivity.bench import Bench
from tonsor.sensitivity.reuse import Reuse
from tonsor.train import Batches, evaluate, open_data
from tonsor.train.data.source import Subset

FRACTIONS = (0.75, 0.4, 0.1)
EXAMPLE = torch.randn(2, 1, 8, 8)
EXACT = sorted(NETS.keys() - {"noisy"})  # chance comes otherwise in `evaluate`


def anatomy_of(name: str) -> Anatomy:
    return tonsor.inspect(made(name), EXAMPLE)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Reuse what is known even where that is slower, and tell how often."""
    from tonsor.sensitivity import reuse

    monkeypatch.setattr(reuse, "_now", lambda: 0.0)
    seen: list[Any] = []
    plain = reuse.run_from

    def counted(*given: Any) -> Any:
        seen.append(given[3].at)
        return plain(*given)

    monkeypatch.setattr(reuse, "run_from", counted)
    return seen


def check_against_a_loop(found: Sensitivity, anatomy: Anatomy, batches: Batches, by: str) -> None:
    base = evaluate(anatomy.model, batches)
    assert (found.base.correct, found.base.total) == (base.correct, base.total)
    for row in found.rows:
        plan = tonsor.plan(anatomy, by=by, ratios={row.group: row.fraction})
        slim = plan.apply(anatomy.model, verify=False)
        judged = evaluate(slim, batches)
        assert (row.judged.correct, row.judged.total) == (judged.correct, judged.total)
        assert row.judged.loss == pytest.approx(judged.loss, rel=1e-6)
        assert row.kept == plan.counts.get(row.group, row.size)
        assert row.params == sum(p.numel() for p in anatomy.model.parameters()) - sum(
            p.numel() for p in slim.parameters()
        )
        assert row.macs == anatomy.cost.macs() - anatomy.cost.macs(plan.counts)


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("memory", [0, 2**30])
def test_it_measures_what_a_loop_over_cut_models_measures(
    name: str, memory: int, always: list[Any]
) -> None:
    anatomy, batches = anatomy_of(name), validation()
    found = sensitivity(anatomy, batches, by="l2", fractions=FRACTIONS, memory=memory, quiet=True)
    assert set(found.groups) == {g.name for g in anatomy.prunable}
    assert len({row.judged for row in found.rows}) > 2  # or else nothing would be compared
    check_against_a_loop(found, anatomy, batches, "l2")
    reused = {"plain": 0, "residual": 3, "tokens": 2, "counting": 0, "steered": 0, "peeking": 0}
    assert len(set(always)) >= reused[name]


@pytest.mark.parametrize("name", NETS)
def test_what_is_reused_changes_no_bit(
    name: str, always: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    anatomy, batches = anatomy_of(name), validation()
    found = sensitivity(anatomy, batches, fractions=FRACTIONS, quiet=True)
    monkeypatch.setattr(Bench, "script", lambda self, inputs: None)
    again = sensitivity(anatomy, batches, fractions=FRACTIONS, quiet=True)
    assert found.rows == again.rows
    assert found.base == again.base
    assert bool(found.notes) == (name == "peeking")


def test_pretrained_resnet_on_real_images(data_dir: Path, always: list[Any]) -> None:
    data = open_data(f"cifar10:{data_dir / 'cifar10'}")
    batches = Batches(
        Subset(data.test, torch.arange(60)), size=40, mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225), shuffle=False, seed=0,
    )  # fmt: skip
    model = tonsor.zoo.load("resnet20", data_dir / "weights" / "cifar10_resnet20.safetensors")
    anatomy = tonsor.inspect(model, torch.randn(1, 3, 32, 32))
    names = ["conv1", "layer1.1.conv1", "layer2.0.conv1", "layer3.2.conv1"]
    found = sensitivity(anatomy, batches, fractions=(0.5,), groups=names, quiet=True)
    assert found.groups == tuple(f"{n}.weight[0]" for n in names)
    assert len(set(always)) == 3  # all but the first layer go on from what is known
    assert found.base.accuracy > 0.85
    assert found.lost(found.rows[0]) > 0.3  # the stream all through the network
    check_against_a_loop(found, anatomy, batches, "l1")


def test_the_model_is_left_alone(always: list[Any]) -> None:
    anatomy = anatomy_of("residual")
    model = anatomy.model.train()
    assert isinstance(model.norms, nn.ModuleList)
    model.norms[1].eval()
    model.stem.weight.grad = torch.ones_like(model.stem.weight)  # type: ignore[union-attr]
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    state = torch.get_rng_state()
    sensitivity(anatomy, validation(), fractions=FRACTIONS, quiet=True)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert torch.equal(model.stem.weight.grad, torch.ones_like(model.stem.weight))  # type: ignore
    assert torch.equal(torch.get_rng_state(), state)
    assert all(not p.is_shared() for p in model.parameters())


def test_data_in_another_order_each_time_is_not_mixed_up(always: list[Any]) -> None:
    class Turning:
        """Each pass begins with another minibatch."""

        turn = 0

        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            kept = list(validation(192).epoch(0))
            self.turn += 1
            return iter(kept[self.turn % 3 :] + kept[: self.turn % 3])

    anatomy = anatomy_of("residual")
    found = sensitivity(anatomy, Turning(), fractions=FRACTIONS, quiet=True)
    assert not found.notes
    wanted = sensitivity(anatomy, validation(192), fractions=FRACTIONS, quiet=True)
    for row, other in zip(found.rows, wanted.rows, strict=True):
        assert row.judged.correct == other.judged.correct
        assert row.judged.loss == pytest.approx(other.judged.loss, rel=1e-6)


def test_a_wrong_reuse_is_noticed_and_not_believed(
    always: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tonsor.sensitivity import reuse

    anatomy, batches = anatomy_of("residual"), validation()
    wanted = sensitivity(anatomy, batches, fractions=FRACTIONS, quiet=True)
    right = reuse.run_from
    monkeypatch.setattr(reuse, "run_from", lambda *given: right(*given) + 1e-3)
    found = sensitivity(anatomy, batches, fractions=FRACTIONS, quiet=True)
    assert found.rows == wanted.rows
    assert not wanted.notes
    assert any("other answers" in note for note in found.notes)


def test_a_model_that_looks_into_memory_is_run_all_through(always: list[Any]) -> None:
    found = sensitivity(anatomy_of("peeking"), validation(), fractions=(0.5,), quiet=True)
    assert found.notes
    assert all("without shortcuts" in note for note in found.notes)


# ---------------------------------------------------------------- what may be asked for


def test_a_fraction_too_near_to_all_of_a_small_group_is_the_whole_model() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 10))
    anatomy = tonsor.inspect(net, EXAMPLE)
    found = sensitivity(anatomy, validation(), fractions=(0.9, 0.6, 0.5, 0.01), quiet=True)
    assert [row.kept for row in found.rows] == [3, 2, 2, 1]
    assert found.rows[0].judged == found.base
    assert found.rows[0].macs == found.rows[0].params == 0
    assert found.rows[1].judged == found.rows[2].judged


def test_groups_that_go_together_are_cut_together_and_count_once() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = nn.Linear(64, 16)
            self.last = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            one, two = self.both(x.flatten(1)).chunk(2, 1)
            return self.last(one.relu() * two)

    torch.manual_seed(0)
    anatomy = tonsor.inspect(Halves(), EXAMPLE)
    found = sensitivity(anatomy, validation(), fractions=(0.5,), quiet=True)
    assert len(found.rows) == 1
    check_against_a_loop(found, anatomy, validation(), "l1")


def test_groups_without_a_score_are_skipped_and_named() -> None:
    anatomy = anatomy_of("residual")
    found = sensitivity(anatomy, validation(), by="bn_scale", fractions=(0.5,), quiet=True)
    assert len(found.groups) == 3
    assert len(found.skipped) == len(anatomy.prunable) - 3
    assert all(found.skipped.values())
    assert all(name in str(found) for name in found.skipped)


def test_names_choose_groups_and_unknown_ones_are_refused() -> None:
    anatomy = anatomy_of("residual")
    found = sensitivity(anatomy, validation(), groups=["left.*"], fractions=(0.5,), quiet=True)
    assert found.groups == tuple(f"left.{i}.weight[0]" for i in range(3))
    with pytest.raises(SelectionError, match="did you mean"):
        sensitivity(anatomy, validation(), groups=["lefd"], quiet=True)
    with pytest.raises(SelectionError, match="'linear' has nothing that may be cut"):
        sensitivity(anatomy, validation(), groups=["linear"], quiet=True)


def test_a_judge_of_ones_own() -> None:
    anatomy = anatomy_of("plain")

    def off_by_one(output: Tensor, target: Tensor) -> tuple[int, float, int]:
        return int((output.argmax(1) - target).abs().le(1).sum()), 2.0, len(target)

    found = sensitivity(anatomy, validation(), fractions=(0.5,), judge=off_by_one, quiet=True)
    usual = sensitivity(anatomy, validation(), fractions=(0.5,), quiet=True)
    assert found.base.correct > usual.base.correct
    assert found.base.loss == pytest.approx(3 * 2.0 / 150)
    with pytest.raises(TrainError, match="whole numbers"):
        sensitivity(anatomy, validation(), judge=lambda o, t: (0.5, 0.0, 2), quiet=True)
    with pytest.raises(TrainError, match="judge returned 7"):
        sensitivity(anatomy, validation(), judge=lambda o, t: 7, quiet=True)  # type: ignore


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fractions": (1.5,)}, "between 0 and 1"),
        ({"fractions": ()}, "nothing to try"),
        ({"processes": 0}, "at least 1"),
        ({"resume": True}, "say which"),
        ({"by": "l1l"}, "did you mean"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TonsorError, match=said):
        sensitivity(anatomy_of("plain"), validation(), quiet=True, **options)


def test_data_that_can_be_seen_only_once_or_not_at_all_is_refused() -> None:
    anatomy = anatomy_of("plain")
    with pytest.raises(TrainError, match=r"only once.*list\(batches\)"):
        sensitivity(anatomy, validation().epoch(0), quiet=True)
    with pytest.raises(TrainError, match="empty"):
        sensitivity(anatomy, [], quiet=True)
    with pytest.raises(TrainError, match="got a int"):
        sensitivity(anatomy, 3, quiet=True)  # type: ignore[arg-type]
    with pytest.raises(TrainError, match="judge=function"):
        sensitivity(anatomy, [(EXAMPLE, None)], quiet=True)


def test_reuse_is_given_up_where_it_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    from tonsor.sensitivity import reuse

    times = iter([0.0, 0.0, 0.0, 1.0, 3.0])  # asked, state known, begun, plain done, reused
    monkeypatch.setattr(reuse, "_now", lambda: next(times))
    anatomy = anatomy_of("residual")
    bench = Bench(anatomy.model, validation(), lambda o, t: (0, 0, 0), 0)
    inputs = tonsor.Inputs(torch.randn(4, 1, 8, 8))
    way = Reuse(bench, ["left.2.weight"], 1)
    with torch.no_grad():
        way.output(0, bench.whole, inputs)
    assert way.given_up
    assert not way.note


def test_what_cannot_be_kept_is_computed_again(
    always: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tonsor.sensitivity import replay

    anatomy, batches = anatomy_of("residual"), validation()
    wanted = sensitivity(anatomy, batches, fractions=(0.5,), quiet=True)

    def refusing(tensors: Any) -> Any:
        message = "no room"
        raise RuntimeError(message)

    monkeypatch.setattr(replay, "copied", refusing)
    found = sensitivity(anatomy, batches, fractions=(0.5,), quiet=True)
    assert found.rows == wanted.rows
    assert all("could not be kept" in note for note in found.notes)
    assert len(found.notes) == 3
