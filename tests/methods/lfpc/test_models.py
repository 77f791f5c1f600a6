"""A short search on models of all kinds; what it plans is cut, and proven."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import tonsor
from tests.models import ALL
from tests.models.case import Case
from tonsor.errors import BudgetError, ScoreError, SelectionError, TonsorError, TraceError
from tonsor.methods.lfpc import LearnedCriteria, Search
from tonsor.plan_json import plan_from_json, plan_to_json

QUICK = (
    "resnet_pad", "resnet_project", "densenet", "mobilenet_v2", "mobilenet_v3", "shufflenet_v2",
    "unet", "grouped_transposed", "decoder_gqa_rotary", "vit_multihead", "vit_qkv_chunk", "lstm",
    "convnext", "group_norm", "audio_conv1d", "flatten_after_concat", "heads_dict", "siamese",
    "hf_llama",
)  # fmt: skip
HERE = [case for case in ALL if case.name in QUICK]


def squares(output: Any, target: Any) -> Tensor:
    """A loss for whatever a model returns."""
    found = [t.double().square().mean() for t in tree_leaves(output)
             if isinstance(t, Tensor) and t.is_floating_point()]  # fmt: skip
    return torch.stack(found).sum()


def inspected(case: Case) -> tonsor.Anatomy:
    if case.name.startswith("hf_"):
        pytest.importorskip("transformers")
    model, args, kwargs = case.build()
    try:
        return tonsor.inspect(model, tonsor.Inputs(*args, **kwargs))
    except TraceError:
        pytest.skip("the model can't be followed")


def trains(anatomy: tonsor.Anatomy) -> bool:
    """Whether a loss of what the model returns tells its weights anything."""
    try:
        squares(anatomy.inputs.call(anatomy.model), None).backward()
    except RuntimeError:
        return False
    anatomy.model.zero_grad()
    return any(p.requires_grad for p in anatomy.model.parameters())


def search(anatomy: tonsor.Anatomy, **options: Any) -> LearnedCriteria:
    inputs, model = anatomy.inputs, anatomy.model
    given: dict[str, Any] = {"budget": "pieces=70%", "steps": 4, "loss": squares, **options}
    method = LearnedCriteria(
        model, anatomy, batches=[(inputs, None)], search=Search(lr=0.1), **given
    )
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for step in range(given["steps"] + 1):
        squares(inputs.call(model), None).backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
    return method


def check(case: Case) -> None:
    anatomy = inspected(case)
    model, names = anatomy.model, list(anatomy.model.state_dict())
    approximate = any(g.approximate for g in anatomy.prunable)
    if not trains(anatomy):
        pytest.skip("it can't be trained, with or without a search")
    try:
        method = search(anatomy)
    except (SelectionError, BudgetError, ScoreError) as error:
        pytest.skip(f"{type(error).__name__}: {error}")
    plan = plan_from_json(plan_to_json(method.finish()))
    assert list(model.state_dict()) == names
    slim = plan.apply(model, verify=False)
    if not approximate:
        assert plan.prove(model, slim, inputs=anatomy.inputs).error < 1e-6
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in model.parameters())
    assert plan.made_by["met"]
    assert len(plan.made_by["sites"]) == len(method.sites)


@pytest.mark.parametrize("case", HERE, ids=lambda case: case.name)
def test_a_search_of_it_can_be_cut(case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [c for c in ALL if c.name != "hf_levit"], ids=lambda case: case.name
)  # which keeps what it has computed from one call to the next, outside of training
def test_any_search_of_it_can_be_cut(case: Case) -> None:
    check(case)


def test_groups_that_are_tied_are_one_site() -> None:
    """They lose pieces together, such as all of the stream that makes one more of each head."""
    (case,) = (c for c in ALL if c.name == "vit_multihead")
    anatomy = inspected(case)
    ties = {g.tie for g in anatomy.prunable if g.tie is not None}
    assert ties
    method = search(anatomy)
    names = list(method.pools.there)
    for tie in ties:
        members = {g.name for g in anatomy.prunable if g.tie == tie}
        (site,) = (s for s in method.sites.every if members & {names[p] for p in s.pools})
        assert members == {names[p] for p in site.pools}
    method.finish()


def test_a_model_without_a_loss_of_its_own_asks_for_one() -> None:
    (case,) = (c for c in ALL if c.name == "heads_dict")
    anatomy = inspected(case)
    with pytest.raises(TonsorError, match="give one as loss="):
        search(anatomy, loss=None)
