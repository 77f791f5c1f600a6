"""Criteria that read weights only, against a loop over pieces."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import looked_at, pieces, settled, small
from tests.families.test_channels import axes
from tonsor.criteria.registry import find_criterion
from tonsor.criteria.score import score
from tonsor.errors import ScoreError, SelectionError
from tonsor.families.channels import Part, times
from tonsor.types import Axis, Member

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def rows(each: list[Tensor]) -> list[list[float]]:
    return [[float(v) for v in piece] for piece in each]


def distances(each: list[Tensor], between: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
    exact = [p.double() for p in each]
    return [float(sum(between(p, q) for q in exact)) for p in exact]


def to_median(each: list[Tensor]) -> list[float]:
    columns = list(zip(*rows(each), strict=True))
    middle = torch.tensor([sorted(c)[(len(c) - 1) // 2] for c in columns]).double()
    return [float((p.double() - middle).square().sum().sqrt()) for p in each]


NAIVE: dict[str, Callable[[list[Tensor]], list[float]]] = {
    "l1": lambda each: [sum(abs(v) for v in p) for p in rows(each)],
    "l2": lambda each: [sum(v * v for v in p) ** 0.5 for p in rows(each)],
    "lp": lambda each: [sum(abs(v) ** 3 for v in p) ** (1 / 3) for p in rows(each)],
    "lp:p=0.5": lambda each: [sum(abs(v) ** 0.5 for v in p) ** 2 for p in rows(each)],
    "geometric_median": lambda each: distances(each, lambda p, q: (p - q).square().sum().sqrt()),
    "geometric_median:distance=l1": lambda each: distances(each, lambda p, q: (p - q).abs().sum()),
    "geometric_median:distance=cosine": lambda each: distances(
        each, lambda p, q: 1 - F.cosine_similarity(p, q, dim=0)
    ),
    "median": to_median,
    "bn_scale": lambda each: [sum(abs(v) for v in p) / len(p) for p in rows(each)],
}  # fmt: skip


@pytest.mark.parametrize("by", NAIVE)
@given(axis=axes(), dim=st.integers(0, 1), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99),
       flip=st.booleans(), vector=st.booleans())  # fmt: skip
def test_as_defined(
    by: str, axis: Axis, dim: int, dtype: torch.dtype, seed: int, flip: bool, vector: bool
) -> None:
    shape = [5, 5]
    shape[dim] = axis.size
    if vector:
        dim, shape = 0, [axis.size]
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weight = drawn.to(dtype)
    if flip and not vector:
        weight = weight.T.contiguous().T
    criterion = find_criterion(by)
    for place, each in zip(range(times(axis, "g")), pieces(weight, dim, axis, "g"), strict=True):
        found = criterion(Part(Member("w", dim, axis), True, "g", place).of(weight)).double()
        wanted = torch.tensor(NAIVE[by](each), dtype=torch.float64)
        # Half precision may be summed in single; distances of what is alike cancel.
        exact = dtype == torch.float64
        torch.testing.assert_close(found, wanted, rtol=1e-9 if exact else 2e-3,
                                   atol=1e-6 if exact else 2e-3)  # fmt: skip


@given(count=st.integers(2, 6), seed=st.integers(0, 99))
def test_distances_do_not_depend_on_where_the_origin_is(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    shift = torch.randn(4, generator=generator, dtype=torch.float64)
    for by in ("geometric_median", "geometric_median:distance=l1", "median"):
        criterion = find_criterion(by)
        torch.testing.assert_close(criterion(weight), criterion(weight + shift))


@given(count=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_twin_is_worth_what_its_twin_is(count: int, seed: int) -> None:
    weight = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).double()
    twins = torch.cat([weight, weight])
    for by in ("geometric_median", "median"):
        first, second = find_criterion(by)(twins).chunk(2)
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
    alone, both = (
        find_criterion("geometric_median")(weight),
        find_criterion("geometric_median")(twins),
    )
    torch.testing.assert_close(both[:count], 2 * alone, atol=1e-5, rtol=1e-6)


def test_complex_weights() -> None:
    weight = torch.tensor([[3 + 4j, 0], [1, 1j], [0, 0]])
    assert find_criterion("l1")(weight).tolist() == [5, 2, 0]
    assert find_criterion("l2")(weight).tolist() == pytest.approx([5, 2**0.5, 0])
    assert find_criterion("lp")(weight).tolist() == pytest.approx([5, 2 ** (1 / 3), 0])
    apart = torch.tensor([[3.0, 4, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]])  # as pairs of real numbers
    for by in ("geometric_median", "median"):
        assert find_criterion(by)(weight).tolist() == find_criterion(by)(apart).tolist()


@pytest.mark.parametrize("p", ["0", "-1"])
def test_a_norm_of_no_order_is_refused(p: str) -> None:
    with pytest.raises(SelectionError, match="above 0"):
        find_criterion(f"lp:p={p}")(torch.ones(2, 2))


# ---------------------------------------------------------------- whole models


def test_places_are_averaged() -> None:
    model = small()
    scores = score(looked_at(model), "l1")
    state = dict(model.named_parameters())
    made = state["conv2.weight"].abs().sum((1, 2, 3))
    read = state["linear.weight"].view(4, 5, 4).abs().sum((0, 2))
    torch.testing.assert_close(
        torch.tensor(scores["conv2.weight[0]"]), ((made + read) / 2).detach()
    )


def test_the_makers_alone() -> None:
    model = small()
    scores = score(looked_at(model), "l1", combine="producer")
    made = dict(model.named_parameters())["conv1.weight"].abs().sum((1, 2, 3))
    torch.testing.assert_close(torch.tensor(scores["conv1.weight[0]"]), made.detach())


def test_scales_of_batch_norms() -> None:
    model = small()
    scores = score(looked_at(model), "bn_scale")
    for name, group in (("bn1", "conv1.weight[0]"), ("bn2", "conv2.weight[0]")):
        scale = dict(model.named_parameters())[f"{name}.weight"]
        torch.testing.assert_close(torch.tensor(scores[group]), scale.abs().detach())


def test_a_group_of_vectors_only_is_scored_by_them() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain, self.shift = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))

        def forward(self, x: Tensor) -> Tensor:
            return (x[:, :1] * self.gain + self.shift).relu().sum(1)

    model = Scaled()
    scores = score(tonsor.inspect(model, torch.randn(2, 3)), "l1")
    wanted = (model.gain.abs() + model.shift.abs()) / 2
    torch.testing.assert_close(torch.tensor(scores["gain[0]"]).float(), wanted.detach())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("by", ["l1", "l2", "lp", "geometric_median", "median", "bn_scale"])
def test_what_is_no_number_is_named(by: str, value: float) -> None:
    model = small()
    name = "bn1.weight" if by == "bn_scale" else "conv2.weight"
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[0] = value
    with pytest.raises(ScoreError, match=name):
        score(looked_at(model), by)


def test_constant_weights_can_not_be_ranked() -> None:
    model = small()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    with pytest.raises(ScoreError, match="arbitrary"):
        score(looked_at(model), "l2")


def test_random_numbers_are_those_of_the_seed() -> None:
    anatomy = looked_at(small())
    first, again = score(anatomy, "random", seed=3), score(anatomy, "random", seed=3)
    other = score(anatomy, "random", seed=4)
    for name in first.values:
        assert first[name].tolist() == again[name].tolist()
        assert first[name].tolist() != other[name].tolist()


def test_random_numbers_need_no_values() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    anatomy = tonsor.inspect(model, torch.zeros(1, 3))
    assert len(score(anatomy, "random")["0.weight[0]"]) == 4
    with pytest.raises(ScoreError, match="meta device"):
        score(anatomy, "l1")


def test_tied_weights_are_looked_at_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)
            self.b.weight = self.a.weight
            self.last = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last((self.a(x) + self.b(x)).relu())

    model = settled(Twice())
    scores = score(tonsor.inspect(model, torch.randn(2, 3)), "l1")
    wanted = (model.a.weight.abs().sum(1) + model.last.weight.abs().sum(0)) / 2
    torch.testing.assert_close(torch.tensor(scores["a.weight[0]"]).float(), wanted.detach())


def test_what_only_reads_is_not_scored_where_makers_are_asked_for() -> None:
    maker, reader = nn.Linear(4, 6), nn.Linear(6, 3)
    anatomy = tonsor.inspect(nn.Sequential(maker, nn.ReLU(), reader), torch.zeros(2, 4))
    with torch.no_grad():
        reader.weight[0, 0] = torch.nan
    found = tonsor.score(anatomy, "l2", combine="producer")
    wanted = maker.weight.detach().norm(dim=1).double()
    torch.testing.assert_close(torch.from_numpy(found["0.weight[0]"]), wanted)
    with pytest.raises(ScoreError):
        tonsor.score(anatomy, "l2", combine="mean")
