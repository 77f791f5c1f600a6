from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.methods.nets import batches, residual
from tonsor.criteria.score import Scores, score
from tonsor.methods.scoring import RoundScores, smoothed


def scores(*values: float) -> Scores:
    return Scores({"a": np.array(values)}, "by hand")


def test_scores_are_smoothed_as_written() -> None:
    first, second = scores(1.0, 2.0), scores(3.0, 0.0)
    assert smoothed(None, first, 0.9) is first  # the first round has nothing before it
    assert smoothed(first, second, 0.9)["a"] == pytest.approx([0.9 * 1 + 0.1 * 3, 0.9 * 2])
    assert smoothed(first, second, 0.0) is second
    third = smoothed(smoothed(first, second, 0.5), scores(0.0, 8.0), 0.5)
    assert third["a"] == pytest.approx([1.0, 4.5])


def test_a_group_that_is_new_is_taken_as_it_is() -> None:
    both = Scores({"a": np.array([4.0]), "b": np.array([5.0])}, "by hand")
    found = smoothed(Scores({"a": np.array([2.0])}, "by hand"), both, 0.5)
    assert (found["a"][0], found["b"][0]) == (3.0, 5.0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.floats(0, 0.99))
def test_scores_that_stay_are_smoothed_to_themselves(values: list[float], weight: float) -> None:
    same = scores(*values)
    assert smoothed(same, same, weight)["a"] == pytest.approx(values)


def test_a_round_remembers_the_smoothed_scores() -> None:
    net, anatomy = residual()
    rounds = RoundScores(anatomy, "l1", smoothing=0.75)
    one = score(anatomy, "l1")
    assert (rounds.turn()["first.weight[0]"] == one["first.weight[0]"]).all()
    with torch.no_grad():
        net.first.weight.mul_(2)
    two = score(anatomy, "l1")
    wanted = 0.75 * one["first.weight[0]"] + 0.25 * two["first.weight[0]"]
    assert rounds.look()["first.weight[0]"] == pytest.approx(wanted)
    assert rounds.turn()["first.weight[0]"] == pytest.approx(wanted)
    again = 0.75 * wanted + 0.25 * two["first.weight[0]"]
    assert rounds.turn()["first.weight[0]"] == pytest.approx(again)


def test_gradients_are_forgotten_after_a_round() -> None:
    net, anatomy = residual()
    rounds = RoundScores(anatomy, "taylor_weight")
    images, labels = batches(1)[0]
    F.cross_entropy(net(images), labels).backward()
    rounds.see()
    first = rounds.turn()
    assert rounds.look() is first  # nothing new has been seen
    for p in net.parameters():
        assert p.grad is not None
        p.grad.mul_(2)
    rounds.see()
    rounds.see()
    second = rounds.turn()
    assert second["first.weight[0]"] == pytest.approx(4 * first["first.weight[0]"])


def test_scores_that_are_given_stay() -> None:
    _, anatomy = residual()
    fixed = score(anatomy, "random")
    rounds = RoundScores(anatomy, fixed)
    assert rounds.turn() is fixed
    assert rounds.name == "random"
