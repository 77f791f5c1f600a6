"""A plan survives JSON, and what is not a plan is refused with a reason."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tonsor
from tests.models import ALL
from tonsor.errors import PlanError
from tonsor.graph.describe import describe, make_inputs
from tonsor.graph.inputs import Inputs
from tonsor.plan_json import load_plan, plan_from_json, plan_text, plan_to_json, save_plan
from tonsor.plans import Plan
from tonsor.select.make import plan as make_plan
from tonsor.types import Leaf, Mend, concat, product

CASES = {case.name: case for case in ALL}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)
    )


def plan_of(model: nn.Module, inputs: Any) -> Plan:
    return make_plan(tonsor.inspect(model, inputs), "params=70%", floor=1)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(net(), torch.randn(2, 8))


@pytest.fixture
def data(plan: Plan) -> dict[str, Any]:
    return copy.deepcopy(plan_to_json(plan))


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize(
    "name", ["resnet_pad", "densenet", "shufflenet_v2", "vit_qkv_reshape", "lstm", "hf_llama"]
)
def test_a_plan_comes_back_equal(name: str) -> None:
    if name.startswith("hf_"):
        pytest.importorskip("transformers")
    model, args, kwargs = CASES[name].build()
    before = plan_of(model, Inputs(*args, **kwargs))
    after = plan_from_json(json.loads(json.dumps(plan_to_json(before), allow_nan=False)))
    assert before.keep
    assert after == before
    assert after.cut() == before.cut()


def test_every_field_comes_back() -> None:
    a, b = Leaf("a", 2), Leaf("b", 3)
    before = Plan(
        fingerprint={"x": (6, 8), "y": (), "z": (8,)},
        keep={"a": (1,), "c": (0, 2, 4, 7)},
        layout={"x": (product(a, b), concat(b, b, a)), "y": (), "z": (Leaf("c", 8),)},
        mends=(Mend("m.0", ("shape", 1), product(a, b)),),
        ties=({"a": 1, "c": 4},),
        made_by={"by": "l2", "first": {"limit": np.float32(0.5)}, "sizes": (np.int64(1), 2)},
    )
    after = plan_from_json(plan_to_json(before))
    assert after.made_by == {"by": "l2", "first": {"limit": 0.5}, "sizes": [1, 2]}
    for field in ("fingerprint", "keep", "layout", "mends", "ties", "probe"):
        assert getattr(after, field) == getattr(before, field), field


def test_a_saved_plan_can_be_proven(plan: Plan, tmp_path: Path) -> None:
    save_plan(tmp_path / "new" / "plan.json", plan)
    slim = load_plan(tmp_path / "new" / "plan.json").apply(net())
    small = sum(p.numel() for p in slim.parameters())
    assert small <= 0.7 * sum(p.numel() for p in net().parameters())


def test_the_file_has_one_entry_a_line(plan: Plan, tmp_path: Path) -> None:
    save_plan(tmp_path / "plan.json", plan)
    text = (tmp_path / "plan.json").read_text("utf-8")
    assert text == plan_text(plan)
    group, kept = next(iter(plan.keep.items()))
    line = f'  "{group}": {json.dumps(kept, separators=(",", ":"))}'
    assert line in text.replace(",\n", "\n").splitlines()


def test_a_failed_save_leaves_the_old_file(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save_plan(path, plan)
    before = path.read_text("utf-8")
    odd = Plan(plan.fingerprint, plan.keep, plan.layout, made_by={"who": object()})
    with pytest.raises(PlanError, match=r"made_by\.who is <object .* which JSON can't hold"):
        save_plan(path, odd)
    assert path.read_text("utf-8") == before
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------- refused


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    for content in (b"not json", b"\xff\xfe\x00", b"[" * 100_000):
        (tmp_path / "plan.json").write_bytes(content)
        with pytest.raises(PlanError, match=r"plan\.json' is not a plan, for it is not JSON"):
            load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("data", [None, [], {}, {"format": "other"}])
def test_other_json_is_refused(data: Any) -> None:
    with pytest.raises(PlanError, match="this is not a plan"):
        plan_from_json(data)


@pytest.mark.parametrize(("version", "hint"), [(6, "update tonsor"), (None, "make it anew")])
def test_an_unknown_version_is_refused(data: dict[str, Any], version: Any, hint: str) -> None:
    with pytest.raises(PlanError, match=f"only 1 and 2 and 3 and 4 and 5 can be read: .*{hint}"):
        plan_from_json(data | {"version": version})


def test_a_plan_of_version_1_has_no_ties(plan: Plan) -> None:
    old = plan_to_json(plan) | {"version": 1}
    del old["ties"]
    assert plan_from_json(old) == replace(plan, ties=())


def test_a_plan_that_breaks_a_tie_is_refused(plan: Plan) -> None:
    (name, kept), *_ = plan.keep.items()
    other = next(n for n in plan.sizes if n not in plan.keep)
    data = plan_to_json(replace(plan, ties=({name: 1, other: 1},)))
    with pytest.raises(PlanError, match=rf"at 'ties': '.*' \d+ → {len(kept)}, .* go in step"):
        plan_from_json(data)


def spoil(data: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    """Put `value` at a path; a number is the place of a key in its object."""
    for step in path[:-1]:
        data = data[step if not isinstance(data, dict) or step in data else list(data)[step]]
    last = path[-1]
    data[last if not isinstance(data, dict) or last in data else list(data)[last]] = value


SPOILED = [
    (("fingerprint",), None, "at 'fingerprint': expected an object, found nothing"),
    (("fingerprint", 0), [16, -8], r"at 'fingerprint\.0\.weight': expected a whole number"),
    (("fingerprint", 0), [16, 9], r"at 'layout\.0\.weight': its axes have sizes \(16, 8\)"),
    (("leaves", 0), ["a"], r"at 'leaves\[0\]': expected \[name, size\]"),
    (("leaves",), [["a", 16]] * 8, "two leaves have the same name"),
    (("layout", 0, 0), 99, r"at 'layout\.0\.weight': expected the number of a leaf"),
    (("layout", 0, 0), ["*", 0, 1], r'found \[\'\*\', 0, 1\]'),
    (("layout",), {}, r"no tensor in the layout has an axis of this name"),
    (("keep", 0), [1, 99], r"at 'keep\..*': there is no index 99 in a group of"),
    (("keep", 0), [2, 1], "expected ascending indices"),
    (("keep", 0), [], "at least one"),
    (("keep", 0), [True], "expected a whole number of at least 0, found True"),
    (("mends",), None, "at 'mends': expected a list, found nothing"),
    (("mends", 0, "path"), [0], r"at 'mends\[0\]\.path': expected an attribute"),
    (("mends", 0), "x", r"at 'mends\[0\]': expected module, path and axis"),
    (("ties",), None, "at 'ties': expected a list, found nothing"),
    (("ties",), [{}], r"at 'ties\[0\]': expected groups and their steps"),
    (("ties",), [{"a": 0}], r"at 'ties\[0\]': expected steps of at least 1"),
    (("ties",), [{"a": 1}], r"at 'ties\[0\]': no tensor in the layout has an axis 'a'"),
    (("made_by",), [], "at 'made_by': expected an object"),
    (("probe",), {"args": []}, "no inputs can be made of"),
    (("probe", "args", 0, "dtype"), "float33", "no inputs can be made of"),
    (("probe", "args", 0, "tensor"), [-1], "no inputs can be made of"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "said"), SPOILED)
def test_a_malformed_plan_is_refused(
    data: dict[str, Any], path: tuple[Any, ...], value: Any, said: str
) -> None:
    spoil(data, path, value)
    with pytest.raises(PlanError, match=said):
        plan_from_json(data)


# ---------------------------------------------------------------- example inputs


def test_inputs_are_made_anew_in_shape_type_and_range() -> None:
    before = Inputs(
        torch.rand(3, 4) * 5 - 2,
        [torch.ones(2, dtype=torch.bool), (torch.zeros(0, 7), None)],
        ids=torch.arange(3, 6).repeat(4, 8),
        nested={"half": torch.full((2,), 1.5, dtype=torch.float16), "flag": True, "name": "x"},
    )
    described = json.loads(json.dumps(describe(before)))
    after = make_inputs(described)
    assert [p for p, _ in after.tensors()] == [p for p, _ in before.tensors()]
    for (_, old), (path, new) in zip(before.tensors(), after.tensors(), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype), path
        if old.numel():
            assert old.min() <= new.min() <= new.max() <= old.max(), path
    assert after.args[1][1][1] is None
    assert after.kwargs["nested"]["flag"] is True
    again = make_inputs(described)
    assert all(
        torch.equal(a, b) for (_, a), (_, b) in zip(after.tensors(), again.tensors(), strict=True)
    )
    assert not torch.equal(make_inputs(described, seed=1).args[0], after.args[0])


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(object(), id="object"),
        pytest.param(torch.tensor([1j]), id="complex"),
        pytest.param(torch.tensor([float("inf")]), id="infinite"),
        pytest.param({1: 2}, id="keys that are no text"),
        pytest.param(torch.empty(2, device="meta"), id="meta"),
    ],
)
def test_inputs_that_need_more_than_a_description_have_none(value: Any) -> None:
    assert describe(Inputs(torch.zeros(2), value)) is None
