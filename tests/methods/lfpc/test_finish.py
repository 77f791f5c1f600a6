"""At the end: what is masked is what is cut, the model is plain again, and a plan tells how."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import tonsor
from tests.methods.lfpc.pictures import begun, drive, learned, looks, made, masks, other, pictures
from tests.refusals import said
from tonsor.errors import BudgetError, SelectionError, TonsorError, TrainError
from tonsor.methods.lfpc import LearnedCriteria, Search
from tonsor.plan_json import plan_from_json, plan_to_json

FAST = Search(lr=0.1)
FAMILIES: Any = ("channels", "filters", "stripes", "columns")


def ended(
    kind: str = "residual", steps: int = 15, after: Any = None, **options: Any
) -> tuple[Any, Any, LearnedCriteria]:
    """A net in float64 that has searched and trained on."""
    net, anatomy = made(kind, double=True)
    given: dict[str, Any] = {"search": FAST, **options}
    if after is not None:
        given["after"] = after(anatomy)
    method = learned(net, anatomy, **given)
    drive(net, method, pictures(steps, double=True))
    return net.eval(), anatomy, method


@torch.no_grad()
def out(net: Any) -> Tensor:
    return net(torch.cat([x for x, _ in other(1, double=True)]))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["residual", "chain", "residual bias", "chain bias"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("masked", ["soft", "straight"])
def test_what_is_cut_computes_what_was_masked(kind: str, family: Any, masked: Any) -> None:
    clean = looks(made(kind)[0])[1]
    net, anatomy, method = ended(kind, family=family, search=FAST.but(masks=masked))
    before = out(net)
    assert bool((before[1:] - before[:1]).abs().max() > 1e-6)  # it looks at its input
    parameters = dict(anatomy.parameters)
    plan = method.finish()
    close(out(net), before)
    assert not masks(net)
    assert looks(net)[1] == clean
    now = dict(net.named_parameters(remove_duplicate=False))
    assert all(now[n] is p for n, p in parameters.items())
    slim = plan_from_json(plan_to_json(plan)).apply(net)
    close(out(slim), before)
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in net.parameters())
    assert plan.made_by["reached"] <= method.target < plan.made_by["whole"]


def test_a_plan_tells_what_each_site_chose_and_how_sure_it_was() -> None:
    net, method = begun("chain", search=FAST, seed=3)
    drive(net, method, pictures(12))
    plan, odds = method.finish(), method.sampler.odds()
    told, decided = plan.made_by, method.decided
    assert decided is not None
    assert (told["method"], told["seed"], told["steps"], told["budget"]) == (
        "lfpc", 3, 12, "macs=50%"
    )  # fmt: skip
    assert told["criteria"] == ["l1", "l2", "geometric_median"]
    assert told["search"]["lr"] == 0.1
    assert list(told["sites"]) == [f"conv{i}.weight[0]" for i in (1, 2, 3)]
    for i, (name, site) in enumerate(told["sites"].items()):
        assert site["criterion"] == method.criteria[int(odds.criteria[i].argmax())]
        assert site["of"] == len(net.get_submodule(name.partition(".")[0]).weight)
        kept = plan.keep.get(name, range(site["of"]))
        assert site["left"] == len(kept) == int(decided.kept[i].sum())
        assert site["criteria"] == pytest.approx(odds.criteria[i].tolist(), abs=1e-4)
        assert site["rates"] == pytest.approx(odds.rates[i].tolist(), abs=1e-4)
    assert told["learned"] == decided.learned
    assert told["reached"] == tonsor.inspect(plan.apply(net), torch.zeros(2, 1, 8, 8)).cost.macs()


def test_a_training_that_ends_before_the_search_takes_what_is_likeliest() -> None:
    net, method = begun("chain", search=FAST, steps=30)
    drive(net, method, pictures(8))
    assert not method.over
    likely = method.sampler.odds().criteria.argmax(1).tolist()
    plan = method.finish()
    assert "ended after 8 of 30 steps" in plan.made_by["notes"][0]
    chosen = [site["criterion"] for site in plan.made_by["sites"].values()]
    assert chosen == [method.criteria[i] for i in likely]
    assert plan.made_by["met"]
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(plan.apply(net.eval())(x), net(x), rtol=1e-4, atol=1e-5)


def test_what_is_masked_outside_of_training_is_what_is_likeliest() -> None:
    net, method = begun("chain", search=FAST.but(exact=False, tolerance=1.0))
    drive(net, method, pictures(11))
    for mask in masks(net).values():
        assert bool(((mask.kept == 0) | (mask.kept == 1)).all())
        assert bool(((mask.drawn > 0) & (mask.drawn < 1)).any())
    kept = {n: m.kept.clone() for n, m in masks(net).items()}
    likely = method.sampler.odds()
    left = [site.left[int(r.argmax())] for site, r in zip(method.sites.every, likely.rates,
                                                        strict=True)]  # fmt: skip
    for i, norm in enumerate(("bn1", "bn2", "bn3")):
        assert int(kept[f"{norm}.weight"].sum()) == left[i]


def test_pieces_that_are_gone_stay_gone_while_training_goes_on() -> None:
    net, method = begun("chain", search=FAST)
    optimizer = drive(net, method, pictures(12))
    assert method.decided is not None
    kept = [k.clone() for k in method.decided.kept]
    odds = method.sampler.theta.detach().clone()
    drive(net, method, pictures(6, seed=5), optimizer=optimizer, first=12)
    plan = method.finish()
    assert torch.equal(method.sampler.theta, odds)
    for name, mine in zip(method.pools.there, kept, strict=True):
        stays = mine.nonzero().flatten().tolist()
        assert plan.keep.get(name, tuple(range(len(mine)))) == tuple(stays)
    for norm, mine in zip((net.bn1, net.bn2, net.bn3), kept, strict=True):
        assert torch.equal(norm.weight != 0, mine)
        assert torch.equal(norm.bias != 0, mine)


@pytest.mark.parametrize("family", ["channels", "stripes", "columns"])
def test_what_an_earlier_plan_removes_stays_away(family: Any) -> None:
    def after(anatomy: Any) -> Any:
        made = {"stripes": tonsor.plan_stripes, "columns": tonsor.plan_columns}
        return made.get(family, tonsor.plan)(anatomy, "params=80%")

    net, anatomy, method = ended(after=after, family=family, budget="macs=45%")
    before = out(net)
    earlier = after(anatomy)
    assert any(not bool(t.all()) for t in method.pools.there.values())
    plan = method.finish()
    close(out(net), before)
    close(out(plan.apply(net)), before)
    for name, kept in plan.keep.items():
        assert set(kept) <= set(earlier.keep.get(name, kept))
    assert plan.made_by["reached"] <= 0.45 * plan.made_by["whole"]
    for name, there in method.pools.there.items():
        site = plan.made_by["sites"][name]
        assert site["left"] <= site["of"] == int(there.sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_is_no_site(family: Any) -> None:
    net, anatomy = made("chain")
    method = learned(net, anatomy, family=family, keep=["conv2", net.conv1], budget="macs=95%")
    assert [s.name.partition(".")[0] for s in method.sites.every] == ["conv3"]
    assert {n.partition(".")[0] for n in masks(net)} <= {"bn3", "conv3"}
    method.release()


def test_sites_that_lose_multiples() -> None:
    options = FAST.but(round_to=2, exact=False, tolerance=1.0)
    net, method = begun("chain", search=options)
    drive(net, method, pictures(12))
    assert all(n % 2 == 0 for site in method.sites.every for n in site.left)
    plan = method.finish()
    assert all(site["left"] % 2 == 0 for site in plan.made_by["sites"].values())


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": "macs=1%"}, "can't be reached by rates up to 0.7"),
        ({"budget": "macs=1%"}, "Let rates go further, or keep more"),
        ({"budget": "macs=90%", "search": Search(rates=(0.5, 0.7))}, "let them begin at 0"),
        ({"budget": "latency=50%"}, "can't be searched for"),
        ({"budget": "spp_speedup=2x"}, "ask for macs=..., params=..."),
        ({"budget": "nothing=50%"}, "nothing"),
        ({"batches": []}, "give at least one minibatch"),
        ({"batches": iter([])}, "a generator is spent after one; give batches=... as a list"),
        ({"steps": 0}, "at least 1, got 0"),
        ({"steps": 2.0}, "at least 1, got 2.0"),
        ({"steps": True}, "at least 1, got True"),
        ({"criteria": []}, "criteria is a list"),
        ({"criteria": "l1"}, "criteria is a list"),
        ({"criteria": ["l1", "l2", "l1"]}, "may be there once, got l1, l2, l1"),
        ({"criteria": ["l1", "l22"]}, "did you mean l2"),
        ({"criteria": ["l1", "apoz"]}, "'apoz' looks at data"),
        ({"keep": ["nothing"]}, "nothing"),
        ({"keep": ["stem", "first", "second", "linear"]}, "may go in this way"),
        ({"family": "rows"}, "family must be one of channels, filters, stripes, columns"),
        ({"family": "blocks"}, "no block of this model may go in this way"),
        ({"combine": "most"}, "combine"),
    ],
)
def test_what_makes_no_sense_is_refused_and_the_model_is_left_as_it_was(
    options: dict[str, Any], words: str
) -> None:
    net, anatomy = made()
    before, weights = looks(net), copy.deepcopy(net.state_dict())

    def act() -> None:
        method = learned(net, anatomy, **options)
        try:
            drive(net, method, pictures(1))
        finally:
            method.release()

    assert words in said(TonsorError, act)
    assert looks(net) == before
    if "batches" not in options:
        assert all(torch.equal(t, weights[n]) for n, t in net.state_dict().items())


def test_the_minimum_is_told_of_a_budget_out_of_reach() -> None:
    with pytest.raises(BudgetError) as caught:
        begun("chain", budget="macs=5%")
    least = caught.value.minimum
    assert least is not None
    assert f"{least:,.6g} of 12,156 are left where all sites take that" in str(caught.value)
    begun("chain", budget=f"macs={int(least) + 1}")[1].release()


@pytest.mark.parametrize("act", ["finish", "before_step", "after_step"])
def test_a_finished_search_does_nothing_more(act: str) -> None:
    net, method = begun(search=FAST)
    drive(net, method, pictures(13))
    method.finish()
    step = () if act == "finish" else (13,)
    words = said(TrainError, lambda: getattr(method, act)(*step))
    assert "is finished, its masks are off; make a new one" in words


def test_models_of_others_and_what_is_masked_already_are_refused() -> None:
    net, anatomy = made()
    wrong, _ = made()
    assert "made of another" in said(SelectionError, lambda: learned(wrong, anatomy))
    first = learned(net, anatomy)
    before = looks(net)
    assert "is masked already" in said(SelectionError, lambda: learned(net, anatomy))
    assert looks(net) == before
    first.release()
    learned(net, anatomy).release()


def test_weights_that_are_no_numbers_are_refused() -> None:
    net, method = begun()
    with torch.no_grad():
        net.first.weight.fill_(torch.nan)
    assert "nan" in said(TonsorError, lambda: method.after_step(0))
    method.release()
