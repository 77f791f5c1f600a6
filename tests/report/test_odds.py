"""The figure of odds draws the moments of a search: costs over their target, odds that add up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tonsor
from tests.report.svg import height, shapes, texts
from tonsor.errors import PlanError
from tonsor.methods.lfpc import LearnedCriteria
from tonsor.methods.lfpc.run import SEARCH, course_data
from tonsor.plan_json import save_plan
from tonsor.report.canvas import COLOURS, PALE
from tonsor.report.depth import depth_colours
from tonsor.report.draw_search import draw_search
from tonsor.report.odds import odds
from tonsor.report.search_course import SearchCourse, course_of, read_search

STEPS = 6


def fabricated(seed: int, count: int = 2, moments: int = 5, **changes: Any) -> SearchCourse:
    """A course of chance."""
    chance = np.random.default_rng(seed)
    return SearchCourse(**{
        "sites": tuple(f"site{i}" for i in range(count)), "criteria": ("l1", "l2"),
        "rates": (0.0, 0.25, 0.5), "target": 1000.0, "tolerance": 0.1,
        "steps": tuple(range(0, 10 * moments, 10)),
        "drawn": tuple(chance.uniform(700, 1400, moments).tolist()),
        "expected": tuple(chance.uniform(850, 1200, moments).tolist()),
        "criteria_logits": chance.normal(size=(moments, count, 2)),
        "rates_logits": chance.normal(size=(moments, count, 3)),
    } | changes)  # fmt: skip


def test_odds_add_up_and_expected_rates_are_their_mean() -> None:
    course = fabricated(0, count=3)
    for odds_, logits in (
        (course.criteria_odds, course.criteria_logits), (course.rates_odds, course.rates_logits)
    ):  # fmt: skip
        for index in np.ndindex(odds_.shape):
            total = sum(math.exp(x) for x in logits[index[:2]])
            assert odds_[index] == pytest.approx(math.exp(logits[index]) / total)
    mean = course.expected_rates
    for moment, site in np.ndindex(mean.shape):
        mine = course.rates_odds[moment, site]
        assert mean[moment, site] == pytest.approx(0.25 * mine[1] + 0.5 * mine[2])


@pytest.mark.parametrize(("count", "left"), [(5, 5), (120, 120), (121, 61), (1000, 112)])
def test_a_long_course_is_thinned_to_its_first_its_last_and_some_between(
    count: int, left: int
) -> None:
    course = fabricated(1, moments=count)
    thin = course.thinned(120)
    assert len(thin.steps) == left
    assert (thin.steps[0], thin.steps[-1]) == (course.steps[0], course.steps[-1])
    for place, step in enumerate(thin.steps):
        same = course.steps.index(step)
        assert (thin.drawn[place], thin.expected[place]) == (
            course.drawn[same], course.expected[same]
        )  # fmt: skip
        assert (thin.criteria_logits[place] == course.criteria_logits[same]).all()
        assert (thin.rates_logits[place] == course.rates_logits[same]).all()


@pytest.mark.parametrize("seed", range(3))
def test_costs_stand_to_the_band_of_the_tolerance_as_the_numbers_do(seed: int) -> None:
    course = fabricated(seed, count=1)
    svg = odds(course)
    (band,) = shapes(svg, PALE)
    ys = [y for _, y in band]
    low, high = max(ys), min(ys)  # of 0.9 and of 1.1 of the target
    for values, colour in ((course.drawn, COLOURS[5]), (course.expected, COLOURS[0])):
        line = shapes(svg, colour, "stroke")[0]
        read = [0.9 + 0.2 * (y - low) / (high - low) for _, y in line]
        assert read == pytest.approx([v / 1000 for v in values], abs=1e-3)


@pytest.mark.parametrize("show", ["odds", "logits"])
def test_a_line_of_a_criterion_goes_as_its_odds_or_logits(show: Any) -> None:
    course = fabricated(3, count=1, moments=7)
    values = course.criteria_odds if show == "odds" else course.criteria_logits
    for i in range(2):
        lines = [s for s in shapes(odds(course, show=show), COLOURS[i], "stroke") if len(s) == 7]
        wanted = values[:, 0, i] - values[0, 0, i]
        steepest = int(np.abs(wanted).argmax())
        shown = [
            [(y - line[0][1]) / (line[steepest][1] - line[0][1]) for _, y in line] for line in lines
        ]
        close = [np.allclose(s, wanted / wanted[steepest], atol=1e-3) for s in shown]
        assert any(close)


def test_odds_of_rates_are_stacked_to_one() -> None:
    course = fabricated(4, count=1)
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    svg = odds(course)
    shades = [to_hex(colormaps["Purples"](0.15 + 0.8 * i / 2)) for i in range(3)]
    bands = [shapes(svg, shade)[0] for shade in shades]
    full = height([p for band in bands for p in band])
    for band, mine in zip(bands, course.rates_odds[:, 0].T, strict=True):
        by_x: dict[float, list[float]] = {}
        for x, y in band:
            by_x.setdefault(x, []).append(y)
        heights = [(max(ys) - min(ys)) / full for _, ys in sorted(by_x.items())]
        assert heights == pytest.approx(mine.tolist(), abs=1e-3)


def test_a_few_sites_have_panels_and_all_have_a_line_of_their_rate() -> None:
    course = fabricated(5, count=9)
    svg = odds(course, conditions=["net", "costs $5"])
    assert svg == odds(course, conditions=["net", "costs $5"])
    told = {" ".join(t.split()).replace(r"\$", "$") for t in texts(svg)}
    assert {f"{i + 1}: site{i}" for i in (0, 3, 5, 8)} == {t for t in told if ": site" in t}
    assert {"l1", "l2", "0%", "25%", "50%", "within 10%", "net; costs $5"} <= told
    assert all(shapes(svg, colour, "stroke") for colour in depth_colours(9))
    one = {t for t in texts(odds(course, sites=["site6"])) if ": site" in t}
    assert one == {"7: site6"}


def test_criteria_that_were_not_learned_have_no_lines() -> None:
    still = fabricated(6, count=1, criteria_logits=np.zeros((5, 1, 2)))
    assert not still.criteria_learned
    told = texts(odds(still))
    assert "not learned" in told
    assert "l1" not in told
    assert "not learned" not in texts(odds(fabricated(6, count=1)))


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"steps": (), "criteria_logits": np.zeros((0, 2, 2))}, "no moments"),
     ({"sites": ()}, "no moments or no sites"),
     ({"criteria": ("l1",)}, "logits of criteria have the shape"),
     ({"rates": (0.0, 0.5)}, "logits of rates have the shape")],
)  # fmt: skip
def test_what_is_no_course_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        fabricated(0, **changes)


@pytest.mark.parametrize(("sites", "what"), [(["nope"], "called 'nope'"), ([], "no site is named")])
def test_sites_that_are_not_there_are_refused(sites: list[str], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        odds(fabricated(0), sites=sites)


# ---------------------------------------------------------------- of a real search


def searched(folder: Path) -> tuple[LearnedCriteria, tonsor.Anatomy]:
    """Search for a few steps, and leave in a folder what `search_criteria` does."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(),
                        nn.Linear(8 * 16, 4))  # fmt: skip
    data = [(torch.randn(8, 3, 8, 8), torch.randint(4, (8,))) for _ in range(2)]
    anatomy = tonsor.inspect(net, data[0][0])
    method = LearnedCriteria(net, anatomy, batches=data, budget="macs=50%", steps=STEPS)
    for step in range(STEPS):
        method.after_step(step)
    save_plan(folder / "plan.json", method.finish())
    (folder / SEARCH).write_text(json.dumps(course_data(method)), "utf-8")
    return method, anatomy


def test_a_search_is_drawn_from_its_folder_or_the_one_around_it(tmp_path: Path) -> None:
    inner = tmp_path / "search"
    inner.mkdir()
    method, anatomy = searched(inner)
    course, read = course_of(method), read_search(inner / SEARCH)
    assert read.steps == course.steps == tuple(range(STEPS))
    assert (read.criteria_logits == course.criteria_logits).all()
    assert (read.rates_logits[-1] == np.array(method.history[-1].rates)).all()
    assert read.sites == tuple(s.name for s in method.sites.every)
    files = draw_search(inner, anatomy)
    assert files == [inner / "criteria.svg", inner / "odds.svg"]
    around = draw_search(tmp_path, anatomy, prefix="net_", conditions=["net"])
    assert around == [tmp_path / "net_criteria.svg", tmp_path / "net_odds.svg"]
    layers = json.loads((tmp_path / "net_criteria.json").read_text())["layers"]
    decided = method.decided
    assert decided is not None
    assert [x["left"] for x in layers] == list(decided.left)
    assert [x["criterion"] for x in layers] == [method.criteria[i] for i in decided.criteria]
    data = json.loads((tmp_path / "net_odds.json").read_text())
    for site, mine in data["odds"].items():
        place = course.sites.index(site)
        assert mine["rates"] == pytest.approx(course.rates_odds[:, place], abs=1e-4)
        assert data["expected_rates"][site] == pytest.approx(
            course.expected_rates[:, place], abs=1e-4
        )
    told = " ".join(" ".join(texts(f.read_text())) for f in around)
    assert "net; macs=50%, reached" in " ".join(told.split())


def test_a_folder_without_a_search_is_refused(tmp_path: Path) -> None:
    anatomy = tonsor.inspect(nn.Conv2d(1, 2, 1), torch.randn(1, 1, 2, 2))
    with pytest.raises(PlanError, match=r"has no search\.json with a plan\.json"):
        draw_search(tmp_path, anatomy)
