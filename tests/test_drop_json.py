"""Blocks that go, as they stand in the file of a plan: back as they were, or refused by field."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.families.blocks.check import found, ready
from tests.families.blocks.odd import Dictionary, Masked, Odd, PostNorm
from tests.refusals import said
from tonsor.drop_json import drop_from_json, drop_to_json
from tonsor.drops import Drop, Spot
from tonsor.errors import PlanError, SurgeryError
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.select.drop import drop_plan

NAMES = st.text("abc._0", min_size=1, max_size=5)
STEPS = st.lists(st.one_of(NAMES, st.integers(0, 3)), min_size=1, max_size=3)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), NAMES)
GIVES = st.recursive(
    st.one_of(
        st.sampled_from(["x", "0"]),
        PLAIN.map(lambda v: {"is": v}),
        STEPS.map(lambda v: {"arg": v}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: {"tuple": v}),
        st.lists(inner, max_size=3).map(lambda v: {"list": v}),
        st.dictionaries(NAMES, inner, max_size=3).map(lambda v: {"dict": v}),
    ),
    max_leaves=6,
)
SPOTS = st.builds(Spot, NAMES, NAMES, st.integers(0, 5), NAMES)
TUPLES = st.lists(NAMES, max_size=3).map(tuple)
SHORTCUTS = st.builds(
    Drop, NAMES, st.sampled_from(["residual", "branch"]), st.tuples(NAMES), STEPS.map(tuple),
    gives=GIVES, through=TUPLES, zeroed=st.lists(SPOTS, max_size=3).map(tuple),
    renumber=st.booleans(),
)  # fmt: skip
PLAIN_LAYERS = st.builds(
    Drop, NAMES, st.just("plain"), st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    st.just((0,)), bypassed=st.tuples(SPOTS, SPOTS), weight=NAMES,
    fit=st.sampled_from(["same", "slice", "narrow", "tile"]),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)), dim=st.integers(1, 3),
    renumber=st.booleans(),
)  # fmt: skip


@given(st.one_of(SHORTCUTS, PLAIN_LAYERS))
def test_a_block_that_goes_comes_back_as_it_was(drop: Drop) -> None:
    text = json.dumps(drop_to_json(drop), allow_nan=False)
    assert drop_from_json(json.loads(text), "drops[0]") == drop


@pytest.mark.parametrize("kind", [PostNorm, Masked, Dictionary])
def test_a_plan_comes_back_and_does_the_same(kind: Any) -> None:
    net = ready(Odd(kind))
    x = torch.randn(2, 5, 3)
    anatomy, blocks = found(net, x)
    plan = drop_plan(anatomy, blocks, ["layers.0", "layers.2"])
    again = plan_from_json(json.loads(json.dumps(plan_to_json(plan))))
    assert again == plan
    assert torch.equal(again.apply(net, inputs=x)(x), plan.apply(net)(x))


GOOD = {
    "name": "a", "kind": "residual", "modules": ["a"], "takes": [0], "gives": "x",
    "zeroed": [["a", "aten.add", 0, "other"]],
}  # fmt: skip
LAYER = {
    "name": "a", "kind": "plain", "modules": ["a"], "takes": [0], "gives": "x", "weight": "a.w",
    "bypassed": [["a", "aten.linear", 0, "input"], ["a", "aten.linear", 0, ""]],
    "fit": "same", "channels": [3, 3], "dim": 1,
}  # fmt: skip
BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (GOOD, {"name": 3}, "at 'd.name': expected a value of type str, found 3"),
    (GOOD, {"name": None}, "at 'd.name': expected a value of type str, found nothing"),
    (GOOD, {"kind": "odd"}, "at 'd.kind': expected one of residual, branch, plain, found 'odd'"),
    (GOOD, {"kind": ["plain"]}, "at 'd.kind'"),
    (GOOD, {"modules": "a"}, "at 'd.modules': expected a list, found 'a'"),
    (GOOD, {"modules": [1]}, "at 'd.modules'"),
    (GOOD, {"modules": []}, "at 'd': expected modules that go"),
    (GOOD, {"takes": []}, "at 'd': expected modules that go"),
    (GOOD, {"takes": [0.5]}, "at 'd.takes'"),
    (GOOD, {"takes": [True]}, "at 'd.takes'"),
    (GOOD, {"gives": "y"}, "at 'd.gives': expected how a result is arranged, found 'y'"),
    (GOOD, {"gives": {"is": [1]}}, "at 'd.gives'"),
    (GOOD, {"gives": {"arg": []}}, "at 'd.gives'"),
    (GOOD, {"gives": {"arg": [0, None]}}, "at 'd.gives.arg'"),
    (GOOD, {"gives": {"tuple": ["x", {"set": []}]}}, "at 'd.gives'"),
    (GOOD, {"gives": {"dict": {"a": 3}}}, "at 'd.gives'"),
    (GOOD, {"gives": None}, "at 'd.gives'"),
    (GOOD, {"through": "b"}, "at 'd.through'"),
    (GOOD, {"zeroed": [["a", "aten.add", "0", "other"]]}, "at 'd.zeroed"),
    (GOOD, {"zeroed": [["a", "aten.add"]]}, "at 'd.zeroed"),
    (GOOD, {"zeroed": ["a"]}, "at 'd.zeroed"),
    (GOOD, {"renumber": 1}, "at 'd.renumber': expected a value of type bool, found 1"),
    (LAYER, {"bypassed": LAYER["bypassed"][:1]}, "at 'd.bypassed': expected where it begins"),
    (LAYER, {"fit": "stretch"}, "at 'd.fit': expected one of same, slice, narrow, tile"),
    (LAYER, {"channels": [3]}, "at 'd.channels': expected two numbers, found [3]"),
    (LAYER, {"channels": [True, 3]}, "at 'd.channels'"),
    (LAYER, {"dim": "1"}, "at 'd.dim': expected a value of type int, found '1'"),
    (LAYER, {"weight": None}, "at 'd.weight'"),
]


@pytest.mark.parametrize(("base", "change", "message"), BAD, ids=lambda v: str(v)[:50])
def test_what_is_malformed_is_refused_with_its_field(
    base: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    assert drop_from_json(base, "d")
    data = {**copy.deepcopy(base), **change}
    told = said(PlanError, lambda: drop_from_json(data, "d"))
    assert told.startswith("the plan is malformed at 'd")
    assert message in told


@pytest.mark.parametrize("data", [None, 3, "a", [], [GOOD]])
def test_what_is_no_object_is_refused(data: Any) -> None:
    assert "expected an object" in said(PlanError, lambda: drop_from_json(data, "d"))


JUNK = st.recursive(
    st.one_of(PLAIN, st.sampled_from(["x", "residual", "aten.add"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from([*LAYER, "is"]), inner)
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted({*GOOD, *LAYER, "through"})), JUNK, st.booleans())
def test_junk_in_any_field_is_refused_or_read(field: str, junk: Any, layer: bool) -> None:
    """No other exception than ours, and what is read can be written again."""
    data = {**(LAYER if layer else GOOD), field: junk}
    try:
        drop = drop_from_json(data, "d")
    except PlanError:
        return
    assert drop_from_json(json.loads(json.dumps(drop_to_json(drop))), "d") == drop


def test_a_module_that_the_model_does_not_have_is_named() -> None:
    net = ready(Odd(PostNorm))
    anatomy, blocks = found(net, torch.randn(2, 5, 3))
    plan = drop_plan(anatomy, blocks, ["layers.0"])
    other = replace(plan, drops=(replace(plan.drops[0], modules=("nowhere",)),))
    told = said(SurgeryError, lambda: other.apply(net, verify=False))
    assert told == "the model has no module 'nowhere', which the plan is to remove"
    assert isinstance(net, nn.Module)
