"""Blocks are found in the models of torchvision and timm, and removing them is right."""

from __future__ import annotations

import pytest

import tonsor
from tests.models.case import Case
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.families.blocks.find import Level
from tonsor.graph.inputs import Inputs
from tonsor.select.drop import drop_plan, that_go_together

from .cases import zoo

pytestmark = pytest.mark.zoo

WANTED = {
    "tv_resnet18": (8, 5), "tv_resnet50": (16, 12), "tv_vit_b_32": (12, 12),
    "tv_convnext_tiny": (18, 18), "tv_wide_resnet50_2": (16, 12),
}  # fmt: skip
"""How many blocks there are, and how many of them may go."""


def check_blocks(case: Case, level: Level) -> tuple[int, int]:
    """Remove some of the blocks of a model and prove it; return how many there are and may go."""
    model, args, kwargs = case.build()
    given = Inputs(*args, **kwargs)
    anatomy = tonsor.inspect(model, given)
    found = tonsor.blocks(anatomy, level=level)
    names = [b.name for b in found.removable]
    for turn in (0, 1):
        scores = {n: float(i % 2 == turn) for i, n in enumerate(names)}
        order, _ = that_go_together(anatomy, found, BlockScores(scores, "mine").ranking())
        plan = drop_plan(anatomy, found, order[: len(names) // 2])
        slim = plan.apply(model, verify=False)
        assert plan.prove(model, slim, inputs=given).error < 1e-6
        told = anatomy.cost_without(plan.drops)
        left = tonsor.inspect(slim, given).cost
        assert told.macs(plan.counts) == left.macs()
        assert told.params(plan.counts) == left.params()
    return len(found), len(names)


@pytest.mark.parametrize("level", ["block", "branch"])
@pytest.mark.parametrize("case", zoo(), ids=lambda case: case.name)
def test_blocks_go_and_the_rest_is_right(case: Case, level: Level) -> None:
    counts = check_blocks(case, level)
    if level == "block" and case.name in WANTED:
        assert counts == WANTED[case.name]
