"""Each family from the first step to the cut, on nets of all kinds of convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tonsor
from tests.criteria.nets import settled
from tests.methods.spp.nets import NETS, looks
from tonsor.methods.lfpc import LearnedCriteria, Search
from tonsor.plan_json import plan_from_json, plan_to_json

FAMILIES: Any = ("channels", "filters", "stripes", "columns")
SOME = ("plain", "bias", "grouped", "depthwise", "one dimension", "three dimensions", "flat",
        "dense", "twice", "residual", "gated", "beside", "inverted", "tied", "bare", "mixer",
        "convnet", "shortcut B")  # fmt: skip


def searched(
    name: str, family: Any, steps: int = 8, **options: Any
) -> tuple[Any, Tensor, tonsor.Anatomy, LearnedCriteria]:
    """A net that has searched in float64, and trained on for a few steps."""
    build, shape = NETS[name]
    torch.manual_seed(0)
    model = settled(build().double())
    x = torch.randn(6, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    anatomy = tonsor.inspect(model, x[:4])
    other = [(x[:4].flip(-1), torch.tensor([1, 0, 2, 2])), (x[2:].flip(-1), torch.arange(4) % 3)]
    given: dict[str, Any] = {"budget": "pieces=60%", "seed": 2, **options}
    method = LearnedCriteria(
        model.train(), anatomy, family=family, steps=steps, batches=other,
        search=Search(lr=0.1), **given,
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9, weight_decay=1e-3)
    method.attach(optimizer)
    for step in range(steps + 2):
        F.cross_entropy(model(x[:4]), torch.tensor([0, 1, 2, 1])).backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
    assert method.over
    return model.eval(), x, anatomy, method


def ends_well(model: Any, x: Tensor, anatomy: tonsor.Anatomy, method: Any) -> tonsor.Plan:
    """Finish, and compare what the model computes before, after, and when it is cut."""
    before, parameters = model(x).detach(), dict(anatomy.parameters)
    assert bool((before[1:] - before[:1]).abs().max() > 1e-7)  # it looks at its input
    plan = plan_from_json(plan_to_json(method.finish()))
    assert torch.equal(model(x), before)
    now = dict(model.named_parameters(remove_duplicate=False))
    assert all(now[n] is p for n, p in parameters.items())
    slim = plan.apply(model)
    torch.testing.assert_close(slim(x), before, rtol=1e-12, atol=1e-12)
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in model.parameters())
    assert plan.made_by["reached"] <= plan.made_by["whole"] * 0.6
    return plan


# Masking is not cutting where a layer norm runs over what goes, as it does over that of the mixer.
PAIRS = [(n, f) for n in SOME for f in FAMILIES if (n, f) != ("mixer", "channels")]


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_what_is_learned_is_cut(name: str, family: Any) -> None:
    model, x, anatomy, method = searched(name, family)
    assert method.decided is not None
    clean = looks(NETS[name][0]())[1]
    plan = ends_well(model, x, anatomy, method)
    assert [m[0] for m in looks(model)[1]] == [m[0] for m in clean]
    for site, left in zip(method.sites.every, method.decided.left, strict=True):
        for pool, unit in zip(site.pools, site.units, strict=True):
            assert int(method.decided.kept[pool].sum()) == left * unit
    if family == "channels":
        for name_of, kept in zip(method.pools.there, method.decided.kept, strict=True):
            stays = tuple(kept.nonzero().flatten().tolist())
            assert plan.keep.get(name_of, tuple(range(len(kept)))) == stays
    elif family != "filters":
        assert plan.stripes if family == "stripes" else plan.columns


@pytest.mark.parametrize("budget", ["pieces=60%", "macs=70%"])
@pytest.mark.parametrize("name", ["resnet20", "mixer"])
def test_blocks_are_one_site_of_which_some_go(name: str, budget: str) -> None:
    options = {"criteria": ["l1", "l2"], "budget": budget}
    model, x, _, method = searched(name, "blocks", **options)
    (site,) = method.sites.every
    assert site.steps == (4 if name == "mixer" else 7)
    before = model(x).detach()
    plan = method.finish()
    names = [b.name for b in method.pools.blocks]  # pyright: ignore[reportAttributeAccessIssue]
    assert method.decided is not None
    (kept,) = method.decided.kept
    assert {d.name for d in plan.drops} == {n for n, k in zip(names, kept, strict=True) if not k}
    assert plan.drops
    assert plan.made_by["met"]
    torch.testing.assert_close(plan.apply(model)(x), before, rtol=1e-12, atol=1e-12)
