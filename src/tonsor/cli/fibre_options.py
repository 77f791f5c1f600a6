"""The options of `tonsor stripes` and `tonsor columns`, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from tonsor.cli.choose_options import Model, Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Stripes:
    """List the convolutions of a model, and say whose stripes may go, or what is left of them.

    A stripe is the part of a filter at one position of its kernel, over all inputs: a 3x3 filter
    has nine. Layers whose stripes may not go are listed with the reason. `tonsor prune --family
    stripes` removes them at once, `--method swp` in the course of a training.

    $ tonsor stripes zoo:resnet56
    $ tonsor stripes zoo:resnet56 --weights slim.tonsor
    """

    model: Model
    """zoo:resnet56, package.module:name or path/to/file.py:name; for a slim.tonsor, or a plan, the
    original one"""
    source: OmitArgPrefixes[Source] = Source()
    plan: Annotated[Path | None, arg(metavar="FILE")] = None
    """A plan that `tonsor prune --plan` has saved, to see what it leaves; --weights slim.tonsor
    shows the same of what is in there"""
    figure: Annotated[Path | None, arg(metavar="FILE")] = None
    """Draw the remaining stripes of each layer by their position, as an SVG with its data beside"""
    json: bool = False
    """Print everything as JSON"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """List the convolutions of a model, and say whose columns may go, or what is left of them.

    A column is one position of one input, in all filters: a 3x3 convolution has nine of each input.
    Layers whose columns may not go are listed with the reason. `tonsor prune --family columns`
    removes them at once, `--method spp` in the course of a training.

    $ tonsor columns zoo:convnet
    $ tonsor columns zoo:convnet --weights slim.tonsor
    """

    model: Model
    """zoo:resnet56, package.module:name or path/to/file.py:name; for a slim.tonsor, or a plan, the
    original one"""
    source: OmitArgPrefixes[Source] = Source()
    plan: Annotated[Path | None, arg(metavar="FILE")] = None
    """A plan that `tonsor prune --plan` has saved, to see what it leaves; --weights slim.tonsor
    shows the same of what is in there"""
    json: bool = False
    """Print everything as JSON"""
