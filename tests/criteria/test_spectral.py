"""Norms of the convolution as a matrix are those of the matrix, which nobody has to write down."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tonsor.criteria.spectral  # noqa: F401  registers them
from tests.criteria.convolution import NORMS, as_published, dense, geometry, matrix, norms
from tonsor.criteria import convmatrix, extrapolate
from tonsor.criteria.geometry import Geometry
from tonsor.criteria.line import Lines
from tonsor.criteria.registry import CRITERIA, find_criterion
from tonsor.criteria.toeplitz import eigenvalues
from tonsor.errors import ScoreError

KERNEL_NORMS = ("kernel_spectral", "kernel_nuclear", "kernel_frobenius")


def scores(by: str, kernels: Tensor, where: Geometry) -> Tensor:
    return find_criterion(by)(kernels, where)


def drawn(pieces: int, others: int, kernel: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(pieces, others, *kernel, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> bool:
    return bool(torch.allclose(found.double(), expected.double(), rtol=tolerance, atol=1e-12))


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    def line() -> tuple[int, int, int, int, int]:
        taps = draw(st.sampled_from((1, 2, 3, 3, 4, 5, 7)))
        dilation = draw(st.integers(1, 2))
        side = draw(st.integers(3, 7))
        least = max(0, -(-(dilation * (taps - 1) + 1 - side) // 2))
        padding = draw(st.integers(least, max(least, 3)))
        return taps, side, draw(st.integers(1, 3)), padding, dilation

    high, wide = line(), line()
    kernel, sides, stride, padding, dilation = zip(high, wide, strict=True)
    return geometry(
        kernel, sides, stride=stride, padding=padding, dilation=dilation, made=draw(st.booleans())
    )


@given(geometries(), st.integers(1, 3))
@settings(max_examples=40)
def test_the_matrix_does_what_the_convolution_does(where: Geometry, others: int) -> None:
    kernels, pictures = drawn(2, others, where.kernel), drawn(2, others, where.input_size, 1)
    picture = pictures[0].double()
    maps = torch.nn.functional.conv2d(
        picture[None], kernels.double(), stride=where.stride, padding=where.padding,
        dilation=where.dilation,
    )  # fmt: skip
    for kernel, made in zip(kernels, maps[0], strict=True):
        found = matrix(kernel, replace(where, made=True)) @ picture.flatten()
        assert torch.allclose(found, made.flatten())
    # From one channel of the input to the maps of all filters.
    read = torch.nn.functional.conv2d(
        picture[None, :1], kernels[:, :1].double(), stride=where.stride, padding=where.padding,
        dilation=where.dilation,
    )  # fmt: skip
    found = matrix(kernels[:, 0], replace(where, made=False)) @ picture[0].flatten()
    assert torch.allclose(found, read.flatten())


@given(geometries(), st.integers(1, 4), st.integers(0, 9))
@settings(max_examples=120)
def test_norms_are_those_of_the_matrix(where: Geometry, others: int, seed: int) -> None:
    kernels = drawn(2, others, where.kernel, seed)
    for stride, seen in (("exact", where), ("ignored", as_published(where))):
        for name, expected in norms(kernels, seen).items():
            assert close(scores(f"{name}:stride={stride}", kernels, where), expected), name


@given(geometries(), st.integers(1, 4), st.integers(0, 9))
@settings(max_examples=60)
def test_so_is_the_largest_singular_value_by_iteration(
    where: Geometry, others: int, seed: int
) -> None:
    kernels = drawn(2, others, where.kernel, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convmatrix, "DENSE", 0)
        patch.setattr(convmatrix, "_DENSE_LINE", 0)  # so that a small matrix is not taken apart
        found = scores("spectral:stride=exact", kernels, where)
    assert close(found, norms(kernels, where)["spectral"])


LARGE = {
    "one channel": (1, geometry((3, 3), (20, 20), padding=(1, 1))),
    "few": (3, geometry((3, 3), (21, 21), padding=(1, 1))),
    "many": (64, geometry((3, 3), (23, 23), padding=(1, 1))),
    "many, read": (64, geometry((3, 3), (20, 20), padding=(1, 1), made=False)),
    "5x5": (16, geometry((5, 5), (20, 20), padding=(2, 2))),
    "rectangles": (16, geometry((3, 5), (9, 40), padding=(1, 2))),
    "a line": (8, geometry((1, 3), (1, 400), padding=(0, 1))),
    "strided": (16, geometry((3, 3), (39, 40), stride=(2, 2), padding=(1, 1))),
    "strided, read": (
        16, geometry((3, 3), (20, 21), stride=(2, 2), padding=(1, 1), made=False),
    ),
    "strides of two kinds": (
        16, geometry((3, 3), (20, 20), stride=(1, 2), padding=(1, 0), made=False),
    ),
    "dilated": (32, geometry((3, 3), (24, 25), padding=(2, 2), dilation=(2, 2))),
    "unpadded": (16, geometry((3, 3), (22, 22))),
    "even": (16, geometry((4, 4), (20, 20), padding=(1, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_large_pictures_agree_with_all_eigenvalues(name: str) -> None:
    others, where = LARGE[name]
    kernels = drawn(3, others, where.kernel)
    expected = dense(kernels, where)
    assert close(scores("spectral:stride=exact", kernels, where), expected["spectral"], 1e-6)
    assert close(scores("frobenius:stride=exact", kernels, where), expected["frobenius"], 1e-6)
    assert close(scores("nuclear:stride=exact", kernels, where), expected["nuclear"], 1e-5)


@pytest.mark.parametrize("name", [name for name, (others, _) in LARGE.items() if others >= 16])
def test_large_pictures_are_not_looked_at_as_a_whole(name: str) -> None:
    others, where = LARGE[name]
    kernels, seen = drawn(3, others, where.kernel), list[int]()

    def watched(taps: Tensor, lines: Lines) -> Tensor:
        seen.append(lines[0].positions * lines[1].positions)
        return eigenvalues(taps, lines)

    whole = where.output_size if where.made else where.input_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extrapolate, "eigenvalues", watched)
        scores("nuclear:stride=exact", kernels, where)
    assert 0 < max(seen) <= math.prod(whole) / 2


def test_the_oracle_of_large_pictures_is_the_matrix() -> None:
    where = geometry((3, 2), (5, 6), stride=(2, 1), padding=(1, 1), dilation=(1, 2))
    kernels = drawn(2, 3, where.kernel)
    for seen in (where, replace(where, made=False)):
        found, expected = dense(kernels, seen), norms(kernels, seen)
        assert all(close(found[name], expected[name]) for name in NORMS)


def test_exact_is_exact() -> None:
    where = geometry((3, 3), (20, 20), padding=(1, 1))
    kernels = drawn(3, 1, (3, 3), 4)  # one channel: where extrapolation is at its worst
    expected = dense(kernels, where)["nuclear"]
    assert close(scores("nuclear:exact=true", kernels, where), expected, 1e-9)


# ---------------------------------------------------------------- what is known in closed form


@pytest.mark.parametrize("made", [True, False])
def test_kernels_of_one_tap(made: bool) -> None:
    where = geometry((1, 1), (90, 40), stride=(2, 3), made=made)
    kernels = drawn(5, 7, (1, 1))
    size = kernels.double().flatten(1).norm(dim=1)
    positions = 45 * 14
    for stride in ("exact", "ignored"):
        found = {name: scores(f"{name}:stride={stride}", kernels, where) for name in NORMS}
        assert close(found["spectral"], size)
        assert close(found["frobenius"], size * math.sqrt(positions))
        assert close(found["nuclear"], size * positions)


def test_a_tap_that_is_always_outside_counts_nothing() -> None:
    where = geometry((1, 3), (4, 4), stride=(9, 1), padding=(5, 1))  # rows -5 and 4
    assert where.output_size == (2, 4)
    for name in NORMS:
        assert not scores(f"{name}:stride=exact", drawn(2, 2, (1, 3)), where).any()


def test_the_limits_of_large_pictures() -> None:
    side, kernels = 120, drawn(4, 6, (3, 3))
    where = geometry((3, 3), (side, side), padding=(1, 1))
    waves = torch.fft.fft2(kernels.double(), s=(256, 256)).abs().square().sum(1)
    size = kernels.double().flatten(1).norm(dim=1)
    assert close(scores("frobenius", kernels, where) / side, size, 0.01)
    assert close(scores("spectral", kernels, where), waves.amax((1, 2)).sqrt(), 0.002)
    assert close(scores("nuclear", kernels, where) / side**2, waves.sqrt().mean((1, 2)), 0.01)
    assert (scores("spectral", kernels, where) <= waves.amax((1, 2)).sqrt() * 1.0001).all()


@given(st.sampled_from((5, 18)), st.integers(0, 99))
@settings(max_examples=15)
def test_what_changes_nothing(side: int, seed: int) -> None:
    """Turning the channels into each other, and turning the kernel by half a circle."""
    where = geometry((3, 3), (side, side), padding=(1, 1))
    kernels = drawn(2, 4, (3, 3), seed).double()
    turn = torch.linalg.qr(drawn(1, 1, (4, 4), seed + 1)[0, 0].double())[0]
    same = {
        "channels in another order": kernels[:, [2, 0, 3, 1]],
        "channels mixed": torch.einsum("ab,obij->oaij", turn, kernels),
        "flipped": kernels.flip((2, 3)),
        "transposed": kernels.mT,
        "negative": -kernels,
    }
    for name in NORMS:
        expected = scores(name, kernels, where)
        for what, other in same.items():
            assert close(scores(name, other, where), expected, 2e-6), (name, what)
        assert close(scores(name, 3e-9 * kernels, where) / 3e-9, expected, 2e-6)
        assert close(scores(name, kernels[:1], where), expected[:1], 2e-6)


@given(st.integers(1, 6), st.sampled_from(((1, 1), (3, 3), (2, 5))), st.integers(0, 9))
@settings(max_examples=30)
def test_norms_of_the_kernels_as_they_are(others: int, kernel: tuple[int, int], seed: int) -> None:
    kernels, where = drawn(3, others, kernel, seed), geometry(kernel, (9, 9))
    values = torch.linalg.svdvals(kernels.double().flatten(2))
    assert close(scores("kernel_spectral", kernels, where), values[:, 0])
    assert close(scores("kernel_nuclear", kernels, where), values.sum(1))
    assert close(scores("kernel_frobenius", kernels, where), values.square().sum(1).sqrt())


# ---------------------------------------------------------------- weights that are not as usual


@pytest.mark.parametrize("side", [6, 20])
@pytest.mark.parametrize("name", [*NORMS, *KERNEL_NORMS])
def test_what_is_not_finite_stays_so_and_spoils_nothing_else(name: str, side: int) -> None:
    where = geometry((3, 3), (side, side), padding=(1, 1))
    kernels = drawn(4, 3, (3, 3))
    expected = scores(name, kernels, where)
    kernels[0, 1, 2, 2], kernels[2, 0, 1, 1] = math.nan, math.inf
    kernels[3] = 0
    found = scores(name, kernels, where)
    assert found[0].isnan()
    assert not found[2].isfinite()
    assert found[3] == 0
    assert close(found[1], expected[1], 2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [*NORMS, *KERNEL_NORMS])
def test_low_precision_is_raised_first(name: str, dtype: torch.dtype) -> None:
    where = geometry((3, 3), (5, 5), padding=(1, 1))
    kernels = 300 * drawn(2, 3, (3, 3)).to(dtype)  # their squares are too large for float16
    assert close(scores(name, kernels, where), scores(name, kernels.double(), where), 1e-6)


@pytest.mark.parametrize("name", [*NORMS, *KERNEL_NORMS])
def test_complex_weights_are_refused(name: str) -> None:
    kernels = torch.zeros(2, 3, 3, 3, dtype=torch.complex64)
    with pytest.raises(ScoreError, match=f"'{name}' is a norm of real weights"):
        scores(name, kernels, geometry((3, 3), (5, 5)))


def test_all_of_them_are_registered_for_kernels() -> None:
    assert {CRITERIA[name].needs for name in (*NORMS, *KERNEL_NORMS)} == {"kernels"}


def test_the_number_of_threads_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    seen: list[int] = []

    def largest(*_: object) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        message = "no convergence"
        raise RuntimeError(message)

    monkeypatch.setattr("tonsor.criteria.convmatrix.eigenvalues", largest)
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="no convergence"):
            scores("spectral", torch.randn(2, 3, 3, 3), geometry((3, 3), (4, 4)))
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
