"""From a model to one that runs fast here: fused, and with the fastest way of each layer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.cost.heap import heap_kept
from tonsor.deploy.agree import outputs_agree
from tonsor.deploy.bodies import Bodies, made_ready
from tonsor.deploy.capture import batch_of, fresh, sites_of
from tonsor.deploy.chains import join
from tonsor.deploy.choose import Trial, choose
from tonsor.deploy.deployed import Deployed, FromGraph, laid_as
from tonsor.deploy.proving import prove
from tonsor.deploy.report import Conditions, DeployReport
from tonsor.deploy.ways import WAYS
from tonsor.deploy.whole import DEPLOYED, compare
from tonsor.errors import DeployError
from tonsor.graph.clone import clone
from tonsor.graph.inputs import Inputs, as_inputs


def deploy(
    model: nn.Module,
    inputs: Any,
    *,
    rounds: int = 9,
    margin: float = 0.03,
    quiet: bool = False,
    ways: Sequence[str] | None = None,
    verify: bool = True,
) -> tuple[Deployed, DeployReport]:
    """Make a model ready to run fast on this machine, and say what was done.

    Batch norms are folded into convolutions, residuals and ReLUs are fused, and each convolution
    runs in the fastest of several ways, which are timed on what it gets in the model. If the whole
    is then not faster than the model as it is, that is given back instead. The model is not
    touched. The numbers hold for this machine, this batch and the threads that torch is set to. The
    report is printed unless `quiet`.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    >>> fast, report = deploy(model, torch.randn(1, 3, 16, 16), rounds=1, quiet=True)
    >>> report.rows[0].name, report.rows[0].fused
    ('0', 'bn+relu')
    >>> torch.allclose(fast(torch.ones(1, 3, 16, 16)), model(torch.ones(1, 3, 16, 16)), atol=1e-5)
    True
    """
    trial = _trial(rounds, margin, ways)
    given, own = as_inputs(inputs), _own(model)
    with torch.no_grad(), heap_kept():
        wanted = fresh(given).call(own)
        if not outputs_agree(fresh(given).call(own), wanted):
            message = (
                f"{type(model).__name__} in eval mode gives another output each time, so nothing "
                "can be compared with it; make it the same for the same input first"
            )
            raise DeployError(message)
        bodies = made_ready(own, given, wanted, laid_as(wanted))
        sites = sites_of(bodies.fast)
        rows = choose(bodies.fast, sites, fresh(given), trial, quiet=quiet)
        if isinstance(bodies.fast, FromGraph):
            join(bodies.fast.body)
        found = compare(own, bodies.fast, fresh(given), laid_as(wanted), rounds)
        fast = found.models[found.returned]
        if verify:
            prove(own, fast, given)
    report = DeployReport(
        rows, found.ms, found.ratio.median, (found.ratio.low, found.ratio.high), found.returned,
        _any_batch(bodies, found.returned), _conditions(own, given, rounds),
        (*bodies.notes, *found.notes),
    )  # fmt: skip
    if not quiet:
        sys.stdout.write(f"{report}\n")
    return fast, report


def _trial(rounds: int, margin: float, ways: Sequence[str] | None) -> Trial:
    if rounds < 1 or not 0 <= margin < 1:
        message = (
            f"timing takes at least one round and a margin from 0 to below 1, got rounds={rounds} "
            f"and margin={margin}"
        )
        raise DeployError(message)
    names = tuple(WAYS) if ways is None else tuple(ways)
    unknown = [name for name in names if name not in WAYS]
    if unknown or not names:
        message = f"there is no way called {unknown or 'nothing'}; known: {', '.join(WAYS)}"
        raise DeployError(message)
    return Trial(rounds, margin, names)


def _own(model: nn.Module) -> nn.Module:
    """Copy a model, so that the one given is left alone, and nothing in it asks for gradients."""
    if isinstance(model, Deployed):
        message = "the model is deployed already; give the one that it was made of"
        raise DeployError(message)
    if isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        message = "the model is scripted; give the one that it was made of"
        raise DeployError(message)
    return clone(model, _detached).eval().requires_grad_(False)


def _detached(name: str, tensor: Tensor) -> Tensor:
    own = tensor.detach().clone()
    return nn.Parameter(own, requires_grad=False) if isinstance(tensor, nn.Parameter) else own


def _any_batch(bodies: Bodies, returned: str) -> bool:
    return bodies.any_batch or returned != DEPLOYED


def _conditions(own: nn.Module, given: Inputs, rounds: int) -> Conditions:
    tensors = [t for _, t in given.tensors()]
    kinds = [*own.parameters(), *(t for t in tensors if t.is_floating_point())]
    first = next(iter(kinds), torch.empty(0))
    return Conditions(
        str(first.device), str(first.dtype).removeprefix("torch."), torch.get_num_threads(),
        torch.__version__, batch_of(given), rounds,
    )  # fmt: skip
