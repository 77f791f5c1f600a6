"""Looking at what goes into blocks and comes out, while the model runs on minibatches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.blocks.material import Material
from tonsor.criteria.score import alone
from tonsor.criteria.stream import (
    by_itself,
    check_inputs,
    run_copy,
    samples_of,
    shown,
    taken_apart,
    untouched,
    where_is,
)
from tonsor.errors import ScoreError
from tonsor.families.blocks.block import Block
from tonsor.graph.caches import forgetting
from tonsor.graph.inputs import Inputs


@dataclass(slots=True)
class Run:
    """The minibatch that is on its way: its target, its samples, and the blocks it has met."""

    number: int = -1
    target: Any = None
    samples: int = 0
    met: set[str] = field(default_factory=set)


See = Callable[[Run, Block, Tensor | None, Tensor], None]
"""Is shown what went into a block, if that was asked for, and what came out."""


def look(
    material: Material,
    batches: Iterable[Any],
    see: See,
    *,
    about: str,
    inputs: Collection[str] = (),
    output: Callable[[Run, Any], None] | None = None,
) -> int:
    """Run minibatches with somebody looking at the blocks, and return how many samples ran.

    A minibatch is `(inputs, target)`, a mapping with the target as `labels`, or the inputs alone.
    `inputs` names the blocks of which what goes in is shown as well; `output` is shown what the
    model returns. Blocks that are `repeated` are not looked at. The model runs in eval mode and in
    full precision, and is left as it was.
    """
    model, seen, run = material.anatomy.model, 0, Run()
    device = where_is(model)
    with alone(material.seed), untouched(model, gradients=False), by_itself(device, backward=False):
        copy = run_copy(model)
        with forgetting(copy), _watched(copy, material, run, see, inputs):
            for batch in shown(batches, material.at_most, about, material.quiet):
                given, run.target = _apart(batch, device)
                run.number, run.samples = run.number + 1, samples_of(given)
                check_inputs(given, run.number)
                run.met.clear()
                if not run.samples:
                    continue
                found = given.call(copy)
                if output is not None:
                    output(run, found)
                seen += run.samples
    if not seen:
        message = f"there is no minibatch for {about}; give at least one"
        raise ScoreError(message)
    return seen


def repeated(anatomy: Anatomy, block: Block) -> str:
    """Say of a block that is called several times that it is no one place; else nothing."""
    calls = sum(call.module == block.modules[-1] for call in anatomy.graph.calls)
    return f"it is called {calls} times, so it is several layers" if calls > 1 else ""


@contextmanager
def _watched(
    model: nn.Module, material: Material, run: Run, see: See, inputs: Collection[str]
) -> Iterator[None]:
    kept: dict[str, Tensor] = {}

    def before(block: Block, _: nn.Module, args: Any, kwargs: Any) -> None:
        # A copy, as what comes first in the block may be an activation in place.
        kept[block.name] = block.input(args, kwargs).detach().clone()

    def after(block: Block, _: nn.Module, args: Any, out: Any) -> None:
        given = kept.pop(block.name, None)
        if block.name in run.met:
            message = (
                f"block '{block.name}' is called again on minibatch {run.number}, and only once "
                "when the model was inspected; inspect it with inputs such as these"
            )
            raise ScoreError(message)
        run.met.add(block.name)
        result = block.result(out).detach()
        if not bool(result.isfinite().all()):
            message = (
                f"what block '{block.name}' returns holds NaN or infinite numbers on minibatch "
                f"{run.number}, so nothing can be told from it; repair the data or the weights"
            )
            raise ScoreError(message)
        see(run, block, given, result)

    with ExitStack() as stack:
        for block in material.blocks:
            if repeated(material.anatomy, block):
                continue
            first, last = (model.get_submodule(block.modules[i]) for i in (0, -1))
            if block.name in inputs and block.takes:
                hook = partial(before, block)
                stack.callback(first.register_forward_pre_hook(hook, with_kwargs=True).remove)
            stack.callback(last.register_forward_hook(partial(after, block)).remove)
        yield


def _apart(batch: Any, device: torch.device | None) -> tuple[Inputs, Any]:
    bare = isinstance(batch, (Tensor, Inputs))
    return taken_apart((batch, None) if bare else batch, device)
