"""Stripes and columns in the file of a plan: back as they were, or refused by field."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tonsor
from tests.families import column_nets
from tests.families.stripe_nets import drawn, followed, seen
from tests.refusals import said
from tonsor.errors import PlanError
from tonsor.fibre_json import fibres_from_json, fibres_to_json
from tonsor.fibres import Fibres, Kind, Run
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.plans import Plan

KINDS: tuple[Kind, ...] = ("stripes", "columns")


@st.composite
def some_fibres(draw: st.DrawFn) -> Fibres:
    """Stripes or columns of any kernel; of a filter or an input all, some or none stay."""
    kind: Kind = draw(st.sampled_from(KINDS))
    kernel = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    rows = draw(st.lists(st.integers(0, 2 ** math.prod(kernel) - 1), max_size=5))
    run: Run = draw(st.sampled_from(("", "dense", kind)))
    return Fibres(kind, kernel, tuple(rows), run)


@given(some_fibres())
def test_fibres_come_back_as_they_were(fibres: Fibres) -> None:
    text = json.dumps(fibres_to_json(fibres), allow_nan=False)
    assert fibres_from_json(fibres.kind, json.loads(text), "here") == fibres


@given(some_fibres())
def test_a_row_has_a_bit_for_each_position(fibres: Fibres) -> None:
    mask = fibres.mask
    assert mask.shape == (len(fibres.rows), math.prod(fibres.kernel)) == (
        len(mask), fibres.positions
    )  # fmt: skip
    for row, found in zip(fibres.rows, mask, strict=True):
        assert row == sum(2**i for i in range(len(found)) if found[i])
    assert Fibres.of(fibres.kind, mask, fibres.kernel, fibres.run) == fibres
    assert (fibres.left, fibres.size) == (mask.sum(), mask.size)


@given(some_fibres(), st.data())
def test_some_rows_are_taken(fibres: Fibres, data: st.DataObject) -> None:
    """What is kept of the other dimension of the weight, or of its kernel, says nothing of them."""
    every = range(len(fibres.rows))
    kept = [i for i in every if data.draw(st.booleans())]
    dims: list[list[int] | None] = [[0], [0], *[None] * len(fibres.kernel)]
    dims[0 if fibres.kind == "stripes" else 1] = kept
    assert np.array_equal(fibres.taking(dims).mask, fibres.mask[kept])
    among = fibres.among(dims).mask
    assert np.array_equal(among[kept], fibres.mask[kept])
    assert not among[[i for i in every if i not in kept]].any()
    assert fibres.taking(None) == fibres.among(None) == fibres
    dims[0 if fibres.kind == "stripes" else 1] = None
    assert fibres.taking(dims) == fibres.among(dims) == fibres


def plan_of(name: str = "residual", kind: Kind = "stripes") -> Plan:
    it = (seen if kind == "stripes" else column_nets.seen)(name)
    return followed(it, drawn(it.layers, 0, 0.4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["residual", "one dimension", "three dimensions", "grouped"])
def test_a_plan_comes_back(name: str, kind: Kind) -> None:
    plan = plan_of(name, kind)
    assert plan.stripes if kind == "stripes" else plan.columns
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


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_files_from_before_there_were_fibres_are_read(version: int) -> None:
    it = seen("residual")
    plan = tonsor.plan(it.anatomy, "params=80%", by="l1")
    if version == 4:
        plan = plan.merge(plan_of())
    data = plan_to_json(plan)
    assert data["version"] == 5
    later = {"columns": 5, "stripes": 4, "drops": 3, "ties": 2}
    old = {k: v for k, v in data.items() if later.get(k, 1) <= version} | {"version": version}
    assert ("stripes" in old, "columns" in old) == (version == 4, False)
    again = plan_from_json(old)
    assert (again.keep, again.fibres) == (plan.keep, plan.fibres)
    assert bool(plan.fibres) == (version == 4)


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
    message = said(PlanError, lambda: fibres_from_json("stripes", {**GOOD, key: value}, "here"))
    assert told in message
    assert message.startswith("the plan is malformed at 'here")


@pytest.mark.parametrize("data", [None, [], "1ff", {"kernel": [3], "rows": "1"}])
def test_what_is_no_record_is_refused(data: object) -> None:
    told = said(PlanError, lambda: fibres_from_json("stripes", data, "here"))
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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stem.weight": {**GOOD, "rows": "1 1 1 1"}}, "4 inputs of (3, 3), its fingerprint"),
        ({"stem.weight": {**GOOD, "run": "stripes"}}, "expected columns or dense, or nothing"),
        ({"nobody": {**GOOD}}, "'columns.nobody': these are columns of 3 inputs"),
        (None, "'columns': expected an object"),
    ],
)
def test_columns_fit_the_tensors_of_the_plan(change: Any, told: str) -> None:
    data = copy.deepcopy(plan_to_json(plan_of("residual", "columns")))
    data["columns"] = change
    assert told in said(PlanError, lambda: plan_from_json(data))


def test_a_weight_has_stripes_or_columns() -> None:
    data = copy.deepcopy(plan_to_json(plan_of()))
    data["columns"] = {"stem.weight": {**GOOD}}
    told = said(PlanError, lambda: plan_from_json(data))
    assert "at 'columns.stem.weight': the plan has stripes of it, and a layer is either" in told


def test_fibres_of_what_is_no_convolution_are_refused() -> None:
    it = seen("residual")
    data = copy.deepcopy(plan_to_json(plan_of()))
    data["stripes"] = {"fc.weight": {"kernel": [], "rows": "1 1 0", "run": ""}}
    told = said(PlanError, lambda: plan_from_json(data))
    assert "'stripes.fc.weight': these are stripes of 3 filters of (), its fingerprint" in told
    for kind in KINDS:
        rows = (1,) * it.model.fc.weight.shape[0 if kind == "stripes" else 1]
        plan = replace(plan_of(), fibres={"fc.weight": Fibres(kind, (), rows)})
        told = said(PlanError, lambda plan=plan: plan.apply(it.model))
        assert told == f"'fc' is a Linear, and {kind} are those of a convolution"
