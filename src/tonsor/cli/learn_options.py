"""The options of the commands that train and judge, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

Repeated = UseAppendAction[tuple[str, ...]]
Model = Annotated[Positional[str], arg(metavar="MODEL")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """How the model is made."""

    args: Annotated[str, arg(metavar="JSON")] = "{}"
    """Keywords for the class or function that makes the model, such as '{"width": 0.5}'; the
    number of classes and of channels of a zoo: model come from the data"""
    traceback: bool = False
    """Show where in the code an error came from"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Which images, and how they are split."""

    data: Annotated[str | None, arg(aliases=("-d",), metavar="DATA")] = "digits"
    """digits (comes with tonsor), cifar10:FOLDER, cifar100:FOLDER, mnist:FOLDER, folder:PATH,
    npz:FILE, or a path whose layout speaks for itself"""
    validation: Annotated[float, arg(metavar="PART")] = 0.1
    """How much of the training images to decide by: a fraction below 1, or a number"""
    limit: Annotated[int | None, arg(metavar="N")] = None
    """Learn from this many images only"""
    size: Annotated[int | None, arg(metavar="PIXELS")] = None
    """The side that images of a folder are brought to"""
    strict: bool = False
    """Refuse a folder with an unreadable image instead of leaving the image out"""
    mean: Annotated[tuple[float, ...] | None, arg(metavar="MEAN")] = None
    """What images are normalised with, a number for each channel, if not with what suits the data:
    weights from elsewhere expect what they were trained with"""
    std: Annotated[tuple[float, ...] | None, arg(metavar="STD")] = None
    """As --mean, the standard deviation"""
    split_seed: Annotated[int, arg(metavar="N")] = 0
    """Seed of the split; the same seed gives the same validation images"""


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """How to train: a recipe, and what is to be different from it."""

    recipe: Annotated[str | None, arg(metavar="NAME|FILE")] = None
    """A recipe of the papers (`tonsor list recipes`) or a TOML file, such as a run's run.toml"""
    epochs: Annotated[int | None, arg(metavar="N")] = None
    """Passes over the training images"""
    batch: Annotated[int | None, arg(metavar="N")] = None
    """Images of one step"""
    lr: Annotated[float | None, arg(metavar="RATE")] = None
    """Learning rate"""
    seed: Annotated[int | None, arg(metavar="N")] = None
    """Seed of everything random"""
    set: Annotated[Repeated, arg(metavar="FIELD=VALUE")] = ()
    """Any other field of the recipe, with its value as in TOML: --set 'schedule="cosine"'"""
    out: Annotated[Path, arg(aliases=("-o",), metavar="FOLDER")] = Path("runs/train")
    """Where checkpoints, weights, the recipe and the results go"""
    resume: bool = False
    """Go on with the run in that folder, bit for bit as if it had not been ended"""
    device: Annotated[str | None, arg(metavar="DEVICE")] = None
    """cpu, cuda, ...; the best there is if not said"""
    board: bool = True
    """Write no charts for TensorBoard"""
    quiet: bool = False
    """Show no progress"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train a model from random weights, or on from weights, and judge it once at the end.

    $ tonsor train zoo:resnet20 --data cifar10:data/cifar10 --recipe spsrc-base --out runs/base
    """

    model: Model
    """zoo:resnet20, package.module:name or path/to/file.py:name"""
    weights: Annotated[Path | None, arg(metavar="FILE")] = None
    """Weights to begin with"""
    network: OmitArgPrefixes[Network] = Network()
    images: OmitArgPrefixes[Images] = Images()
    how: OmitArgPrefixes[How] = How()
    json: bool = False
    """Print the result as JSON"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetune:
    """Bring a pruned model back to accuracy; what comes out is a slim.tonsor again.

    $ tonsor finetune zoo:resnet20 --weights slim.tonsor --data cifar10:data/cifar10 --epochs 40
    """

    model: Model
    """The original model, as it was named when it was pruned"""
    weights: Annotated[Path, arg(metavar="FILE")]
    """A slim.tonsor, or a safetensors file with the weights of the model as it is"""
    teacher: Annotated[Path | None, arg(metavar="FILE")] = None
    """Weights of the unpruned model, to learn from its answers too"""
    network: OmitArgPrefixes[Network] = Network()
    images: OmitArgPrefixes[Images] = Images()
    how: OmitArgPrefixes[How] = How(out=Path("runs/finetune"))
    json: bool = False
    """Print the result as JSON"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Eval:
    """Say how good a model is, with the size of the doubt.

    $ tonsor eval zoo:resnet20 --weights slim.tonsor --data cifar10:data/cifar10
    """

    model: Model
    """The model; for a slim.tonsor, the original one"""
    weights: Annotated[Path, arg(metavar="FILE")]
    """A safetensors file or a slim.tonsor"""
    on: Literal["test", "validation", "train"] = "test"
    """The split to judge on. Decide by validation; look at test once"""
    batch: Annotated[int, arg(metavar="N")] = 256
    """Images at a time"""
    device: Annotated[str, arg(metavar="DEVICE")] = "cpu"
    """Where to compute"""
    network: OmitArgPrefixes[Network] = Network()
    images: OmitArgPrefixes[Images] = Images()
    json: bool = False
    """Print the result as JSON"""
