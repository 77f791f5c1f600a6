"""The model that a command is about, made and filled as the command line says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from tonsor.anatomy import Anatomy, inspect
from tonsor.cli.choose_options import Source
from tonsor.cli.model import build, fill, find, read_inputs, zoo_inputs
from tonsor.cli.show import step
from tonsor.graph.inputs import Inputs
from tonsor.plans import Plan

if TYPE_CHECKING:
    from tonsor.train.data import Splits


@dataclass(frozen=True, slots=True)
class Made:
    """A model and its inputs; `earlier` is the plan that made it of `original`, if it is slim.

    `restored` says that convolutions which had lost stripes or columns have whole kernels again.
    """

    model: nn.Module
    inputs: Inputs
    earlier: Plan | None = None
    random: bool = False
    original: nn.Module | None = None
    restored: bool = False


def make(spec: str, source: Source, splits: Splits | None = None) -> Made:
    """Make a model; one of the zoo suits the images, whose size is the example input if need be."""
    args = source.args
    if splits is not None:
        from tonsor.cli.given import suited  # brings accelerate, which bare cutting doesn't need

        args = suited(spec, args, splits)
    with step(f"importing {spec}"):
        found = find(spec)
    if source.input or splits is None:
        inputs = read_inputs(source.input or zoo_inputs(spec, args), source.seed)
    else:
        inputs = Inputs(torch.zeros(2, *splits.shape))
    with step(f"making {spec}"):
        model = build(found, spec, args, source.seed)
    if source.weights is None:
        return Made(model, inputs, random=isinstance(found, (type, partial)))
    with step(f"loading {source.weights}"):
        filled, earlier = fill(model, str(source.weights), spec)
    return Made(filled, inputs, earlier, original=None if earlier is None else model)


def grown(made: Made) -> tuple[Made, Plan | None]:
    """Give convolutions that have lost fibres their whole kernels back, zero where they have none.

    What else an earlier plan has removed stays gone. Returned is also the plan that removes just
    those stripes and columns, for what comes after to leave them out.
    """
    earlier, original = made.earlier, made.original
    if earlier is None or not earlier.fibres:
        return made, None
    assert original is not None
    first = replace(earlier, fibres={})
    whole = first.apply(original, verify=False)
    with torch.no_grad():
        for tensor in (*whole.parameters(), *whole.buffers()):
            tensor.zero_()
    after = earlier.relative_to(first)
    model = after.revert(made.model, whole).train(made.model.training)
    return replace(made, model=model, earlier=first, restored=True), after


def make_anatomy(spec: str, source: Source, splits: Splits | None = None) -> Anatomy:
    """Make a model and inspect it."""
    made = make(spec, source, splits)
    with step("tracing, and trying cuts on shapes"):
        return inspect(made.model, made.inputs, head_dims=source.head_dims)
