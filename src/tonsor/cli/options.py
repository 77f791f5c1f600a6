"""The options of each command, and nothing else, so that `tonsor --help` is quick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg

from tonsor.cli.learn_options import Eval, Finetune, Train

Repeated = UseAppendAction[tuple[str, ...]]
Model = Annotated[Positional[str], arg(metavar="MODEL")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the model comes from, and what it runs on."""

    input: Annotated[Repeated, arg(aliases=("-i",), metavar="SHAPE")] = ()
    """An example input: 1,3,224,224 or, with a name, a type and a range,
    ids=2,16:int64:0..100; models of the zoo know theirs"""
    args: Annotated[str, arg(metavar="JSON")] = "{}"
    """Keywords for the class or function that makes the model, such as '{"width": 32}'"""
    weights: Annotated[Path | None, arg(metavar="FILE")] = None
    """A safetensors file with the model's weights, or a slim.tonsor to go on from; for models of
    the zoo a state dict that torch has saved will do too"""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Seed of everything random: weights that are not loaded, example inputs, some criteria"""
    head_dims: bool = False
    """Free the dimensions of attention heads too"""
    traceback: bool = False
    """Show where in the code an error came from"""


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
class Prune:
    """Cut a model down to a budget, prove the result right, and save it.

    $ tonsor prune nets.py:ResNet --input 1,3,32,32 --macs 50% --out slim.tonsor
    """

    model: Model
    """zoo:resnet56, package.module:name or path/to/file.py:name; a class, a function or a model"""
    source: OmitArgPrefixes[Source] = Source()
    macs: Annotated[str | None, arg(metavar="KEPT")] = None
    """Multiply-accumulates to keep: 50%, 0.5 or an amount such as 1.2G"""
    params: Annotated[str | None, arg(metavar="KEPT")] = None
    """Parameters to keep: 30%, 0.3 or an amount such as 4M"""
    by: Annotated[str, arg(metavar="CRITERION")] = "l2"
    """How pieces are ranked; `tonsor list criteria` shows the choice"""
    rank: Literal["global", "per_group", "normalised"] = "global"
    """Compare pieces over the whole model, take the same share of each group, or compare after
    dividing by each group's mean"""
    keep: Annotated[Repeated, arg(metavar="NAME")] = ()
    """A module, parameter or pattern that must not be cut"""
    round_to: Annotated[int, arg(metavar="N")] = 1
    """Keep multiples of this many; convolutions often run best in eights"""
    floor: Annotated[float, arg(metavar="LEAST")] = 0.1
    """The least that stays of a group: a number, or below 1 a fraction of it"""
    verify: bool = True
    """Leave out the proof that the slim model computes what the masked one does"""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Where to save the slim model, with the plan inside it"""
    plan: Annotated[Path | None, arg(metavar="FILE")] = None
    """Where to save the plan on its own, as JSON"""
    json: bool = False
    """Print the report as JSON"""


@dataclass(frozen=True, kw_only=True, slots=True)
class List:
    """Show what there is to choose from: models of the zoo, criteria, recipes, and more.

    $ tonsor list criteria
    """

    what: Positional[Literal["models", "criteria", "recipes", "rules", "conventions"]]
    """Which of them"""
    json: bool = False
    """Print JSON"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Doctor:
    """Show versions and threads, and check that pruning works here.

    $ tonsor doctor
    """

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


Command = Demo | Inspect | Explain | Prune | Train | Finetune | Eval | List | Doctor
_KINDS = (Demo, Inspect, Explain, Prune, Train, Finetune, Eval, List, Doctor)
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
