"""The comparison of criteria: what is compared, and what is said of it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tonsor
from tonsor import zoo
from tonsor.criteria.registry import CRITERIA
from tonsor.study.base import Base
from tonsor.study.criteria import UNIFORM, CriteriaStudy, _spread, at_equal_distances
from tonsor.study.criteria_tell import RANDOM, lines, markdown, verdict
from tonsor.study.paired import Figure, packed

BASE = Base(network="resnet20", weights="none.safetensors", data="digits", images=100)
IMAGES = 360  # test images of the digits


def made_up(rights: dict[str, list[float]], kept: float = 0.5) -> dict[str, dict[str, Any]]:
    """Results in which the first images are right, as many as said, for each seed."""
    found = {}
    for by, shares in rights.items():
        for seed, share in enumerate(shares):
            right = packed(np.arange(IMAGES) < round(share * IMAGES))
            found[f"{by}-{seed}"] = {
                "settings": {"by": by, "kept": kept, "seed": seed},
                "answers": dict.fromkeys(("cut", "recalibrated", "tuned"), right),
                "macs": [100, 49],
            }
    return found


def test_everything_that_is_registered_is_compared_and_two_that_look_at_nothing() -> None:
    study = CriteriaStudy(base=BASE)
    assert set(study.criteria()) == {*CRITERIA, UNIFORM}
    assert RANDOM in study.criteria()
    trials = study.trials()
    assert len(trials) == len({t.key for t in trials}) == 3 * 2 * (len(CRITERIA) + 1)


@given(st.integers(2, 200), st.data())
def test_uniform_leaves_no_stretch_out(size: int, data: st.DataObject) -> None:
    ranks = _spread(size)
    assert sorted(ranks) == list(range(size))
    gone = data.draw(st.integers(1, size))
    places = np.flatnonzero(ranks < gone).tolist()
    widest = max(after - before for before, after in pairwise([-1, *places, size]))
    assert widest <= 2 * math.ceil(size / gone) + 1


def test_uniform_takes_every_second_of_a_power_of_two() -> None:
    assert np.flatnonzero(_spread(16) < 8).tolist() == list(range(0, 16, 2))


def test_uniform_scores_fit_every_group() -> None:
    anatomy = tonsor.inspect(zoo.build("resnet20", width=0.25), torch.zeros(1, 3, 32, 32))
    plan = tonsor.plan(anatomy, "macs=50%", by=at_equal_distances(anatomy), rank="per_group")
    assert set(plan.keep) == {g.name for g in anatomy.prunable}
    assert anatomy.cost.macs(plan.counts) <= 0.5 * anatomy.cost.macs()


def test_lines_go_from_the_best_down_with_differences_to_random() -> None:
    study = CriteriaStudy(base=BASE, by=("l1", "l2", RANDOM), kept=(0.5,), seeds=(0, 1))
    told = lines(study, made_up({"l1": [0.5, 0.6], "l2": [0.8, 0.9], RANDOM: [0.7, 0.7]}), 0.5)
    assert [line.by for line in told] == ["l2", RANDOM, "l1"]
    assert told[0].over_random is not None
    assert told[0].over_random.mean == pytest.approx(0.15, abs=0.003)
    assert told[1].over_random is None
    assert told[0].spread == pytest.approx(np.std([0.8, 0.9], ddof=1), abs=0.003)
    assert told[0].kept == 0.49


def test_it_says_when_random_wins() -> None:
    study = CriteriaStudy(base=BASE, by=("l1", RANDOM), kept=(0.5,), seeds=(0,))
    told = lines(study, made_up({"l1": [0.5], RANDOM: [0.7]}), 0.5)
    said = verdict(told)
    assert said.startswith("`random` wins")
    assert "Worse by as much: l1" in said
    told = lines(study, made_up({"l1": [0.9], RANDOM: [0.7]}), 0.5)
    assert "standard errors: l1." in verdict(told)
    told = lines(study, made_up({"l1": [0.702], RANDOM: [0.7]}), 0.5)
    assert "standard errors: none." in verdict(told)


def test_the_page_carries_its_conditions() -> None:
    study = CriteriaStudy(base=BASE, by=("l1", RANDOM), kept=(0.5,), seeds=(0,))
    page = "\n".join(markdown(study, made_up({"l1": [0.9], RANDOM: [0.7]}), Figure(0.95, 0.01)))
    for said in (
        "360 test images",
        "100 training images",
        "paired",
        "per_group",
        "bf16",
        "one seed",
    ):
        assert said in page
    assert "### 50% of the MACs removed" in page
    assert page.index("| l1 |") < page.index("| *random* |")


def test_a_seed_that_is_not_whole_is_left_out_and_that_is_said() -> None:
    study = CriteriaStudy(base=BASE, by=("l1", RANDOM), kept=(0.5,), seeds=(0, 1))
    found = made_up({"l1": [0.9, 0.1], RANDOM: [0.7]})
    told = {line.by: line for line in lines(study, found, 0.5)}
    assert told["l1"].seeds == told[RANDOM].seeds == 1
    assert told["l1"].stages["tuned"].mean == pytest.approx(0.9)
    assert told["l1"].over_random is not None
    page = "\n".join(markdown(study, found, Figure(0.95, 0.01)))
    assert "### 50% of the MACs removed, 1 of 2 seeds" in page
