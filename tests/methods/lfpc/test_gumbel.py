from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tonsor.methods.lfpc.gumbel import cooled, gumbel, relaxed

LOGITS = st.lists(st.floats(-20, 20), min_size=2, max_size=6)
EXTREME = st.lists(st.sampled_from([-1e300, -1e4, -800.0, 0.0, 1.0, 700.0, 1e5, 1e300]),
                   min_size=3, max_size=6)  # fmt: skip
HEAT = st.sampled_from([5.0, 1.0, 0.1])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def row(values: list[float]) -> Tensor:
    return torch.tensor([values], dtype=torch.float64, requires_grad=True)


def far_off(counts: Counter[int], odds: list[float], total: int) -> float:
    """Chi-square, by the degrees of freedom."""
    return sum((counts[i] - total * p) ** 2 / (total * p) for i, p in enumerate(odds)) / len(odds)


@pytest.mark.parametrize("heat", [5.0, 0.1])
@pytest.mark.parametrize("odds", [[0.5, 0.3, 0.2], [0.9, 0.06, 0.04], [0.25] * 4])
def test_draws_follow_the_odds(odds: list[float], heat: float) -> None:
    total = 20_000
    logits = torch.tensor(odds, dtype=torch.float64).log().expand(total, -1) + 3.0
    drawn = relaxed(logits, heat, gumbel((total, len(odds)), seeded(0)), hard=True)
    counts = Counter(drawn.argmax(-1).tolist())
    assert far_off(counts, odds, total) < 4


def test_noise_is_that_of_gumbel() -> None:
    noise = gumbel((40_000,), seeded(1))
    assert noise.dtype == torch.float64
    assert noise.isfinite().all()
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.03)
    assert float(noise.std()) == pytest.approx(math.pi / math.sqrt(6), abs=0.03)
    for at in (-1.0, 0.0, 1.0, 3.0):
        share = float((noise <= at).double().mean())
        assert share == pytest.approx(math.exp(-math.exp(-at)), abs=0.015)


@given(LOGITS, HEAT, st.integers(0, 99))
def test_rows_are_the_softmax_of_noisy_log_odds(
    values: list[float], heat: float, seed: int
) -> None:
    noise = gumbel((1, len(values)), seeded(seed))
    taken = relaxed(row(values), heat, noise)[0]
    odds = [math.exp(v - max(values)) for v in values]
    noisy = [
        (math.log(o / sum(odds)) + n) / heat for o, n in zip(odds, noise[0].tolist(), strict=True)
    ]
    parts = [math.exp(n - max(noisy)) for n in noisy]
    assert taken.tolist() == pytest.approx([p / sum(parts) for p in parts], abs=1e-9)
    assert float(taken.detach().sum()) == pytest.approx(1, abs=1e-12)


@given(LOGITS, st.integers(0, 99))
def test_cold_draws_are_single_choices(values: list[float], seed: int) -> None:
    noise = gumbel((1, len(values)), seeded(seed))
    cold, hard = relaxed(row(values), 1e-9, noise), relaxed(row(values), 5.0, noise, hard=True)
    top = (torch.tensor(values) + noise[0]).topk(2).values
    if float(top[0] - top[1]) > 1e-6:
        assert cold.tolist() == hard.tolist()


@given(LOGITS, HEAT, st.booleans(), st.integers(0, 99))
def test_straight_through_is_one_choice_with_the_gradient_of_the_mixture(
    values: list[float], heat: float, few: bool, seed: int
) -> None:
    noise, among = gumbel((1, len(values)), seeded(seed)), 2 if few else None
    worth = torch.randn(1, len(values), generator=seeded(seed), dtype=torch.float64)
    grads, taken = [], []
    for hard in (False, True):
        logits = row(values)
        taken.append(
            relaxed(logits, heat, noise, hard=hard, among=among, generator=seeded(seed))
        )  # fmt: skip
        grads.append(torch.autograd.grad((taken[-1] * worth).sum(), logits)[0])
    soft, one = taken
    assert torch.equal(grads[0], grads[1])
    assert sorted(one[0].tolist()) == [0.0] * (len(values) - 1) + [1.0]  # to the last bit
    assert int(one.argmax()) == int(soft.argmax())


@given(EXTREME, HEAT, st.integers(2, 4), st.booleans(), st.integers(0, 99))
def test_so_many_are_mixed_and_others_are_nothing(
    values: list[float], heat: float, among: int, hard: bool, seed: int
) -> None:
    logits, size = row(values), len(values)
    noise = gumbel((1, size), seeded(seed))
    taken = relaxed(logits, heat, noise, hard=hard, among=among, generator=seeded(seed))
    worth = torch.arange(1.0, size + 1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((taken * worth).sum(), logits)
    assert taken.isfinite().all()
    assert gradient.isfinite().all()
    assert float(taken.detach().sum()) == pytest.approx(1, abs=1e-12)
    assert int((taken != 0).sum()) <= min(among, size)


@pytest.mark.parametrize(("among", "size"), [(2, 4), (3, 4), (2, 3)])
def test_mixed_ones_are_drawn_by_their_odds_without_replacement(among: int, size: int) -> None:
    total = 20_000
    odds = [(i + 1) / sum(range(1, size + 1)) for i in range(size)]
    logits = torch.tensor(odds, dtype=torch.float64).log().expand(total, -1)
    still = torch.zeros(total, size, dtype=torch.float64)
    taken = relaxed(logits, 1.0, still, among=among, generator=seeded(2))
    sets = Counter(tuple(r.nonzero().flatten().tolist()) for r in taken)
    wanted: dict[tuple[int, ...], float] = dict.fromkeys(
        itertools.combinations(range(size), among), 0.0
    )
    for order in itertools.permutations(range(size), among):
        chance, rest = 1.0, 1.0
        for one in order:
            chance, rest = chance * odds[one] / rest, rest - odds[one]
        wanted[tuple(sorted(order))] += chance
    assert sets.keys() == wanted.keys()
    for mine, chance in wanted.items():
        assert sets[mine] / total == pytest.approx(chance, abs=0.015)
        rows = taken[
            [tuple(r.nonzero().flatten().tolist()) == mine for r in taken[:50]].index(True)
        ]
        inside = [odds[i] / sum(odds[j] for j in mine) for i in mine]
        assert [float(rows[i]) for i in mine] == pytest.approx(inside)


def test_as_many_as_there_are_is_all_of_them() -> None:
    noise = gumbel((3, 4), seeded(0))
    logits = torch.randn(3, 4, generator=seeded(0), dtype=torch.float64)
    for among in (4, 9, None):
        taken = relaxed(logits, 1.0, noise, among=among)
        assert torch.equal(taken, relaxed(logits, 1.0, noise))


@given(st.floats(0.01, 10), st.floats(0.01, 10), st.floats(-1, 2))
def test_the_temperature_goes_in_a_straight_line(first: float, last: float, done: float) -> None:
    assert cooled(first, last, 0) == first
    assert cooled(first, last, 1) == pytest.approx(last)
    at = min(1.0, max(0.0, done))
    assert cooled(first, last, done) == pytest.approx((1 - at) * first + at * last)
