"""The options of each command, and nothing else, so that `tonsor --help` is quick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from tonsor.cli.block_options import Blocks
from tonsor.cli.choose_options import Model, Prune, Score, Sensitivity, Source, Study
from tonsor.cli.deploy_options import Deploy
from tonsor.cli.fibre_options import Columns, Stripes
from tonsor.cli.learn_options import Eval, Finetune, Train


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspect:
    """Show which slices of a model go together, what may be cut, and why the rest may not.

    $ tonsor inspect nets.py:ResNet --input 1,3,32,32
    """

    model: Model
    """zoo:resnet56, package.module:name or path/to/file.py:name; a class, a function or a model"""
    source: OmitArgPrefixes[Source] = Source()
    json: bool = False
    """Print JSON, with everything in it"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explain:
    """Say of one module or parameter what it is tied to, if it may be cut, and why not.

    $ tonsor explain nets.py:ResNet layer1.0.conv1 --input 1,3,32,32
    """

    model: Model
    """zoo:resnet56, package.module:name or path/to/file.py:name; a class, a function or a model"""
    name: Annotated[Positional[str], arg(metavar="NAME")]
    """A module or a parameter, by the name it has in the model"""
    source: OmitArgPrefixes[Source] = Source()
    json: bool = False
    """Print JSON"""


@dataclass(frozen=True, kw_only=True, slots=True)
class List:
    """Show what there is to choose from: models of the zoo, criteria, methods, recipes, and more.

    $ tonsor list criteria
    """

    what: Positional[
        Literal[
            "models",
            "criteria",
            "block-criteria",
            "methods",
            "recipes",
            "rules",
            "conventions",
            "engines",
        ]
    ]
    """Which of them"""
    json: bool = False
    """Print JSON"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Doctor:
    """Show versions, threads, compiled kernels and engines, and check that pruning works here.

    Layers of stripes and columns run in compiled kernels. Those come with the package, or are
    compiled at their first use, which takes a C++ compiler and some seconds; without either, torch
    does the work, right but slower. The environment variable TONSOR_KERNELS, one of off, v4, v3 and
    base, says which to use; TONSOR_CACHE names the folder for what is compiled; CXX the compiler.

    $ tonsor doctor

    $ tonsor doctor --build --strict
    """

    build: bool = False
    """Compile the kernels now, if they are not there yet"""
    clean: bool = False
    """Remove kernels from the cache that were compiled for another version of tonsor"""
    strict: bool = False
    """End with exit code 1 if there are no kernels"""
    json: bool = False
    """Print JSON"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """Train a small network on digits, prune it in several ways, and write a page about it.

    It takes about a minute.

    $ tonsor demo
    """

    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/demo")
    """Where the results go"""


Command = (
    Demo | Inspect | Explain | Blocks | Stripes | Columns | Score | Sensitivity | Prune | Train
    | Finetune | Eval | Study | Deploy | List | Doctor
)  # fmt: skip
_KINDS = (
    Demo, Inspect, Explain, Blocks, Stripes, Columns, Score, Sensitivity, Prune, Train, Finetune,
    Eval, Study, Deploy, List, Doctor,
)  # fmt: skip
COMMANDS = {kind.__name__.lower(): kind for kind in _KINDS}

_DESCRIPTION = """Structured pruning for any PyTorch model: smaller, faster, and proven right.

First steps: tonsor demo; tonsor inspect nets.py:Net --input 1,3,32,32; tonsor prune --help"""


def parse(arguments: Sequence[str]) -> Command:
    """Read the command line; what can't be read ends the program with a hint."""
    return tyro.extras.subcommand_cli_from_dict(  # type: ignore[call-overload]
        COMMANDS,
        prog="tonsor",
        description=_DESCRIPTION,
        args=list(arguments),
        config=(FlagCreatePairsOff,),
    )
