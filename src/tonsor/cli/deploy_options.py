"""The options of `tonsor deploy`, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import OmitArgPrefixes, UseAppendAction, arg

from tonsor.cli.choose_options import Model, Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Deploy:
    """Find out how fast a model can run here: fused, and with the fastest way of each layer.

    The table says how long each convolution takes in each way, and the whole model before and
    after. In Python, `tonsor.deploy` gives the same, and the model that runs like that.

    $ tonsor deploy zoo:resnet56 --weights slim.tonsor --batch 8
    """

    model: Model
    """zoo:resnet56, package.module:name or path/to/file.py:name; for a slim.tonsor the original
    one"""
    source: OmitArgPrefixes[Source] = Source()
    threads: Annotated[int, arg(metavar="N")] = 1
    """Threads of the model; with one, it does not wait for cores that others use"""
    batch: Annotated[int | None, arg(metavar="N")] = None
    """Samples that run at once; as many as --input has if not said, or 1"""
    rounds: Annotated[int, arg(metavar="N")] = 9
    """How often each layer is timed in each way"""
    margin: Annotated[float, arg(metavar="SHARE")] = 0.03
    """By which share of its time a way must be faster than the ordinary one to be taken"""
    way: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="WAY")] = ()
    """Which ways are tried: dense, prepacked, torch, kernel, triton; all if not said"""
    json: bool = False
    """Print everything as JSON"""
