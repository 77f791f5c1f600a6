"""At the end nothing changes: not when masks are taken off, nor when pieces are cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tonsor
from tests.criteria.nets import settled
from tests.methods.spp.nets import NETS, gone, looks
from tests.refusals import said
from tonsor.errors import SelectionError
from tonsor.methods.spp import ByChance

FAMILIES: Any = ("columns", "stripes", "channels")
SOME = ("plain", "bias", "grouped", "depthwise", "one dimension", "three dimensions", "flat",
        "dense", "twice", "residual", "resnet20", "gated", "beside", "inverted", "tied", "bare",
        "mixer", "convnet", "vgg16 with bias", "shortcut B")  # fmt: skip


def trained(
    name: str, family: Any, steps: int = 14, after: Any = None, **options: Any
) -> tuple[Any, Tensor, tonsor.Anatomy, ByChance]:
    """A net that has trained for some steps in float64, so that all that goes has gone."""
    build, shape = NETS[name]
    torch.manual_seed(0)
    model = settled(build().double())
    x = torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    anatomy = tonsor.inspect(model, x)
    given: dict[str, Any] = {"ratio": 0.5, "interval": 1, "most": 0.4, "seed": 2, **options}
    if after is not None:
        given["after"] = after(anatomy)
    method = ByChance(model.train(), anatomy, family=family, **given)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9, weight_decay=1e-3)
    method.attach(optimizer)
    for step in range(steps):
        F.cross_entropy(model(x), torch.tensor([0, 1, 2, 1])).backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
    return model.eval(), x, anatomy, method


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def ends_well(model: Any, x: Tensor, anatomy: tonsor.Anatomy, method: ByChance) -> tonsor.Plan:
    """Finish, and compare what the model computes before, after, and when it is cut."""
    if not method.over:  # what is to go at the end goes now, so that it can be compared
        method.chances.finish_now([s[0] for s in method.pools.scores()])
        method._settle()
        method.after_step(10**6)
    before, parameters = model(x).detach(), dict(anatomy.parameters)
    assert bool((before[1:] - before[:1]).abs().max() > 1e-7)  # it looks at its input
    plan = method.finish()
    assert torch.equal(model(x), before)
    now = dict(model.named_parameters(remove_duplicate=False))
    assert all(now[n] is p for n, p in parameters.items())
    slim = plan.apply(model)
    close(slim(x), before)
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in model.parameters())
    return plan


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SOME)
def test_nothing_changes_at_the_end(name: str, family: Any) -> None:
    model, x, anatomy, method = trained(name, family, elementwise=name in ("plain", "dense"))
    plan = ends_well(model, x, anatomy, method)
    lost = gone(method)
    for pool in method.chances.pools:
        assert len(lost[pool.name]) == -(-pool.size // 2) == pool.lost
    if family == "channels":
        for name_of, some in lost.items():
            assert not set(plan.keep[name_of]) & some
    else:
        assert plan.stripes if family == "stripes" else plan.columns


@pytest.mark.parametrize("name", ["resnet20", "shortcut B", "mixer"])
def test_blocks_go_by_what_their_branch_ends_in(name: str) -> None:
    model, x, anatomy, method = trained(name, "blocks", ratio=0.5)
    (pool,) = method.chances.pools
    assert pool.size == (4 if name == "mixer" else 7)
    plan = ends_well(model, x, anatomy, method)
    names = [b.name for b in method.pools.blocks]  # pyright: ignore[reportAttributeAccessIssue]
    assert {d.name for d in plan.drops} == {names[i] for i in gone(method)["blocks"]}
    assert len(plan.drops) == -(-pool.size // 2)


def test_groups_over_which_a_norm_runs_are_left_out() -> None:
    build, shape = NETS["mixer"]
    model = build().train()
    anatomy = tonsor.inspect(model, torch.randn(2, *shape))
    assert any(g.approximate for g in anatomy.prunable)
    method = ByChance(model, anatomy, family="channels", ratio=0.5)
    assert {p.name for p in method.chances.pools}.isdisjoint(
        {g.name for g in anatomy.prunable if g.approximate or g.tie is not None}
    )
    method.release()


# ---------------------------------------------------------------- after another plan


EARLIER: dict[str, Any] = {
    "channels": lambda a: tonsor.plan(a, "macs=70%", floor=0.5),
    "columns": lambda a: tonsor.plan_columns(a, "macs=80%", keep=["layer2.*"]),
    "stripes": lambda a: tonsor.plan_stripes(a, "macs=80%", keep=["layer2.*"]),
    "blocks": lambda a: tonsor.plan_blocks(a, remove=["layer1.1", "layer3.2"], by="random"),
}
PAIRS = [(f, e) for f in ("columns", "stripes", "channels", "blocks") for e in EARLIER
         if not (f == "channels" and e != "channels")]  # fmt: skip


@pytest.mark.parametrize(("family", "earlier"), PAIRS)
def test_what_an_earlier_plan_removes_stays_gone_and_does_not_count(
    family: Any, earlier: str
) -> None:
    model, x, anatomy, method = trained("resnet20", family, after=EARLIER[earlier])
    before = EARLIER[earlier](anatomy) if earlier != "blocks" else None
    for pool in method.chances.pools:
        assert pool.lost == -(-int(pool.there.sum()) // 2)
        if earlier == family:
            assert int(pool.there.sum()) < pool.size or pool.size == int(pool.there.sum())
    if earlier == family != "blocks":
        assert any(not pool.there.all() for pool in method.chances.pools)
    plan = ends_well(model, x, anatomy, method)
    if earlier == "blocks":
        assert {d.name for d in plan.drops} >= {"layer1.1", "layer3.2"}
    elif before is not None:
        assert set(before.keep) <= set(plan.keep)
        for weight, fibres in before.fibres.items():
            mine = plan.fibres.get(weight)
            assert mine is None or not (mine.mask & ~fibres.mask).any()


def test_a_block_that_could_not_be_held_at_zero_is_refused() -> None:
    build, shape = NETS["resnet20"]
    model = build()
    anatomy = tonsor.inspect(model, torch.randn(2, *shape))
    earlier = tonsor.plan_blocks(anatomy, remove=["layer1.1"], by="random")
    unknown = replace(earlier, drops=tuple(replace(d, name="other") for d in earlier.drops))
    before = looks(model)
    for family in ("columns", "stripes"):
        chosen: Any = family
        words = said(
            SelectionError,
            lambda chosen=chosen: ByChance(model, anatomy, family=chosen, ratio=0.5, after=unknown),
        )
        assert "block 'other', which can't be held" in words
        assert looks(model) == before
