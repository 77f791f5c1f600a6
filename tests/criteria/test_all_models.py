"""Every criterion on every model: it scores, or says why it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tonsor
from tests.models import ALL
from tests.models.case import Case, output_tensors
from tests.models.snapshot import Snapshot
from tonsor.criteria.registry import CRITERIA
from tonsor.criteria.score import score
from tonsor.errors import ScoreError, TraceError

FEW = ("densenet", "resnet_pad", "vgg_flatten", "swin", "vit_multihead", "hf_llama", "hf_bert",
       "lstm", "weight_norm_new", "slice_assign", "tied_embedding", "in_place",
       "frozen_backbone")  # fmt: skip
FOUND = [case for case in ALL if case.name in FEW]


def loss(output: Any, target: object) -> Tensor:
    """The mean square of all that a model returns and that has a gradient."""
    found = [o for o in output_tensors(output) if o.is_floating_point() and o.requires_grad]
    return torch.stack(
        [torch.zeros(()).double(), *(o.double().square().mean() for o in found)]
    ).sum()


def check(case: Case) -> None:
    if case.name.startswith("hf_"):
        pytest.importorskip("transformers")
    model, args, kwargs = case.build()
    inputs = tonsor.Inputs(*args, **kwargs)
    try:
        anatomy = tonsor.inspect(model, inputs)
    except TraceError:
        pytest.skip("the model can't be followed")
    before = Snapshot(model, inputs)
    judged = 0
    for by, found in CRITERIA.items():
        batches = [(inputs, None), (inputs, None)] if found.reads_data else None
        try:
            scores = score(anatomy, by, batches=batches, loss=loss, quiet=True)
        except ScoreError as error:
            assert str(error)  # noqa: PT017
            continue
        judged += bool(scores.values)
        assert scores.values.keys() | scores.unscored.keys() == {g.name for g in anatomy.prunable}
        for name, row in scores.values.items():
            assert row.shape == (anatomy.by_name[name].size,)
            assert np.isfinite(row).all(), by
    assert judged >= 4 or not anatomy.prunable, "next to no criterion can judge it"
    assert not before.changes(model, inputs)


@pytest.mark.parametrize("case", FOUND, ids=lambda c: c.name)
def test_a_few_models(case: Case) -> None:
    check(case)


def test_the_few_are_there() -> None:
    assert {c.name for c in FOUND} == set(FEW)


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in ALL if c.name not in FEW], ids=lambda c: c.name)
def test_all_models(case: Case) -> None:
    check(case)
