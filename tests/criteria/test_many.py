from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tonsor.criteria.score  # noqa: F401  which registers criteria
from tonsor.criteria.many import Many
from tonsor.criteria.registry import CRITERIA, find_criterion

BY = (
    "l1", "l2", "geometric_median", "geometric_median:distance=l1",
    "geometric_median:distance=cosine", "lp:p=3", "median",
)  # fmt: skip
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
NEAR = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def laid_out(shape: tuple[int, ...], how: str, generator: torch.Generator) -> Tensor:
    """Weights that lie in memory in some way."""
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    if how == "turned" and len(shape) > 1:
        return drawn.movedim(0, -1).contiguous().movedim(-1, 0)
    if how == "every second":
        return torch.stack([drawn, -2 * drawn], -1)[..., 0]
    if how == "one for all" and len(shape) > 1:
        return drawn[..., :1].expand(shape)
    return drawn


VIEWS = st.lists(
    st.tuples(SHAPES, st.sampled_from(["plain", "turned", "every second", "one for all"])),
    min_size=1, max_size=5,
)  # fmt: skip


@given(VIEWS, st.sampled_from(DTYPES), st.booleans(), st.integers(0, 99))
def test_all_at_once_is_each_by_itself(
    kinds: list[tuple[tuple[int, ...], str]], dtype: torch.dtype, twice: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    views = [laid_out(s, how, generator).to(dtype) for s, how in kinds for _ in range(1 + twice)]
    many, before = Many(views), [v.clone() for v in views]
    for by in BY:
        found = find_criterion(by)
        scores = many.scores(found)
        assert len(scores) == len(views)
        for mine, view in zip(scores, views, strict=True):
            assert mine.shape == view.shape[:1]
            near = NEAR[dtype]
            torch.testing.assert_close(
                mine.double(), found(view).double(), rtol=near, atol=10 * near
            )
    assert all(torch.equal(v, b) for v, b in zip(views, before, strict=True))


@pytest.mark.parametrize("by", BY)
def test_complex_weights_and_mixed_kinds_too(by: str) -> None:
    generator = torch.Generator().manual_seed(0)
    views = [
        torch.randn(4, 3, generator=generator, dtype=dtype).to(other)
        for dtype, other in [
            (torch.complex128, torch.complex128), (torch.float64, torch.float64),
            (torch.float64, torch.float16), (torch.complex64, torch.complex64),
            (torch.float64, torch.float64),
        ]
    ]  # fmt: skip
    found = find_criterion(by)
    for some in (views, views[1:3]):
        for mine, view in zip(Many(some).scores(found), some, strict=True):
            torch.testing.assert_close(mine, found(view), rtol=1e-5, atol=1e-5, check_dtype=False)


def test_weights_of_one_size_are_scored_in_one_call() -> None:
    calls: list[tuple[int, ...]] = []
    views = [torch.rand(3, 2, 3, 3), torch.rand(3, 18), torch.rand(4, 2), torch.rand(3, 3, 2, 3)]
    found = find_criterion("l2")

    def watched(weight: Tensor) -> Tensor:
        calls.append(tuple(weight.shape))
        return weight.abs().sum(2)

    object.__setattr__(found, "at_once", watched)
    Many(views).scores(found)
    assert sorted(calls) == [(1, 4, 2), (3, 3, 18)]
    assert CRITERIA["l2"].at_once is not watched


def test_gradients_are_not_asked_for() -> None:
    weight = torch.rand(3, 4, requires_grad=True)
    for by in BY:
        (scores,) = Many([weight]).scores(find_criterion(by))
        assert not scores.requires_grad
