"""Make a model ready to run in an engine, and see that it still computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.cost.engines.native import flat_tensors
from tonsor.cost.engines.registry import ENGINES, Engine, Model, Run, find_engine, using_threads
from tonsor.errors import EngineError
from tonsor.graph.clone import clone
from tonsor.graph.inputs import Inputs, as_inputs

TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Ready:
    """A model in an engine: calling it runs the model once.

    `run` does nothing else, so it is what is timed; torch must then be set to the number of
    threads, and to compute no gradients, or `compile` compiles again.
    """

    run: Run
    inputs: Inputs
    engine: str
    threads: int
    dtype: str

    def __call__(self) -> Any:
        """Run the model once."""
        with torch.no_grad(), using_threads(self.threads):
            return self.run()


def engines() -> dict[str, str]:
    """Name all engines, each with what is missing before it can be used here, or nothing.

    >>> engines()["eager"]
    ''
    """
    return {name: found.missing() for name, found in ENGINES.items()}


@torch.no_grad()
def prepare(
    engine: str, model: Model, inputs: Any, threads: int | None = 1, device: Any = None
) -> Ready:
    """Make ready what runs a model once on these inputs, in eval mode and without gradients.

    The model given is left alone: what runs is a copy that shares its parameters, or on another
    `device` a copy of all of it. Its output is compared once with what torch computes.
    """
    found = find_engine(engine)
    _check_usable(found)
    given, own = as_inputs(inputs), _copy(model, device)
    if device is not None:
        given = given.map(lambda t: t.to(device))
    _check_device(found, given)
    with using_threads(threads) as used:
        wanted = [t.clone() for t in _first_run(own, given)]
        if not found.checked:
            run = found.make(own, given, used)
        else:
            try:
                run = found.make(own, given, used)
                got = found.flat(run())
            except Exception as error:
                raise EngineError(_refused(engine, error)) from error
            _check_same(engine, got, wanted)
    return Ready(run, given, engine, used, _dtype(own, given))


def _copy(model: Model, device: Any) -> Model:
    if not isinstance(model, nn.Module):
        return model
    copy = clone(model, _own_buffers if device is None else _own_all).eval()
    return copy if device is None else copy.to(device)


def _own_buffers(name: str, tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, nn.Parameter) else tensor.detach().clone()


def _own_all(name: str, tensor: Tensor) -> Tensor:
    own = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(own, requires_grad=tensor.requires_grad)
    return own


def _first_run(model: Model, given: Inputs) -> list[Tensor]:
    """Run the model as it is, and refuse one that would be timed on ever other inputs."""
    before = _shapes(given)
    out = flat_tensors(model(*given.args, **given.kwargs))
    if _shapes(given) != before:
        message = (
            "running the model changes the inputs it is given, as a cache of keys and values "
            "does that grows, so no two runs are the same; switch that off (use_cache=False)"
        )
        raise EngineError(message)
    return out


def _shapes(given: Inputs) -> list[tuple[str, torch.Size]]:
    return [(name, t.shape) for name, t in given.tensors()]


def _check_usable(found: Engine) -> None:
    missing = found.missing()
    if missing:
        message = f"engine '{found.name}' can't be used here: {missing}"
        raise EngineError(message)


def _check_device(found: Engine, given: Inputs) -> None:
    kinds = {t.device.type for _, t in given.tensors()}
    if found.devices and not kinds <= {*found.devices}:
        message = (
            f"engine '{found.name}' runs on {', '.join(found.devices)} only, the inputs are on "
            f"{', '.join(sorted(kinds))}; give device='{found.devices[0]}', or engine='compile'"
        )
        raise EngineError(message)


def _refused(name: str, error: Exception) -> str:
    if isinstance(error, EngineError):
        return f"engine '{name}' can't take this model: {error}"
    first = (str(error).strip().splitlines() or [""])[0]
    return (
        f"engine '{name}' can't take this model: {type(error).__name__}: {first}. "
        "The engine 'eager' runs whatever torch runs."
    )


def _check_same(name: str, got: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Refuse to time something that computes something else."""
    if [t.shape for t in got] != [t.shape for t in wanted]:
        shapes = ["; ".join(str(tuple(t.shape)) for t in ts) for ts in (got, wanted)]
        message = f"engine '{name}' returns tensors of shapes {shapes[0]}, torch {shapes[1]}"
        raise EngineError(message)
    for mine, theirs in zip(got, wanted, strict=True):
        off, allowed = _difference(mine, theirs)
        if not off <= allowed:
            message = (
                f"engine '{name}' computes something else than torch: results differ by up to "
                f"{off:.2g} of the largest, more than {allowed:.1g}; timings of it would say "
                "nothing about this model"
            )
            raise EngineError(message)


def _difference(mine: Tensor, theirs: Tensor) -> tuple[float, float]:
    """How far two tensors are apart, relative to the largest value, and how far they may be."""
    if not theirs.is_floating_point() or not theirs.numel():
        return 0.0, 0.0  # whole numbers may be choices between values that are all but equal
    allowed = max(TOLERANCE, 4 * torch.finfo(theirs.dtype).eps)
    mine, theirs = mine.to(theirs.device, torch.float64), theirs.double()
    both = torch.isclose(mine, theirs, equal_nan=True)
    if bool(both.all()):
        return 0.0, allowed
    largest = float(theirs[theirs.isfinite()].abs().max()) if bool(theirs.isfinite().any()) else 0.0
    off = float((mine - theirs)[~both].abs().max())
    return off / max(largest, 1e-30), allowed


def _dtype(model: Model, given: Inputs) -> str:
    """The type of the numbers that are computed with; tokens, say, are none of them."""
    tensors = [t for _, t in given.tensors()]
    found = [t for t in tensors if t.is_floating_point()]
    if not found and isinstance(model, nn.Module):
        found = [p for p in model.parameters() if p.is_floating_point()]
    dtype = (found or tensors or [torch.empty(0)])[0].dtype
    return str(dtype).removeprefix("torch.")
