"""Running data through a model, minibatch by minibatch, with nothing left changed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized, ValuesView
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tonsor.criteria.gather import Gatherer, in_all
from tonsor.errors import ScoreError
from tonsor.graph.caches import forgetting
from tonsor.graph.clone import clone
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
    was. With `singly` every sample runs alone. Of several processes that do this together all
    fail if one does, and some may have no minibatch.
    """
    try:
        seen = _show(
            model, gatherer, loss or default_loss, shown(batches, at_most, about, quiet),
            backward=backward, singly=singly,
        )  # fmt: skip
    except Exception:
        in_all(torch.tensor([0.0, 1.0], dtype=torch.float64))  # the others wait for this
        raise
    in_total, failed = in_all(torch.tensor([seen, 0.0], dtype=torch.float64)).tolist()
    if failed:
        message = "another process can't score its minibatches, and says itself why"
        raise ScoreError(message)
    if not in_total:
        message = "batches is empty, so there is nothing to score by; give at least one minibatch"
        raise ScoreError(message)
    return seen


def _show(
    model: nn.Module,
    gatherer: Gatherer,
    measure: Loss,
    shown: Iterable[Any],
    *,
    backward: bool,
    singly: bool,
) -> int:
    seen, device = 0, where_is(model)
    with untouched(model, gradients=backward), by_itself(device, backward=backward):
        copy = run_copy(model)
        with forgetting(copy):
            for number, batch in enumerate(shown):
                inputs, target = taken_apart(batch, device)
                check_inputs(inputs, number)
                for given, wanted in _singles(inputs, target) if singly else [(inputs, target)]:
                    count = samples_of(given)
                    if not count:  # the share of one process of a last minibatch may be empty
                        continue
                    with gatherer.watching(copy, count):
                        output = _run(copy, given, singly=singly)
                    found = _mean_loss(measure(output, wanted), number) if backward else None
                    gatherer.see(found, count)
                    seen += count
                    copy = run_copy(model) if backward and _remembers(copy) else copy
    return seen


def run_copy(model: nn.Module) -> nn.Module:
    """Copy a model but for its parameters: whatever a run writes stays in the copy."""
    return clone(model, _own_buffers).eval()


def _own_buffers(name: str, tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, nn.Parameter) else tensor.detach().clone()


def _remembers(model: nn.Module) -> bool:
    """Whether a module holds on to something with a history, which can be followed once only."""
    for module in model.modules():
        for value in vars(module).values():
            held = value.values() if isinstance(value, dict) else value
            for item in held if isinstance(held, (list, tuple, ValuesView)) else (held,):
                if isinstance(item, Tensor) and item.grad_fn is not None:
                    return True
    return False


def _run(model: nn.Module, inputs: Inputs, *, singly: bool) -> Any:
    if not singly:
        return inputs.call(model)
    try:
        return inputs.call(model)
    except Exception as error:
        message = (
            f"the model can't be run on one sample at a time: {type(error).__name__}: {error}. "
            "Samples are taken apart along the first dimension of each input; choose a criterion "
            "that looks at whole minibatches, such as 'taylor_weight'."
        )
        raise ScoreError(message) from error


def check_inputs(inputs: Inputs, number: int) -> None:
    """Refuse inputs with NaN in them."""
    for name, tensor in inputs.tensors():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            message = f"input '{name}' of minibatch {number} holds NaN; repair the data"
            raise ScoreError(message)


@contextmanager
def by_itself(device: torch.device | None, *, backward: bool) -> Iterator[None]:
    """Run in full precision, with gradients or without, whatever the caller has switched on."""
    kinds = {"cpu", *([device.type] if device is not None else [])}
    with ExitStack() as stack:
        for kind in sorted(kinds):
            if torch.amp.is_autocast_available(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(backward))
        yield


def default_loss(output: Any, target: Any) -> Tensor:
    """The loss that a model returns itself, or else the cross entropy of its classes."""
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(own, Tensor):
        return own
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    labelled = isinstance(target, Tensor) and not target.is_floating_point()
    if isinstance(logits, Tensor) and logits.dim() == 2 and labelled and target.dim() == 1:
        exact = logits if logits.dtype == torch.float64 else logits.float()
        return F.cross_entropy(exact, target)
    message = (
        "no loss is known for what this model returns; give one as loss=function(output, target), "
        "such as torch.nn.functional.mse_loss"
    )
    raise ScoreError(message)


def taken_apart(batch: Any, device: torch.device | None) -> tuple[Inputs, Any]:
    """Return the inputs of the model and the target of a minibatch, where the model is."""
    if isinstance(batch, Mapping) or hasattr(batch, "keys"):
        inputs = as_inputs(batch)
        target = inputs.kwargs.get("labels")
    elif isinstance(batch, (tuple, list)) and len(batch) == 2:
        inputs, target = as_inputs(batch[0]), batch[1]
    else:
        message = (
            f"a minibatch is (inputs, target) or a mapping, got a {type(batch).__name__}; with "
            "data that has no targets give (inputs, None) and a loss of your own"
        )
        raise ScoreError(message)

    def here(tensor: Tensor) -> Tensor:
        tensor = tensor if device is None else tensor.to(device)
        # What was made under `inference_mode` can't be used in a run with gradients.
        return tensor.clone() if tensor.is_inference() else tensor

    return inputs.map(here), tree_map(lambda t: here(t) if isinstance(t, Tensor) else t, target)


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
    """Put a model into eval mode, and afterwards have everything about it as it was before."""
    modules = list(model.modules())
    modes = [m.training for m in modules]
    attributes = [(vars(m), dict(vars(m))) for m in modules]
    frozen = [p for p in model.parameters() if not p.requires_grad and _has_gradient(p)]
    buffers = [(m, dict(m._buffers)) for m in modules]
    values = [(b, b.detach().clone()) for b in model.buffers()]
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
        for now, before in attributes:
            for name in [n for n in now if n not in before]:
                del now[name]
            now.update(before)
        for (module, mine), training in zip(buffers, modes, strict=True):
            module._buffers.clear()
            module._buffers.update(mine)
            module.training = training
        with torch.no_grad():
            for buffer, before in values:
                if buffer.shape == before.shape:
                    buffer.copy_(before)


def _has_gradient(parameter: Tensor) -> bool:
    return parameter.is_floating_point() or parameter.is_complex()


def _mean_loss(found: Any, number: int) -> Tensor:
    if not isinstance(found, Tensor) or found.numel() != 1:
        got = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)[:40]
        message = f"the loss must be a tensor of one number, the mean over samples; it is {got}"
        raise ScoreError(message)
    if not bool(torch.isfinite(found.detach())):
        message = (
            f"the loss is {found.item()} on minibatch {number}, so no gradient of it means anything"
        )
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


def shown(batches: Iterable[Any], at_most: int | None, about: str, quiet: bool) -> Iterator[Any]:
    """Yield minibatches, with a bar where somebody watches."""
    if at_most is not None and (not isinstance(at_most, int) or at_most < 1):
        message = f"at_most must be a whole number of at least 1, got {at_most!r}"
        raise ScoreError(message)
    if not isinstance(batches, Iterable):
        message = f"batches must be an iterable of minibatches, got a {type(batches).__name__}"
        raise ScoreError(message)
    total = len(batches) if isinstance(batches, Sized) else None
    if at_most is not None:
        total = at_most if total is None else min(total, at_most)
    limited = itertools.islice(batches, at_most)
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
