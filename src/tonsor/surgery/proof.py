"""The proof: pruned and masked model agree in float64, or the first difference is named."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.errors import ProofError
from tonsor.graph.inputs import Inputs, as_inputs, tensors_in
from tonsor.surgery.doubt import ALLOWED, SMALL, rounded_otherwise
from tonsor.surgery.fibre_layers import with_convs
from tonsor.surgery.masked import CannotRunError, Follower, foresee, run_masked
from tonsor.surgery.precision import DOUBLE, NATIVE, TOLERANCE, Precision
from tonsor.surgery.reference import Reference
from tonsor.surgery.side import Side
from tonsor.types import Cut, Op

_TINY = 1e-6  # below this an output is taken for rounding around zero


@dataclass(frozen=True, slots=True)
class Proof:
    """How far apart the two models are, relative to the largest value of each output."""

    error: float
    outputs: int
    tolerance: float = TOLERANCE
    precision: str = "float64"
    operators: int = 0
    masked_operators: int = 0

    def __str__(self) -> str:
        text = (
            f"pruned equals masked in {self.precision} to {self.error:.1e} "
            f"on {self.outputs} output(s)"
        )
        if self.tolerance > TOLERANCE and self.precision == DOUBLE.name:
            text += f", where other rounding alone is taken to make up to {self.tolerance:.1e}"
        if self.masked_operators:
            text += f"; {self.masked_operators} operator(s) took statistics over kept indices"
        return text


def prove(model: nn.Module, slim: nn.Module, cut: Cut, inputs: Any) -> Proof:
    """Run the masked original and the slim model in float64 and compare every output.

    A model that can't run in float64 (kernels for lower precision only) is compared as it
    is, with the tolerance that its precision allows; the proof says so.
    """
    given = as_inputs(inputs)
    with _proving():
        try:
            return _prove(model, slim, cut, given, DOUBLE)
        except CannotRunError:
            pass
    with _proving(torch.float32):
        try:
            return _prove(model, slim, cut, given, NATIVE)
        except CannotRunError as error:
            message = f"the masked original does not run: {error.__cause__}"
            raise ProofError(message) from error.__cause__


def _prove(model: nn.Module, slim: nn.Module, cut: Cut, given: Inputs, how: Precision) -> Proof:
    """Run all probes through one model, then through the other, so that one is there at a time."""
    probes = list(_probes(given))
    references, wanted = _masked_runs(model, cut, probes, how)
    small = Side(slim, how)
    error, outputs, tolerance = 0.0, 0, how.tolerance
    for probe, reference, want in zip(probes, references, wanted, strict=True):
        try:
            got = small.run(probe)
        except Exception as failure:
            message = f"the slim model does not run: {type(failure).__name__}: {failure}"
            raise ProofError(message) from failure
        apart, outputs = _compare(want, got, reference.bypass.lost)
        if how is DOUBLE and how.tolerance < apart <= SMALL:
            lost = reference.bypass.lost
            other = rounded_otherwise(model, cut, reference, probe, how)
            tolerance = max(tolerance, min(SMALL, ALLOWED * _compare(want, other, lost, lost)[0]))
        if not apart <= tolerance:
            where = _locate(model, slim, cut, reference, probe, how)
            message = (
                f"pruned and masked model differ by {apart:.1e} (relative, in {how.name}). {where}"
            )
            raise ProofError(message, where)
        if not _all_finite(got) and _all_finite(Side(model, how).run(probe)):
            message = "cut like this the model returns NaN or infinity, which it did not before"
            raise ProofError(message)
        error = max(error, apart)
    return Proof(
        error=error,
        outputs=outputs,
        tolerance=tolerance,
        precision=how.name,
        operators=len(references[-1].solution.graph.ops),
        masked_operators=len(references[-1].mixing),
    )


def _masked_runs(
    model: nn.Module, cut: Cut, probes: Sequence[Inputs], how: Precision
) -> tuple[list[Reference], list[Any]]:
    """Return for each probe what the masked model computes, and by which reference."""
    masked = Side(model, how, cut)
    reference = foresee(model, cut, probes[0], how)
    references, outputs = [], []
    for probe in probes:
        reference, out = run_masked(masked, cut, probe, reference)
        references.append(reference)
        outputs.append(out)
    return references, outputs


def _probes(given: Inputs) -> Iterator[Inputs]:
    """Yield the example itself, and one with other floating-point values."""
    yield given
    if any(t.is_floating_point() for _, t in given.tensors()):
        generator = torch.Generator().manual_seed(0)

        def other(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor.detach().clone()
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
            scale = tensor.detach().float().std(correction=0).cpu()
            return (tensor.detach().cpu().float() + noise * (scale + 1e-3)).to(tensor)

        yield given.map(other)


@contextmanager
def _proving(default: torch.dtype = torch.float64) -> Iterator[None]:
    before = torch.get_default_dtype()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    torch.set_default_dtype(default)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)


def _compare(
    wanted: Any, got: Any, lost: Collection[int] = (), lost_too: Collection[int] = ()
) -> tuple[float, int]:
    """Return how far two outputs are apart, and how many there are; some went with blocks."""
    first = [t for i, t in enumerate(tensors_in(wanted)) if i not in lost]
    second = [t for i, t in enumerate(tensors_in(got)) if i not in lost_too]
    if len(first) != len(second):
        message = f"the slim model returns {len(second)} tensors, the original {len(first)}"
        raise ProofError(message)
    worst = 0.0
    for (path, a), (_, b) in zip(first, second, strict=True):
        if a.shape != b.shape:
            message = f"output '{path}' has shape {tuple(b.shape)}, the original {tuple(a.shape)}"
            raise ProofError(message)
        worst = max(worst, _apart(a, b))
    return worst, len(first)


def _all_finite(out: Any) -> bool:
    floats = (t for _, t in tensors_in(out) if t.is_floating_point() or t.is_complex())
    return all(bool(t.isfinite().all()) for t in floats)


def _apart(a: Tensor, b: Tensor) -> float:
    """Return the largest difference relative to the largest value; infinite if NaNs differ."""
    if a.numel() == 0:
        return 0.0
    if not (a.is_floating_point() or a.is_complex()):
        return 0.0 if torch.equal(a, b) else float("inf")
    if not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    finite = a.isfinite()
    if not finite.any():
        return 0.0
    a, b = a[finite], b[finite]
    return float((a - b).abs().max() / a.abs().max().clamp_min(_TINY))


def _locate(
    model: nn.Module, slim: nn.Module, cut: Cut, reference: Reference, probe: Inputs, how: Precision
) -> str:
    """Run both again and name the first operator whose kept results differ."""
    if cut.drops:  # the slim model has fewer operators, and no number of one is that of the other
        return f"Blocks that went: {', '.join(d.name for d in cut.drops)}."
    wanted: list[tuple[Op, list[Tensor | None]]] = []
    found: list[str] = []

    def remember(op: Op, out: list[Tensor | None]) -> None:
        kept = [None if t is None else reference.kept_of(op.index, i, t) for i, t in enumerate(out)]
        wanted.append((op, kept))

    def compare(other: Op, out: list[Tensor | None]) -> None:
        if found or other.index >= len(wanted):
            return
        op, kept = wanted[other.index]
        if op.name != other.name:
            found.append(f"First seen in '{op.module}': {op.name} became {other.name}.")
        elif any(map(unlike, kept, out)):
            found.append(f"First seen in '{op.module}', after {op.name}.")
        wanted[other.index] = op, []  # compared, so that its memory may go

    def unlike(a: Tensor | None, b: Tensor | None) -> bool:
        if a is None or b is None:
            return False
        return a.shape != b.shape or not _apart(a, b) <= how.tolerance

    follower = Follower(reference, remember)
    Side(model, how, cut, late=False).run(probe, follower.execute, follower.observe)
    Side(with_convs(slim), how, late=False).run(probe, None, compare)
    return found[0] if found else "No single operator differs."
