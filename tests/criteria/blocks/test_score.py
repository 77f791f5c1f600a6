"""What blocks are ranked by otherwise: similarity, votes, chance; names, notes, and files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn

import tonsor
from tests.criteria.blocks.nets import fresh, outputs, plain, resnet, seen, tokens
from tests.criteria.nets import pictures
from tonsor.criteria.blocks.compare import block_correlation
from tonsor.criteria.blocks.score import block_criteria, score_blocks
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.criteria.blocks.similarity import distances
from tonsor.criteria.blocks.voting import FIVE, vote
from tonsor.criteria.registry import CRITERIA
from tonsor.errors import ScoreError, SelectionError
from tonsor.families.blocks.block import Blocks
from tonsor.families.blocks.find import find_blocks
from tonsor.graph.inputs import Inputs

# ---------------------------------------------------------------- similarity


@pytest.mark.parametrize("by", ["cosine", "cosine:angular=true"])
def test_maps_are_compared_as_a_whole(by: str) -> None:
    net = resnet()
    anatomy, blocks = seen(net)
    batches = pictures(3)
    found = score_blocks(anatomy, blocks, by, batches=iter(batches), quiet=True)
    every = [outputs(net, blocks, x) for x, _ in batches]
    for name, value in found.values.items():
        wanted = []
        for each in every:
            for before, after in zip(*each[name], strict=True):
                cosine = F.cosine_similarity(before.flatten(), after.flatten(), dim=0)
                wanted.append(math.acos(cosine) / math.pi if "angular" in by else 1 - cosine)
        assert value == pytest.approx(float(sum(wanted)) / 12)
    assert set(found.unscored) == {"layer2.0", "layer3.0"}
    assert found.unscored["layer2.0"] == "it turns 4 x 8 x 8 into 8 x 4 x 4"
    assert found.conditions == {"samples": 12}


def test_tokens_are_compared_one_by_one() -> None:
    net, anatomy, blocks = tokens()
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    found = score_blocks(anatomy, blocks, "cosine", batches=[x], quiet=True)
    for name, (before, after) in outputs(net, blocks, x).items():
        wanted = 1 - F.cosine_similarity(before, after, dim=-1).mean()
        assert found[name] == pytest.approx(float(wanted))


FORMS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "tensor": lambda x, _: x,
    "with a target": lambda x, y: (x, y),
    "inputs": lambda x, _: Inputs(x),
    "without a target": lambda x, _: (Inputs(x), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_targets_are_not_needed(form: str) -> None:
    anatomy, blocks = seen(resnet())
    batches = pictures(2)
    given = [FORMS[form](x, y) for x, y in batches]
    found = score_blocks(anatomy, blocks, "cosine", batches=given, quiet=True)
    assert found.values == score_blocks(anatomy, blocks, "cosine", batches=batches).values


class InPlace(nn.Module):
    """A residual block that begins with an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.linear = nn.ReLU(inplace=True), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.act(x.clone() if self.training else x))


def test_what_goes_in_is_seen_before_an_activation_in_place() -> None:
    first, block = nn.Linear(3, 5), InPlace()
    net = nn.Sequential(first, block, nn.Linear(5, 2)).double().eval()
    anatomy = tonsor.inspect(net, torch.randn(2, 3, dtype=torch.float64))
    (mine,) = (b for b in find_blocks(anatomy) if b.name == "1")
    x = torch.randn(4, 3, dtype=torch.float64)
    found = score_blocks(anatomy, Blocks((mine,)), "cosine", batches=[x], quiet=True)
    given = first(x).detach()
    wanted = 1 - F.cosine_similarity(given, block(given.clone()).detach(), dim=1).mean()
    assert found["1"] == pytest.approx(float(wanted))


def test_distances_at_the_edge() -> None:
    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    assert distances(zero, zero).item() == 0
    assert distances(zero, one).item() == 1
    assert distances(one, -2 * one).item() == pytest.approx(2)
    assert distances(one, one * 3, angular=True).item() == pytest.approx(0, abs=1e-3)
    assert distances(one.half() * 6e4, one.half() * 6e4).item() == 0  # squares overflow in half
    assert distances(one, -one, angular=True).item() == pytest.approx(1)


# ---------------------------------------------------------------- votes


def scores(by: str = "x", **values: float) -> BlockScores:
    return BlockScores(values, by)


def test_one_outlying_criterion_decides() -> None:
    # Four of five put b7 before b17, but one puts b7 last by far.
    mostly = [
        scores(f"m{i}", b1=0.1, b7=0.2, b17=0.3, b2=0.4, b3=0.5, b4=0.6, b5=0.7, b6=0.8)
        for i in range(4)
    ]
    outlier = scores("maps", b17=0.0, b1=0.1, b2=0.2, b3=0.3, b4=0.4, b5=0.5, b6=0.6, b7=0.7)
    found = vote([*mostly, outlier])
    assert dict(found.values)["b7"] == 4 * 1 + 7
    assert dict(found.values)["b17"] == 4 * 2 + 0
    assert found.ranking(["b7", "b17"]) == ("b17", "b7")
    assert found.ranking()[0] == "b1"
    assert all(s.ranking(["b7", "b17"])[0] == "b7" for s in mostly)


def test_ties_share_their_rank_and_what_one_can_not_judge_has_none() -> None:
    first = BlockScores({"a": 1.0, "b": 1.0, "c": 3.0, "d": 0.0}, "x")
    second = BlockScores({"a": 1.0, "b": 2.0, "c": 3.0}, "y", {"d": "it has none"})
    found = vote([first, second])
    assert dict(found.values) == {"a": 0.5 + 0, "b": 0.5 + 1, "c": 2 + 2}
    assert found.unscored == {"d": "'y' can't judge it: it has none"}
    with pytest.raises(ScoreError, match="at least one"):
        vote([])
    with pytest.raises(ScoreError, match="no block is judged by all of x, z"):
        vote([first, scores("z", q=1.0)])


@given(st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=4))
def test_a_vote_counts_who_comes_before(rows: list[list[int]]) -> None:
    found = vote([scores(str(i), **dict(zip("abcde", r, strict=True))) for i, r in enumerate(rows)])
    for j, name in enumerate("abcde"):
        wanted = sum(sum(v < r[j] for v in r) + (r.count(r[j]) - 1) / 2 for r in rows)
        assert found[name] == wanted


def test_the_five_vote() -> None:
    anatomy, blocks = seen(resnet(), 32)
    batches = pictures(1, side=32)
    each = [score_blocks(anatomy, blocks, by, batches=batches, quiet=True) for by in FIVE.values()]
    found = score_blocks(anatomy, blocks, "ensemble", batches=batches, quiet=True)
    assert found.values == vote(each).values
    assert found.conditions["members"] == [s.by for s in each] == list(FIVE.values())
    some = score_blocks(anatomy, blocks, "ensemble:l1+bn_scale,inner=true")
    inner = [score_blocks(anatomy, blocks, f"{by}:inner=true") for by in ("l1", "bn_scale")]
    assert some.values == vote(inner).values
    assert some.by == "ensemble:l1+bn_scale,inner=True"
    assert score_blocks(anatomy, blocks, some.by).values == some.values
    with pytest.raises(SelectionError, match="gone through only once"):
        score_blocks(anatomy, blocks, "ensemble", batches=iter(batches), quiet=True)


# ---------------------------------------------------------------- agreement


@given(st.lists(st.integers(0, 6), min_size=8, max_size=8), st.permutations(range(8)))
def test_agreement_over_what_both_have_judged(drawn: list[int], order: list[int]) -> None:
    a = BlockScores({f"n{i}": float(v) for i, v in enumerate(drawn)}, "a")
    b = BlockScores({f"n{i}": float(i) for i in order if i > 1} | {"other": 9.0}, "b")
    both = drawn[2:]
    found = block_correlation(a, b)
    if len(set(both)) == 1:
        assert found is None
        return
    x = np.array([sum(w < v for w in both) + (both.count(v) + 1) / 2 for v in both])
    assert found == pytest.approx(np.corrcoef(x, np.arange(6.0))[0, 1])
    assert found == pytest.approx(block_correlation(b, a))
    assert block_correlation(a, b, ["n2", "n3"]) is None


# ---------------------------------------------------------------- names and options


@pytest.mark.parametrize(
    ("by", "says"),
    [("imprnt", "did you mean imprint"), ("taylor", "did you mean taylor_"), ("zzzz", "known: .*"),
     ("imprint:siz=3", "'siz=3' is no option of 'imprint'; it has size=0, first=zero"),
     ("imprint:first=third", "must be one of zero, stem"), ("probe:size=x", "of type int"),
     ("l1:p=2", "no option of 'l1'"), ("l1:inner=maybe", "of type bool"), (3, "given by name"),
     ("ensemble:l1+nothing", "no criterion of blocks"), ("random:seed=1", "it has none")],
)  # fmt: skip
def test_what_is_not_understood(by: str, says: str) -> None:
    anatomy, blocks = seen(resnet())
    with pytest.raises(SelectionError, match=says):
        score_blocks(anatomy, blocks, by, batches=pictures(2), quiet=True)


def test_data_and_blocks_are_asked_for() -> None:
    anatomy, blocks = seen(resnet())
    for by in ("imprint", "probe", "cosine", "ensemble", "taylor_gate"):
        with pytest.raises(SelectionError, match=r"give it as batches="):
            score_blocks(anatomy, blocks, by)
    with pytest.raises(SelectionError, match="no blocks"):
        score_blocks(anatomy, Blocks(()), "l1")
    anatomy, blocks = seen(fresh().to("meta"))
    with pytest.raises(ScoreError, match="meta device"):
        score_blocks(anatomy, blocks, "l1")
    assert len(score_blocks(anatomy, blocks, "random").values) == 9


def test_all_names_have_one_line() -> None:
    found = block_criteria()
    assert set(found) == {"imprint", "probe", "cosine", "ensemble", "random", *CRITERIA}
    assert all(text.endswith(".") and "\n" not in text for text in found.values())
    assert found["l1"].startswith("Mean over filters: ")


def test_options_are_written_as_they_are_read() -> None:
    anatomy, blocks = seen(resnet())
    batches = pictures(2)
    for by in ("imprint:size=64,first=stem", "cosine:angular=True", "lp:p=4.0,squared=True",
               "taylor_gate:per_sample=True,inner=True"):  # fmt: skip
        found = score_blocks(anatomy, blocks, by, batches=batches, quiet=True)
        assert found.by == by


def test_chance_is_by_the_seed() -> None:
    anatomy, blocks = seen(resnet())
    one, same, other = (score_blocks(anatomy, blocks, "random", seed=s) for s in (0, 0, 1))
    assert one.values == same.values != other.values


@pytest.mark.parametrize("by", ["imprint", "probe", "cosine", "taylor_gate"])
def test_nothing_is_changed(by: str) -> None:
    net = fresh()
    net.train()
    net.get_submodule("layer2").eval()
    net.get_parameter("conv1.weight").requires_grad_(False)
    anatomy, blocks = seen(net)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    torch.manual_seed(4)
    wanted = torch.rand(2)
    torch.manual_seed(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score_blocks(anatomy, blocks, by, batches=pictures(3), quiet=True)
    assert torch.rand(2).equal(wanted)
    assert all(t.equal(before[n]) for n, t in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert not net.get_parameter("conv1.weight").requires_grad
    for module in net.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(p.grad is None for p in net.parameters())


RAN: list[tuple[bool, ...]] = []


class Draws(nn.Module):
    """A network that draws even in eval mode, and notes how it is run."""

    def __init__(self) -> None:
        super().__init__()
        self.net = fresh()

    def forward(self, x: Tensor) -> Tensor:
        fast = torch.backends.mha.get_fastpath_enabled()
        RAN.append((fast, torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()))
        return self.net(x + torch.rand_like(x))


@pytest.mark.parametrize("by", ["imprint", "cosine"])
def test_chance_in_the_model_is_by_the_seed_and_nothing_is_drawn_from_outside(by: str) -> None:
    anatomy, blocks = seen(Draws())
    RAN.clear()
    torch.manual_seed(4)
    state = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, same, other = (
            score_blocks(anatomy, blocks, by, batches=pictures(3), seed=s) for s in (0, 0, 1)
        )
    assert torch.get_rng_state().equal(state)
    assert one.values == same.values
    assert one.values != other.values
    assert set(RAN) == {(False, False, False)}


# ---------------------------------------------------------------- what scores say


def test_ranking_is_ascending_and_ties_stay_in_order() -> None:
    found = scores(c=2.0, a=1.0, b=1.0, d=-1.0)
    assert found.ranking() == ("d", "a", "b", "c")
    assert found.ranking(["b", "c", "a", "nothing"]) == ("a", "b", "c")
    assert "gives 1 blocks a score that another has too" in str(found)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(-1, 1), max_size=4),
       st.none() | st.floats(0, 1))  # fmt: skip
def test_what_is_written_is_read_back(values: dict[str, float], network: float | None) -> None:
    curve = dict.fromkeys(values, 0.5) if network else None
    found = BlockScores(values, "x", {"q": "why"}, {"judged": 3, "untaught": [1]}, curve, network)
    assert BlockScores.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_real_scores_are_plain_data() -> None:
    anatomy, blocks = seen(plain(), 32)
    for by in ("imprint", "ensemble:l1+l2", "cosine"):
        found = score_blocks(anatomy, blocks, by, batches=pictures(2, side=32), quiet=True)
        assert BlockScores.from_json(json.loads(json.dumps(found.to_json()))) == found
        assert all(b.name in str(found) for b in blocks if b.name in found.values)


@pytest.mark.parametrize("data", [{}, {"by": "x"}, {"by": "x", "values": 3},
                                  {"by": "x", "values": {"a": "b"}},
                                  {"by": "x", "values": {"a": math.nan}}])  # fmt: skip
def test_what_is_no_scores(data: dict[str, object]) -> None:
    with pytest.raises(ScoreError):
        BlockScores.from_json(data)
