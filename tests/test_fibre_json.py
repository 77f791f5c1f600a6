"""Stripes as they stand in the file of a plan: back as they were, or refused by field."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tonsor
from tests.families.stripe_nets import drawn, followed, seen
from tests.refusals import said
from tonsor.errors import PlanError
from tonsor.fibre_json import fibres_from_json, fibres_to_json
from tonsor.fibres import Fibres
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.plans import Plan


@st.composite
def some_stripes(draw: st.DrawFn) -> Fibres:
    """Stripes of any kernel; of a filter all, some or none stay."""
    kernel = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    rows = draw(st.lists(st.integers(0, 2 ** math.prod(kernel) - 1), max_size=5))
    return Fibres("stripes", kernel, tuple(rows), draw(st.sampled_from(["", "dense", "stripes"])))


@given(some_stripes())
def test_stripes_come_back_as_they_were(stripes: Fibres) -> None:
    text = json.dumps(fibres_to_json(stripes), allow_nan=False)
    assert fibres_from_json(json.loads(text), "stripes.a") == stripes


@given(some_stripes())
def test_a_row_has_a_bit_for_each_position(stripes: Fibres) -> None:
    mask = stripes.mask
    assert mask.shape == (len(stripes.rows), stripes.positions) == (len(mask), mask.shape[1])
    for row, found in zip(stripes.rows, mask, strict=True):
        assert row == sum(2**i for i in range(len(found)) if found[i])
    assert Fibres.of("stripes", mask, stripes.kernel, stripes.run) == stripes
    assert (stripes.left, stripes.size) == (mask.sum(), mask.size)


@given(some_stripes(), st.data())
def test_some_filters_are_taken(stripes: Fibres, data: st.DataObject) -> None:
    every = range(len(stripes.rows))
    kept = [i for i in every if data.draw(st.booleans())]
    assert np.array_equal(stripes.taking(kept).mask, stripes.mask[kept])
    among = stripes.among(kept).mask
    assert np.array_equal(among[kept], stripes.mask[kept])
    assert not among[[i for i in every if i not in kept]].any()
    assert stripes.taking(None) == stripes.among(None) == stripes


def plan_of(name: str = "residual") -> Plan:
    it = seen(name)
    return followed(it, drawn(it.layers, 0, 0.4))


@pytest.mark.parametrize("name", ["residual", "one dimension", "three dimensions", "grouped"])
def test_a_plan_comes_back(name: str) -> None:
    plan = plan_of(name)
    assert plan.stripes
    again = plan_from_json(json.loads(json.dumps(plan_to_json(plan))))
    assert again == plan
    assert again.amounts == plan.amounts


def test_a_plan_is_written_to_a_file(tmp_path: Any) -> None:
    plan = plan_of()
    tonsor.save_plan(tmp_path / "plan.json", plan)
    text = (tmp_path / "plan.json").read_text()
    row = f'  "stem.weight":{json.dumps(fibres_to_json(plan.stripes["stem.weight"]))}'
    assert row.replace(" ", "") in text.replace(" ", "")
    assert tonsor.load_plan(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("version", [1, 2, 3])
def test_files_from_before_there_were_stripes_are_read(version: int) -> None:
    it = seen("residual")
    plan = tonsor.plan(it.anatomy, "params=80%", by="l1")
    data = plan_to_json(plan)
    assert data["version"] == 4
    later = {"stripes": 4, "drops": 3, "ties": 2}
    old = {k: v for k, v in data.items() if later.get(k, 1) <= version} | {"version": version}
    assert "stripes" not in old
    again = plan_from_json(old)
    assert (again.keep, again.stripes) == (plan.keep, {})


GOOD = {"kernel": [3, 3], "rows": "1ff 10 0", "run": ""}


def test_the_good_one_is_good() -> None:
    assert fibres_from_json("stripes", GOOD, "here") == Fibres("stripes", (3, 3), (511, 16, 0))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("kernel", 3, r"'here.kernel': expected sizes of at least 1, found 3"),
        ("kernel", [3, 0], "'here.kernel': expected sizes of at least 1"),
        ("kernel", [3, True], "'here.kernel': expected sizes of at least 1"),
        ("kernel", [3.0, 3], "'here.kernel': expected sizes of at least 1"),
        ("run", "fast", "'here.run': expected stripes or dense, or nothing, found 'fast'"),
        ("run", None, "'here.run': expected stripes or dense"),
        ("rows", "1ff 1g", "'here.rows': expected numbers in hexadecimal, with spaces between"),
        ("rows", [1, 2], "'here.rows': expected numbers in hexadecimal"),
        ("rows", None, "'here.rows': expected numbers in hexadecimal"),
        ("rows", "200", "'here.rows': expected no bit beyond the 9 positions, found '200'"),
        ("rows", "-1", "'here.rows': expected no bit beyond the 9 positions"),
    ],
)
def test_what_is_malformed_is_refused_by_field(key: str, value: object, told: str) -> None:
    message = said(PlanError, lambda: fibres_from_json({**GOOD, key: value}, "here"))
    assert told in message
    assert message.startswith("the plan is malformed at 'here")


@pytest.mark.parametrize("data", [None, [], "1ff", {"kernel": [3], "rows": "1"}])
def test_what_is_no_record_is_refused(data: object) -> None:
    told = said(PlanError, lambda: fibres_from_json(data, "here"))
    assert "at 'here': expected kernel, rows and run" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stem.weight": {**GOOD}}, "these are stripes of 3 filters of (3, 3), its fingerprint"),
        ({"stem.weight": {**GOOD, "kernel": [9], "rows": "1 1 1 1"}}, "4 filters of (9,)"),
        ({"nobody": {**GOOD}}, "its fingerprint is ()"),
        ([], "'stripes': expected an object"),
    ],
)
def test_stripes_fit_the_tensors_of_the_plan(change: Any, told: str) -> None:
    data = copy.deepcopy(plan_to_json(plan_of()))
    data["stripes"] = change
    assert told in said(PlanError, lambda: plan_from_json(data))


def test_stripes_of_what_is_no_convolution_are_refused_where_they_are_cut() -> None:
    it = seen("residual")
    data = copy.deepcopy(plan_to_json(plan_of()))
    data["stripes"] = {"fc.weight": {"kernel": [], "rows": "1 1 0", "run": ""}}
    told = said(PlanError, lambda: plan_from_json(data).apply(it.model))
    assert told == "'fc' is a Linear, and stripes are those of a convolution"
