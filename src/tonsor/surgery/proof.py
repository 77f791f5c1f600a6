"""The proof: pruned and masked model agree in float64, or the first difference is named."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tonsor.axes.solve import has_rule, solve
from tonsor.axes.tree import Mask, mask, project
from tonsor.errors import ProofError
from tonsor.graph.clone import clone
from tonsor.graph.inputs import Inputs, as_inputs, tensors_in
from tonsor.graph.record import Recorder
from tonsor.graph.trace import record_run
from tonsor.surgery.apply import mask_model
from tonsor.surgery.precision import DOUBLE, NATIVE, TOLERANCE, Precision
from tonsor.surgery.reference import Reference, run_watched
from tonsor.surgery.slice import replace_parameter
from tonsor.types import Cut, Op, Solution

_ATTEMPTS = 4
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
        except _CannotRunError:
            pass
    with _proving(torch.float32):
        try:
            return _prove(model, slim, cut, given, NATIVE)
        except _CannotRunError as error:
            message = f"the masked original does not run: {error.__cause__}"
            raise ProofError(message) from error.__cause__


def _prove(model: nn.Module, slim: nn.Module, cut: Cut, given: Inputs, how: Precision) -> Proof:
    error, outputs, reference = 0.0, 0, None
    for probe in _probes(given):
        masked = how.model(mask_model(model, cut))
        reference, wanted = _run_masked(masked, cut, probe, how)
        try:
            got = run_watched(how.model(clone(slim, _copied)), how.inputs(probe), how.plain, None)
        except Exception as failure:
            message = f"the slim model does not run: {type(failure).__name__}: {failure}"
            raise ProofError(message) from failure
        apart, outputs = _compare(wanted, got)
        if not apart <= how.tolerance:
            where = _locate(masked, slim, reference, probe, how)
            message = (
                f"pruned and masked model differ by {apart:.1e} (relative, in {how.name}). {where}"
            )
            raise ProofError(message, where)
        if not _all_finite(got):
            original = how.model(clone(model, _copied))
            if _all_finite(run_watched(original, how.inputs(probe), how.plain, None)):
                message = "cut like this the model returns NaN or infinity, which it did not before"
                raise ProofError(message)
        error = max(error, apart)
    assert reference is not None
    return Proof(
        error=error,
        outputs=outputs,
        tolerance=how.tolerance,
        precision=how.name,
        operators=len(reference.solution.graph.ops),
        masked_operators=len(reference.mixing),
    )


class _CannotRunError(Exception):
    """The masked original fails in this precision."""


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
    torch.set_default_dtype(default)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng([]):
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)


def _copied(name: str, tensor: Tensor) -> Tensor:
    return replace_parameter(tensor, tensor.detach().clone())


def _run_masked(
    masked: nn.Module, cut: Cut, probe: Inputs, how: Precision
) -> tuple[Reference, Any]:
    """Run the masked model; where statistics are over cut axes, over what is kept of them.

    Which operators these are is read off a recording of the very run, so that a model which
    goes another way on other values is still followed.
    """
    solution = None
    for _ in range(_ATTEMPTS):
        reference = None
        if solution is not None:
            reference = Reference(solution, _leaf_masks(solution, cut), how.run)
        execute = how.plain if reference is None else reference.execute
        recorder = Recorder(masked, has_rule, execute=execute, lines=False)
        out: list[Any] = []
        try:
            graph = record_run(recorder, masked, how.inputs(probe), "real", out)
        except Exception as error:
            raise _CannotRunError from error
        if reference is None:
            solution = solve(graph)
            reference = Reference(solution, _leaf_masks(solution, cut), how.run)
            if not reference.mixing:
                return reference, out[0]
        elif [o.name for o in graph.ops] == [o.name for o in reference.solution.graph.ops]:
            return reference, out[0]
        else:
            solution = solve(graph)
    message = "the model runs other operators each time, so nothing can be proven of it"
    raise ProofError(message)


def _leaf_masks(solution: Solution, cut: Cut) -> dict[str, Mask]:
    """Read the masks of leaves off the kept indices of tensors."""
    masks: dict[str, Mask] = {}
    for name, kept in cut.keep.items():
        axes = solution.of(name)
        for axis, indices in zip(axes, kept, strict=True):
            if indices is not None:
                want = np.zeros(axis.size, dtype=np.bool_)
                want[list(indices)] = True
                for leaf, seen in project(axis, want):
                    masks[leaf.name] = masks.get(leaf.name, np.ones(leaf.size, np.bool_)) & seen
    for name, kept in cut.keep.items():
        for axis, indices in zip(solution.of(name), kept, strict=True):
            left = np.flatnonzero(mask(axis, masks)).tolist()
            if left != list(range(axis.size) if indices is None else indices):
                message = f"'{name}' is coupled differently in float64 than when it was planned"
                raise ProofError(message)
    return masks


def _compare(wanted: Any, got: Any) -> tuple[float, int]:
    first, second = list(tensors_in(wanted)), list(tensors_in(got))
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
    masked: nn.Module, slim: nn.Module, reference: Reference, probe: Inputs, how: Precision
) -> str:
    """Run both again and name the first operator whose kept results differ."""
    results: list[tuple[Op, list[Tensor | None]]] = []

    def remember(op: Op, out: list[Tensor | None]) -> None:
        results.append((op, [None if t is None else t.clone() for t in out]))

    def kept_of(op: Op, which: int, tensor: Tensor) -> Tensor:
        value = reference.solution.graph.ops[op.index].outputs[which]
        for dim, axis in enumerate(reference.solution.axes[value] if value is not None else ()):
            kept = torch.from_numpy(np.flatnonzero(mask(axis, reference.keep)))
            tensor = tensor.index_select(dim, kept.to(tensor.device))
        return tensor

    run_watched(masked, how.inputs(probe), reference.execute, remember)
    wanted, results = results, []
    run_watched(how.model(clone(slim, _copied)), how.inputs(probe), how.plain, remember)
    for (op, first), (other, second) in zip(wanted, results, strict=False):
        if op.name != other.name:
            return f"First seen in '{op.module}': {op.name} became {other.name}."
        for i, (a, b) in enumerate(zip(first, second, strict=False)):
            if a is None or b is None:
                continue
            a = kept_of(op, i, a)
            if a.shape != b.shape or not _apart(a, b) <= how.tolerance:
                return f"First seen in '{op.module}', after {op.name}."
    return "No single operator differs."
