"""What weights, odds and masks learn from, and what leaves which of them alone."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.methods.lfpc.pictures import begun, drive, masks, other, pictures, sgd
from tests.refusals import said
from tonsor.errors import SelectionError, TrainError
from tonsor.methods.lfpc import LearnedCriteria, Search

FAST = Search(lr=0.1)


def odds(method: LearnedCriteria) -> list[Tensor]:
    return [method.sampler.theta.detach().clone(), method.sampler.beta.detach().clone()]


def state(net: Any, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All that training has: weights, statistics, gradients, and what the optimizer remembers."""
    found = [t.clone() for t in net.state_dict().values()]
    found += [p.grad.clone() for p in net.parameters() if p.grad is not None]
    for mine in optimizer.state.values():
        found += [v.clone() for v in mine.values() if isinstance(v, Tensor)]
    return found


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


def stepped(net: Any, method: LearnedCriteria, optimizer: Any, step: int, batch: Any) -> None:
    """One step of the weights, without what the method does after it."""
    F.cross_entropy(net(batch[0]), batch[1]).backward()
    method.before_step(step)
    optimizer.step()


@pytest.mark.parametrize("masked", ["soft", "straight"])
@pytest.mark.parametrize("kind", ["residual", "chain"])
def test_a_step_of_the_odds_changes_nothing_else(kind: str, masked: Any) -> None:
    net, method = begun(kind, search=FAST.but(masks=masked))
    optimizer = sgd(net)
    for step, batch in enumerate(pictures(14)):
        stepped(net, method, optimizer, step, batch)
        before, was = state(net, optimizer), odds(method)
        method.after_step(step)
        assert equal(state(net, optimizer), before)
        assert equal(odds(method), was) == (step >= method.steps)
        assert all(module.training for module in net.modules())
        optimizer.zero_grad()


def test_odds_learn_where_norms_are_frozen() -> None:
    """Norms that stay in evaluation mode are masked by what was drawn all the same."""
    net, method = begun("residual", search=FAST.but(tolerance=1.0))  # so that the loss says all
    net.train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    was, optimizer = odds(method), sgd(net)
    stepped(net, method, optimizer, 0, pictures(1)[0])
    method.after_step(0)
    assert not any(map(torch.equal, odds(method), was))


def test_a_step_of_the_weights_does_not_change_the_odds() -> None:
    net, method = begun()
    optimizer = sgd(net)
    for step, batch in enumerate(pictures(5)):
        was = odds(method)
        weights = [p.detach().clone() for p in net.parameters()]
        stepped(net, method, optimizer, step, batch)
        assert equal(odds(method), was)
        assert not equal([p.detach() for p in net.parameters()], weights)
        optimizer.zero_grad()
        method.after_step(step)


def test_odds_learn_from_their_own_batches_only() -> None:
    """Where weights stay, the images of the weights are nothing to the odds."""
    found = []
    for seed in (1, 2):
        net, method = begun(search=FAST.but(train_weights=False))
        drive(net, method, pictures(8, seed=seed))
        found.append(odds(method))
    assert equal(*found)
    net, method = begun(search=FAST.but(train_weights=False), batches=pictures(3, seed=77))
    drive(net, method, pictures(8, seed=1))
    assert not equal(odds(method), found[0])


def test_without_training_all_weights_stay_as_they_are() -> None:
    net, method = begun(search=FAST.but(train_weights=False))
    weights = [p.detach().clone() for p in net.parameters()]
    optimizer = drive(net, method, pictures(11))
    assert equal([p.detach() for p in net.parameters()], weights)
    assert not any(mine for mine in optimizer.state.values())
    first = method.decided
    drive(net, method, pictures(4), optimizer=optimizer, first=11)
    assert first is None
    assert method.over
    assert not equal([p.detach() for p in net.parameters()], weights)  # training goes on then


@pytest.mark.parametrize("turns", ["together", "criteria first", "rates first"])
def test_criteria_and_rates_take_their_turns(turns: Any) -> None:
    net, method = begun(search=FAST.but(turns=turns), steps=10)
    seen = [odds(method)]
    drive(net, method, pictures(10), watch=lambda step: seen.append(odds(method)))
    for step in range(10):
        moved = [not torch.equal(a, b) for a, b in zip(seen[step], seen[step + 1], strict=True)]
        early = {"criteria first": [True, False], "rates first": [False, True]}
        late = {"criteria first": [False, True], "rates first": [True, False]}
        wanted = (early if step < 5 else late).get(turns, [True, True])
        assert moved == wanted


def test_scores_are_taken_anew_after_so_many_steps() -> None:
    net, method = begun(search=FAST.but(refresh=3))
    seen = [[r.clone() for r in method.sites.state()]]

    def watch(step: int) -> None:
        with torch.no_grad():  # so that other filters are the largest each time
            net.first.weight.copy_(torch.randn_like(net.first.weight))
        seen.append([r.clone() for r in method.sites.state()])

    drive(net, method, pictures(10), watch=watch)
    changed = [not equal(a, b) for a, b in itertools.pairwise(seen)]
    assert changed[1:] == [False, False, True] * 3


@pytest.mark.parametrize("begin", ["budget", "even"])
def test_the_odds_begin_by_the_budget_or_even(begin: Any) -> None:
    _, method = begun("chain", search=FAST.but(begin=begin), budget="macs=40%")
    with torch.no_grad():
        likely = method.sampler.odds()
        cost = float(method._expected(method.sites.masks(likely.criteria, likely.rates)))
    assert torch.allclose(likely.criteria, torch.full_like(likely.criteria, 1 / 3))
    if begin == "even":
        assert torch.allclose(likely.rates, torch.full_like(likely.rates, 1 / 8))
        assert cost != pytest.approx(method.target, rel=0.01)
    else:
        assert cost == pytest.approx(method.target, rel=1e-9)
        assert (likely.rates == likely.rates[:1]).all()


# ---------------------------------------------------------------- criteria that are not learned


def test_criteria_are_drawn_once_by_the_seed() -> None:
    found = set()
    for seed in range(8):
        net, method = begun("chain", choice="random", seed=seed)
        first = method.sampler.odds().criteria.clone()
        assert bool(((first == 0) | (first == 1)).all())
        drive(net, method, pictures(13))
        assert torch.equal(method.sampler.odds().criteria, first)
        assert method.decided is not None
        assert method.decided.criteria == tuple(first.argmax(1).tolist())
        assert not torch.equal(odds(method)[1], odds(begun("chain", seed=seed)[1])[1])
        again = begun("chain", choice="random", seed=seed)[1]
        assert torch.equal(again.sampler.odds().criteria, first)
        found.add(method.decided.criteria)
    assert len(found) > 3


def test_criteria_are_given_by_patterns_of_which_the_first_counts() -> None:
    choice = {"conv2*": "geometric_median", "conv*": "l1", "*": "l2"}
    net, method = begun("chain", choice=choice)
    drive(net, method, pictures(13))
    sites = method.finish().made_by["sites"]
    chosen = {name: site["criterion"] for name, site in sites.items()}
    assert chosen == {
        "conv1.weight[0]": "l1", "conv2.weight[0]": "geometric_median", "conv3.weight[0]": "l1"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"conv1*": "l1"}, "says no criterion for 'conv2.weight[0]'"),
        ({"*": "taylor"}, "has 'taylor' for 'conv1.weight[0]', which is none of l1, l2"),
        ("best", "choice is 'learned', 'random', or criteria by patterns, got 'best'"),
    ],
)
def test_choices_that_are_none_are_refused(choice: Any, words: str) -> None:
    assert words in said(SelectionError, lambda: begun("chain", choice=choice))


# ---------------------------------------------------------------- criteria that look at more


def test_gradients_of_training_are_looked_at_before_anything_is_drawn() -> None:
    net, method = begun(criteria=["l1", "taylor_weight"], steps=6)
    assert not method.sites.ranked
    assert all(bool((m.drawn == 1).all()) for m in masks(net).values())  # nothing is masked yet
    was, seen = odds(method), list[bool]()
    drive(net, method, pictures(7), watch=lambda step: seen.append(method.over))
    assert not equal(odds(method), was)
    assert seen == [False] * 5 + [True] * 2


def test_a_search_that_has_seen_nothing_has_nothing_to_choose_by() -> None:
    _, method = begun(criteria=["taylor_weight"])
    assert "no step was taken" in said(TrainError, method.finish)
    method.release()


@pytest.mark.parametrize("by", ["taylor_map", "apoz", "hrank"])
def test_criteria_are_shown_batches_of_their_own(by: str) -> None:
    net, method = begun(criteria=["l2", by], score_batches=pictures(2, seed=9), steps=4)
    before = copy.deepcopy(net.state_dict())
    method._rank()
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    drive(net, method, pictures(5))
    plan = method.finish()
    assert {s["criterion"] for s in plan.made_by["sites"].values()} <= {"l2", by}
    words = said(SelectionError, lambda: begun(criteria=["l2", by]))
    assert f"'{by}' looks at data" in words


def test_what_data_shows_of_a_piece_does_not_depend_on_whether_it_is_masked() -> None:
    """Or what is out once would be out for ever."""
    found = []
    for masked in (False, True):
        _, method = begun("chain", criteria=["taylor_map"], score_batches=pictures(1, seed=9))
        if masked:
            none = [torch.zeros(len(t)) for t in method.pools.there.values()]
            method.pools.show_(none, none)
        method._rank()
        found.append(method.sites.state())
    assert equal(*found)


# ---------------------------------------------------------------- what is no search


def test_a_loss_that_is_no_number_ends_the_search() -> None:
    batch = (torch.full((2, 1, 8, 8), torch.nan), torch.tensor([1, 2]))
    net, method = begun(batches=[batch])
    words = said(TrainError, lambda: drive(net, method, pictures(1)))
    assert "loss of the search is nan at step 0" in words
    method.release()


def test_odds_learn_by_the_loss_that_is_given() -> None:
    found = []
    for loss in (None, lambda output, target: output.square().mean()):
        net, method = begun(loss=loss, search=FAST)
        drive(net, method, pictures(4))
        found.append(odds(method))
    assert not equal(*found)
    targets = [(x, torch.zeros(len(x), 10)) for x, _ in other(2)]
    net, method = begun(batches=targets, loss=F.mse_loss)
    drive(net, method, pictures(3))
    assert [m.loss < 10 for m in method.history] == [True] * 3
