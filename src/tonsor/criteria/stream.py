"""Running data through a model for a criterion: minibatch by minibatch, with nothing left changed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tonsor.criteria.gather import Gatherer
from tonsor.errors import ScoreError
from tonsor.graph.inputs import Inputs, as_inputs

Loss = Callable[[Any, Any], Tensor]
"""From the output of the model and the target of a minibatch to the mean loss of its samples."""


def stream(
    model: nn.Module,
    batches: Iterable[Any],
    gatherer: Gatherer,
    *,
    loss: Loss | None,
    backward: bool,
    singly: bool = False,
    at_most: int | None = None,
    about: str = "",
    quiet: bool = False,
) -> int:
    """Show minibatches to a gatherer, and return how many samples it has seen.

    A minibatch is `(inputs, target)`, or a mapping that holds the target as `labels` among the
    keywords of the model. The model runs in eval mode and in full precision, and is left as it
    was: modes, gradients, buffers and what requires a gradient. With `singly` every sample runs
    alone.
    """
    measure = loss or default_loss
    seen = 0
    with ExitStack() as stack:
        stack.enter_context(untouched(model, gradients=backward))
        for batch in _shown(batches, at_most, about, quiet):
            inputs, target = taken_apart(batch, where_is(model))
            for given, wanted in _singles(inputs, target) if singly else [(inputs, target)]:
                count = samples_of(given)
                with gatherer.watching(count), torch.set_grad_enabled(backward):
                    output = given.call(model)
                gatherer.see(_mean_loss(measure, output, wanted) if backward else None, count)
                seen += count
    if not seen:
        message = "batches is empty, so there is nothing to score by; give at least one minibatch"
        raise ScoreError(message)
    return seen


def default_loss(output: Any, target: Any) -> Tensor:
    """The loss that a model returns itself, or else the cross entropy of its classes."""
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(own, Tensor):
        return own
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    labelled = isinstance(target, Tensor) and not target.is_floating_point()
    if isinstance(logits, Tensor) and logits.dim() == 2 and labelled and target.dim() == 1:
        return F.cross_entropy(logits.float(), target)
    message = (
        "no loss is known for what this model returns; give one as loss=function(output, target), "
        "such as torch.nn.functional.mse_loss"
    )
    raise ScoreError(message)


def taken_apart(batch: Any, device: torch.device | None) -> tuple[Inputs, Any]:
    """Return the inputs of the model and the target of a minibatch, where the model is."""
    if isinstance(batch, Mapping) or hasattr(batch, "keys"):
        inputs, target = as_inputs(batch), batch.get("labels")
    elif isinstance(batch, (tuple, list)) and len(batch) == 2:
        inputs, target = as_inputs(batch[0]), batch[1]
    else:
        message = (
            f"a minibatch is (inputs, target) or a mapping, got a {type(batch).__name__}; with "
            "data that has no targets give (inputs, None) and a loss of your own"
        )
        raise ScoreError(message)
    if device is None:
        return inputs, target
    return inputs.map(lambda t: t.to(device)), tree_map(
        lambda t: t.to(device) if isinstance(t, Tensor) else t, target
    )


def samples_of(inputs: Inputs) -> int:
    """How many samples a minibatch has: the size of the first dimension of its first tensor."""
    for _, tensor in inputs.tensors():
        if tensor.dim():
            return tensor.shape[0]
    return 1


def where_is(model: nn.Module) -> torch.device | None:
    """The device of a model that is all on one."""
    devices = {p.device for p in model.parameters()}
    return devices.pop() if len(devices) == 1 else None


@contextmanager
def untouched(model: nn.Module, *, gradients: bool) -> Iterator[None]:
    """Run a model in eval mode, and afterwards have everything about it as it was before."""
    modes = [(m, m.training) for m in model.modules()]
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model.eval()
        for parameter in frozen if gradients else ():
            parameter.requires_grad_(True)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                if buffer.shape == before.shape:
                    buffer.copy_(before)


def _mean_loss(measure: Loss, output: Any, target: Any) -> Tensor:
    found = measure(output, target)
    if not isinstance(found, Tensor) or found.numel() != 1:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        message = f"the loss must be one number, the mean over the samples; it is {got}"
        raise ScoreError(message)
    if not bool(torch.isfinite(found)):
        message = f"the loss is {found.item()} on this data, so no gradient of it means anything"
        raise ScoreError(message)
    return found.reshape(())


def _singles(inputs: Inputs, target: Any) -> Iterator[tuple[Inputs, Any]]:
    count = samples_of(inputs)

    def one(tensor: Tensor, i: int) -> Tensor:
        return tensor[i : i + 1] if tensor.dim() and tensor.shape[0] == count else tensor

    for i in range(count):
        yield (
            inputs.map(lambda t, i=i: one(t, i)),
            tree_map(lambda t, i=i: one(t, i) if isinstance(t, Tensor) else t, target),
        )


def _shown(batches: Iterable[Any], at_most: int | None, about: str, quiet: bool) -> Iterator[Any]:
    """Yield minibatches, with a bar where somebody watches."""
    total = len(batches) if isinstance(batches, Sized) else None
    if at_most is not None:
        total = at_most if total is None else min(total, at_most)
    limited = itertools.islice(_epoch(batches), at_most)
    console = Console(file=sys.stderr)
    if quiet or not console.is_terminal:
        yield from limited
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(about, total=total)
        for batch in limited:
            yield batch
            bar.advance(task)


def _epoch(batches: Any) -> Iterable[Any]:
    """Iterate over a loader, or over the first epoch of batches that have several."""
    epoch = getattr(batches, "epoch", None)
    return epoch(0) if callable(epoch) else batches
