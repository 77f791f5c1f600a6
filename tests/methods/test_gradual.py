from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.methods.nets import batches, drive, residual, sgd
from tests.refusals import said
from tonsor.anatomy import inspect
from tonsor.criteria.score import score
from tonsor.errors import (
    BudgetError,
    CheckpointError,
    ScoreError,
    SelectionError,
    TrainError,
)
from tonsor.methods.gradual import Gradual
from tonsor.plans import Plan
from tonsor.select.make import plan
from tonsor.select.skew import skewed

PIECES = 36  # 12 of the residual stream, 24 inside


def gone(decided: Plan | None) -> dict[str, set[int]]:
    if decided is None:
        return {}
    sizes = decided.sizes
    return {n: set(range(sizes[n])) - set(k) for n, k in decided.keep.items()}


def removed(anatomy: Any, decided: Plan | None) -> dict[str, Tensor]:
    """Which entries of each parameter go."""
    out = {}
    for name, kept in (decided.cut().keep if decided is not None else {}).items():
        if name in anatomy.parameters:
            mask = torch.zeros_like(anatomy.parameters[name], dtype=torch.bool)
            for dim, indices in enumerate(kept):
                if indices is not None:
                    lost = sorted(set(range(mask.shape[dim])) - set(indices))
                    mask.index_fill_(dim, torch.tensor(lost), True)
            out[name] = mask
    return out


# ---------------------------------------------------------------- rounds


@pytest.mark.parametrize("by", ["l2", "bn_scale", "taylor_weight", "taylor_bn"])
@pytest.mark.parametrize("schedule", ["iterative:5/3", "fraction:0.25/3", "ramp:4/3", "one-shot"])
def test_more_goes_in_each_round_until_the_budget_is_met(schedule: str, by: str) -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, by=by, budget="macs=60%", schedule=schedule)
    seen: list[dict[str, set[int]]] = [{}]

    def watch(step: int) -> None:
        now = gone(method.plan)
        assert all(now[name] >= before for name, before in seen[-1].items())
        seen.append(now)
        for name, mask in removed(anatomy, method.plan).items():
            assert not anatomy.parameters[name][mask].any(), name

    drive(net, method, batches(36), watch=watch)
    assert method.over
    decided = method.finish()
    assert gone(decided) == seen[-1]
    assert decided.made_by["reached"] <= decided.made_by["limit"]
    assert 0.5 < anatomy.cost.macs(decided.counts) / anatomy.cost.macs() <= 0.6
    assert decided.made_by["schedule"] == schedule
    assert decided.made_by["rounds"] == len(method.history)
    assert decided.made_by["by"] == by
    assert [r.number for r in method.history] == list(range(1, len(method.history) + 1))
    assert method.history[-1].macs == anatomy.cost.macs(decided.counts)


@pytest.mark.parametrize("by", ["l2", "taylor_weight"])
def test_a_round_takes_exactly_so_many_pieces(by: str) -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, by=by, budget="pieces=20", schedule="iterative:3/4")
    drive(net, method, batches(40))
    assert [r.left for r in method.history] == [33, 30, 27, 24, 21, 20]
    assert [r.gone for r in method.history] == [PIECES - r.left for r in method.history]
    assert [r.step for r in method.history] == [3, 7, 11, 15, 19, 23]


def test_a_fraction_is_of_what_is_left() -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, budget="pieces=12", schedule="fraction:0.3/2", floor=1)
    drive(net, method, batches(20))
    assert [r.left for r in method.history] == [26, 19, 14, 12]


@pytest.mark.parametrize("target", ["macs=40%", "params=50%", "pieces=18", "spp_speedup=2x"])
def test_a_ramp_meets_its_aim_in_each_round(target: str) -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, budget=target, schedule="ramp:5/2,power=2", floor=1)
    met = []

    def watch(step: int) -> None:
        if step % 2 and step < 10:
            assert method.plan is not None
            met.append(dict(method.plan.made_by))

    drive(net, method, batches(12), watch=watch)
    goal = met[-1]["limit"]
    whole = {"macs": anatomy.cost.macs(), "params": anatomy.cost.params()}.get(
        target.split("=")[0], PIECES if "pieces" in target else 1.0
    )
    speedup = "speedup" in target
    low, high = (1 / whole, 1 / goal) if speedup else (whole, goal)
    for t, made in enumerate(met, 1):
        aim = low - (low - high) * (1 - (1 - t / 5) ** 2)
        reached = 1 / made["reached"] if speedup else made["reached"]
        assert reached <= aim * (1 + 1e-6)
        assert reached >= aim - 0.06 * low  # one piece of the dearest kind
    assert len(method.history) == 5
    assert method.over


@pytest.mark.parametrize("by", ["l2", "taylor_weight", "taylor_gate", "fisher", "mean_map"])
def test_one_shot_is_the_plan_at_once(by: str) -> None:
    net, anatomy = residual()
    net.eval()  # or the first minibatch would have moved the statistics of the norms
    shown = batches(3, seed=5)
    once = plan(anatomy, "macs=50%", by=by, batches=shown, quiet=True)
    method = Gradual(net, anatomy, by=by, budget="macs=50%", schedule="one-shot", batches=shown)
    drive(net, method, batches(3))
    assert method.finish().keep == once.keep
    assert [(r.number, r.step) for r in method.history] == [(1, 0)]


# ---------------------------------------------------------------- what is masked


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_momentum_and_decay_do_not_move_what_is_gone(optimizer: type) -> None:
    net, anatomy = residual()
    given: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.01}
    if optimizer is torch.optim.SGD:
        given["momentum"] = 0.9
    method = Gradual(net, anatomy, budget="macs=50%", schedule="ramp:1/4")
    moving = optimizer(net.parameters(), **given)
    drive(net, method, batches(4), optimizer=moving)
    masks = removed(anatomy, method.plan)
    key = "momentum_buffer" if optimizer is torch.optim.SGD else "exp_avg"

    def size() -> float:
        return sum(
            float(moving.state[anatomy.parameters[n]][key][m].abs().sum()) for n, m in masks.items()
        )

    before = size()
    assert before > 0
    drive(net, method, batches(30, seed=3), optimizer=moving, first=4)
    assert size() < 0.9**29 * before * 1.5  # nothing new has come in
    for name, mask in masks.items():
        assert mask.any()
        assert not anatomy.parameters[name][mask].any()
        assert anatomy.parameters[name][~mask].all()


def test_the_masked_model_is_the_slim_one() -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, by="taylor_weight", budget="macs=40%", schedule="iterative:4/2")
    drive(net, method, batches(30))
    net.eval()
    slim = method.finish().apply(net)  # proves itself against the masked one
    x = torch.randn(8, 1, 8, 8, dtype=torch.float64)
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in net.parameters())
    torch.testing.assert_close(slim.double()(x), net.double()(x), rtol=1e-12, atol=1e-12)


class Attention(nn.Module):
    """A block of a transformer, whose heads and hidden width may be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, 4)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.down(F.gelu(self.up(self.norm(x + self.out(mixed))))).mean(1)


def test_heads_go_too() -> None:
    torch.manual_seed(0)
    net = Attention()
    anatomy = inspect(net, torch.randn(2, 5, 16))
    method = Gradual(
        net, anatomy, by="taylor_weight", budget="params=60%", schedule="ramp:3/2",
        keep=["norm"], rank="per_group", floor=1,
    )  # fmt: skip
    data = [(torch.randn(4, 5, 16), torch.randint(0, 10, (4,))) for _ in range(8)]
    drive(net, method, data)
    assert any(anatomy.by_name[n].kind == "heads" for n in method.finish().keep)
    slim = method.finish().apply(net)
    x = torch.randn(3, 5, 16)
    torch.testing.assert_close(slim(x), net(x))


def test_gradients_are_masked_before_the_optimizer_sees_them() -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, budget="macs=50%", schedule="one-shot")
    images, labels = batches(1)[0]
    F.cross_entropy(net(images), labels).backward()
    before = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    method.before_step(0)
    for name, mask in removed(anatomy, method.plan).items():
        grad = anatomy.parameters[name].grad
        assert grad is not None
        assert not grad[mask].any()
        assert torch.equal(grad[~mask], before[name][~mask])


def test_what_is_gone_stays_gone_whatever_its_score(monkeypatch: pytest.MonkeyPatch) -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, budget="pieces=18", schedule="iterative:3/1,smoothing=0")
    whims = iter(range(100))
    monkeypatch.setattr(method._scores, "_new", lambda: score(anatomy, "random", seed=next(whims)))
    before: dict[str, set[int]] = {}
    for step, batch in enumerate(batches(6)):
        drive(net, method, [batch], first=step)
        now = gone(method.plan)
        assert sum(len(lost) for lost in now.values()) == 3 * (step + 1)
        assert all(now[name] >= lost for name, lost in before.items())
        before = now


# ---------------------------------------------------------------- scores


def test_gradients_of_training_are_averaged_between_rounds() -> None:
    net, anatomy = residual()
    data = batches(3)
    method = Gradual(
        net, anatomy, by="taylor_weight", budget="pieces=30", schedule="iterative:3/3",
        combine="producer",
    )  # fmt: skip
    shown: list[Tensor] = []
    real = method.before_step

    def before_step(step: int) -> None:
        weight = net.get_parameter("first.weight")
        assert weight.grad is not None
        shown.append((weight.detach() * weight.grad).square().sum((1, 2, 3)).double())
        real(step)

    method.before_step = before_step  # type: ignore[method-assign]
    drive(net, method, data)
    assert method._scores.last is not None
    ours = torch.from_numpy(method._scores.last["first.weight[0]"])
    torch.testing.assert_close(ours, torch.stack(shown).mean(0), rtol=1e-6, atol=0.0)


def test_a_minibatch_without_numbers_does_not_count() -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, by="taylor_weight", budget="pieces=30", schedule="iterative:3/9")
    data = batches(2)
    drive(net, method, data[:1])
    before = method._scores.look()
    images, labels = data[1]
    F.cross_entropy(net(images), labels).backward()
    weight = net.get_parameter("second.weight")
    assert weight.grad is not None
    weight.grad[0, 0, 0, 0] = float("inf")
    method.before_step(1)
    after = method._scores.look()
    assert all((after[n] == before[n]).all() for n in before.values)


# ---------------------------------------------------------------- options of plan


def test_the_options_of_plan_hold_in_each_round() -> None:
    net, anatomy = residual()
    method = Gradual(
        net, anatomy, budget="pieces=15", schedule="iterative:2/1", keep=[net.stem], round_to=2,
        floor=10,
    )  # fmt: skip
    drive(net, method, batches(40))
    kept = method.finish().counts
    assert kept == {"first.weight[0]": 14}
    assert [r.left for r in method.history] == [22, 20, 18, 16, 14]
    net, anatomy = residual()
    method = Gradual(net, anatomy, ratios={"first": 0.5}, schedule="iterative:2/1")
    drive(net, method, batches(3))
    assert method.finish().counts == {"first.weight[0]": 12}
    assert [r.gone for r in method.history] == [12]


def test_what_is_skipped_is_decided_once_and_for_a_resumed_run_too() -> None:
    net, anatomy = residual()
    with torch.no_grad():  # a long tail to the right
        net.first.weight.mul_(1 + torch.arange(24.0).exp()[:, None, None, None] / 1e9)
    first = score(anatomy, "l2", combine="producer")
    assert list(skewed(first, 1.0)) == ["first.weight[0]"]
    options: dict[str, Any] = {
        "budget": "macs=80%", "schedule": "iterative:1/1", "skew": 1.0, "combine": "producer",
    }  # fmt: skip
    method = Gradual(net, anatomy, **options)
    drive(net, method, batches(1))
    again = Gradual(net, anatomy, **options)
    again.load_state_dict(method.state_dict())
    with torch.no_grad():  # by now it would not be skipped
        net.first.weight.copy_(1e-3 * torch.rand(24)[:, None, None, None])
    assert not skewed(score(anatomy, "l2", combine="producer"), 1.0)
    drive(net, again, batches(20), first=1)
    assert again.over
    assert list(again.finish().keep) == ["stem.weight[0]"]


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("steps", [0, 1, 3, 7])
def test_what_is_left_at_the_end_is_cut_at_once_and_said(steps: int) -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, budget="macs=40%", schedule="iterative:3/3")
    drive(net, method, batches(steps))
    assert not method.over
    before, last = gone(method.plan), method._scores.last
    decided = method.finish()
    assert method._scores.last is last  # asking changes nothing
    assert all(gone(decided)[n] >= lost for n, lost in before.items())
    assert decided.made_by["reached"] <= decided.made_by["limit"]
    (note,) = [n for n in decided.made_by["notes"] if "at once" in n]
    assert f"ended after {steps // 3} rounds" in note
    total = sum(len(lost) for lost in gone(decided).values())
    assert f"{total - 3 * (steps // 3)} pieces" in note
    decided.apply(net.eval())
    assert method.finish() == decided


def test_an_end_without_any_gradient_is_told() -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, by="taylor_weight", budget="macs=40%", schedule="iterative:3/3")
    assert "no minibatch has shown a finite gradient" in said(ScoreError, method.finish)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"schedule": "soft:3"}, SelectionError, "done by Soft"),
        ({"schedule": "now"}, SelectionError, "no schedule is called 'now'"),
        ({"budget": "macs=1%"}, BudgetError, "can't be met"),
        ({"budget": "latency=50%"}, BudgetError, "can't be followed while training"),
        ({"budget": None}, BudgetError, "how much to keep"),
        ({"by": "hrank"}, SelectionError, "batches=..."),
        ({"by": "hrank", "batches": iter([])}, SelectionError, "spent after"),
        ({"by": "l3"}, SelectionError, "l3"),
        ({"combine": "median"}, SelectionError, "combine"),
        ({"keep": ["nothing"]}, SelectionError, "nothing in the model"),
    ],
)
def test_what_can_not_be_done_is_refused_before_training(
    options: dict[str, Any], error: type, words: str
) -> None:
    net, anatomy = residual()
    given = {"budget": "macs=50%", "schedule": "one-shot", **options}
    assert words in said(error, lambda: Gradual(net, anatomy, **given))


def test_models_that_it_could_not_prune_are_refused() -> None:
    net, anatomy = residual()
    other, _ = residual()
    given: dict[str, Any] = {"budget": "macs=50%", "schedule": "iterative:3/3"}
    words = said(SelectionError, lambda: Gradual(other, anatomy, **given))
    assert "made of another Residual" in words
    nn.utils.parametrizations.weight_norm(net.first)
    anatomy = inspect(net, torch.zeros(2, 1, 8, 8))
    assert "weight norm" in said(SelectionError, lambda: Gradual(net, anatomy, **given))
    net, anatomy = residual()
    net.second.requires_grad_(False)
    given["by"] = "taylor_weight"
    words = said(ScoreError, lambda: Gradual(net, anatomy, **given))
    assert "'second.weight' does not train" in words
    free = Gradual(net, anatomy, **{**given, "by": "l2"})
    drive(net, free, batches(4))
    assert free.history[0].gone == 3


def test_parameters_that_were_replaced_are_noticed() -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, budget="macs=50%", schedule="iterative:3/3")
    net.first.weight = nn.Parameter(net.first.weight.detach().clone())
    assert "'first.weight' is no longer" in said(TrainError, lambda: drive(net, method, batches(1)))


# ---------------------------------------------------------------- going on


def options(by: str, schedule: str) -> dict[str, Any]:
    given: dict[str, Any] = {"by": by, "budget": "macs=45%", "schedule": schedule, "skew": 3.0}
    if by == "taylor_gate":
        given["batches"] = batches(2, seed=9)
    return given


@pytest.mark.parametrize("stop", [0, 1, 5, 6, 11])
@pytest.mark.parametrize("by", ["l2", "taylor_weight", "taylor_gate"])
@pytest.mark.parametrize("schedule", ["iterative:4/3", "ramp:3/3,smoothing=0.7", "one-shot"])
def test_a_method_goes_on_as_if_it_had_not_been_stopped(by: str, schedule: str, stop: int) -> None:
    data = batches(16)
    net, anatomy = residual()
    whole = Gradual(net, anatomy, **options(by, schedule))
    drive(net, whole, data)
    ended, anatomy2 = residual()
    first = Gradual(ended, anatomy2, **options(by, schedule))
    optimizer = drive(ended, first, data[:stop])
    again, anatomy3 = residual(seed=4)
    again.load_state_dict(ended.state_dict())
    second = Gradual(again, anatomy3, **options(by, schedule))
    moving = sgd(again)
    moving.load_state_dict(optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    drive(again, second, data[stop:], optimizer=moving, first=stop)
    assert second.history == whole.history
    assert second.finish() == whole.finish()
    for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_another_method_is_not_gone_on_from() -> None:
    net, anatomy = residual()
    state = Gradual(net, anatomy, budget="macs=50%", schedule="one-shot").state_dict()
    other = Gradual(net, anatomy, budget="macs=40%", schedule="one-shot")
    words = said(CheckpointError, lambda: other.load_state_dict(state))
    assert "budget='macs=50%', now it is 'macs=40%'" in words


def test_an_average_of_weights_is_masked_when_it_is_put_back() -> None:
    net, anatomy = residual()
    method = Gradual(net, anatomy, budget="macs=50%", schedule="one-shot")
    average = copy.deepcopy(net.state_dict())
    drive(net, method, batches(3))
    state = method.state_dict()
    net.load_state_dict(average)
    method.load_state_dict(state)
    for name, mask in removed(anatomy, method.plan).items():
        assert not anatomy.parameters[name][mask].any()
