"""Every model there is, without some of its blocks: proven, as cheap as foretold, or refused."""

import zlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import tonsor
from tonsor.errors import PlanError, SelectionError, TraceError
from tonsor.families.blocks.find import Level, find_blocks
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.select.drop import drop_plan

from . import ALL
from .case import Case

HERE = [case for case in ALL if zlib.crc32(f"{case.name} blocks".encode()) % 12 == 0]
NOT_PROVEN = {"data_dependent_branch": "does not run aten.linear in 'plus' as it did"}
# Without its cross-attention this one does not look at the picture, nor know how many there are.
COST_UNKNOWN = ("perceiver",)


@pytest.mark.parametrize("level", ["block", "branch"])
@pytest.mark.parametrize("case", HERE, ids=lambda case: case.name)
def test_some_blocks_of_it_go(case: Case, level: Level) -> None:
    _check(case, level, sets=2)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["block", "branch"])
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_any_blocks_of_it_go(case: Case, level: Level) -> None:
    _check(case, level, sets=4)


def _check(case: Case, level: Level, sets: int) -> None:
    if case.name.startswith("hf_"):
        pytest.importorskip("transformers")
    model, args, kwargs = case.build()
    try:
        anatomy = tonsor.inspect(model, tonsor.Inputs(*args, **kwargs))
    except TraceError:
        pytest.skip("the model can't be followed, with or without blocks")
    blocks = find_blocks(anatomy, level=level)
    assert all(b.removable or b.reason for b in blocks)
    names = [b.name for b in blocks.removable]
    wanted: list[Sequence[str]] = []
    for some in (names[-1:], names[::2], names[:1], names)[:sets]:
        if some and some not in wanted:
            wanted.append(some)
    for some in wanted:
        _goes(case, anatomy, blocks, some)


def _goes(case: Case, anatomy: tonsor.Anatomy, blocks: Any, names: Sequence[str]) -> None:
    model = anatomy.model
    before = {n: t.clone() for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    try:
        plan = plan_from_json(plan_to_json(drop_plan(anatomy, blocks, names)))
        slim = plan.apply(model, verify=False)
    except (PlanError, SelectionError) as error:
        # Plain layers that follow each other may need the same channels cut in different ways.
        if len(names) == 1 or "can't go" not in str(error):
            raise
        return
    try:
        assert plan.prove(model, slim, inputs=anatomy.inputs).error < 1e-6
    except tonsor.errors.ProofError as error:
        if NOT_PROVEN.get(case.name, "?") not in str(error):
            raise
        return
    foretold, left = anatomy.cost_without(plan.drops), tonsor.inspect(slim, anatomy.inputs)
    if case.name not in COST_UNKNOWN:
        assert foretold.macs(plan.counts) == left.cost.macs()
    params = sum(p.numel() for p in slim.parameters())
    assert foretold.params(plan.counts) == left.cost.params() == params
    find_blocks(left)
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name].nan_to_num(), value.nan_to_num()), name
