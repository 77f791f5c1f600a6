"""The options of `tonsor blocks`, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, arg

from tonsor.cli.choose_options import Model, Source, Timed
from tonsor.cli.learn_options import Images


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """List the blocks of a model; score them, and time them.

    A block is a piece that may go as a whole, with what runs through it handed on: a residual
    block, a layer of a transformer, a convolution with its norm and activation. Those that may not
    go are listed with the reason. `tonsor prune --family blocks` removes them.

    $ tonsor blocks zoo:resnet56 --weights w.safetensors --by imprint --data cifar10:data/cifar10
    $ tonsor blocks zoo:resnet56 --time --engine eager --batch 1
    """

    model: Model
    """zoo:resnet56, package.module:name or path/to/file.py:name; a class, a function or a model"""
    source: OmitArgPrefixes[Source] = Source()
    level: Literal["block", "branch"] = "block"
    """Whole blocks, or each branch of them, such as the attention of a layer, on its own"""
    by: Annotated[str | None, arg(metavar="CRITERION")] = None
    """Score them, and show in which order they would go: imprint, ensemble, cosine, l1, ...;
    `tonsor list block-criteria` shows the choice, and FILE.json is what --out has saved. Those that
    look at data need --data"""
    score_batches: Annotated[int | None, arg(metavar="N")] = None
    """How many minibatches of training images a criterion sees that looks at data; 8 if not said,
    and all for imprint and probe, which learn from them"""
    score_batch: Annotated[int, arg(metavar="N")] = 128
    """Images of such a minibatch"""
    judge: Literal["validation", "test"] = "validation"
    """What imprint and probe are judged on; LayerPrune's paper took the test images, which then
    can't say any more how good the result is"""
    images: OmitArgPrefixes[Images] = Images(data=None)
    time: bool = False
    """Measure how long each takes, and how well the sum tells the latency of the whole"""
    timed: OmitArgPrefixes[Timed] = Timed()
    device: Annotated[str | None, arg(metavar="DEVICE")] = None
    """Where to measure: cpu, cuda, ...; the CPU if not said"""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Where to save the scores as JSON; `tonsor prune --family blocks --by FILE.json` goes by
    them"""
    figure: Annotated[Path | None, arg(metavar="FILE")] = None
    """Where to draw the importance of each as SVG, with its data beside it, and in
    FILE-accuracy.svg what is known after each, where the criterion says that"""
    quiet: bool = False
    """Show no progress"""
    json: bool = False
    """Print everything as JSON"""
