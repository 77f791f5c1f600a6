"""The options of the commands that rank and cut, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from tonsor.cli.learn_options import Images, Model, Repeated
from tonsor.cli.lfpc_options import Lfpc

Family = Literal["channels", "columns", "stripes", "blocks", "branches"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the model comes from, and what it runs on."""

    input: Annotated[Repeated, arg(aliases=("-i",), metavar="SHAPE")] = ()
    """An example input: 1,3,224,224 or, with a name, a type and a range,
    ids=2,16:int64:0..100; models of the zoo know theirs, and --data says it too"""
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
class Ranking:
    """How pieces are scored."""

    by: Annotated[str | None, arg(metavar="CRITERION")] = "l2"
    """How pieces are scored, with options after a colon: spectral, lp:p=3; `tonsor list criteria`
    shows the choice, `tonsor list block-criteria` that for blocks. Those that look at data need
    --data. Where nothing else is the default, l2; l1 for columns and for --method spp, and imprint
    for blocks"""
    combine: Literal["mean", "sum", "max", "producer", "normalised"] | None = None
    """How the weights that a group runs through are combined: over all of them, over those that
    make the pieces only, or the mean after each has been divided by its own. The mean if not said,
    and the producer with --method lfpc"""
    score_batches: Annotated[int | None, arg(metavar="N")] = None
    """How many minibatches of training images a criterion sees that looks at data; 8 if not said,
    and all for imprint and probe, which learn from them"""
    score_batch: Annotated[int, arg(metavar="N")] = 128
    """Images of such a minibatch"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """How models are timed."""

    engine: Annotated[str, arg(metavar="ENGINE")] = "eager"
    """What runs them: eager, compile, onnxruntime or openvino; `tonsor list engines` says which can
    be used here"""
    threads: Annotated[int, arg(metavar="N")] = 1
    """Threads of a model; with one, models don't wait for cores that others use"""
    batch: Annotated[int | None, arg(metavar="N")] = None
    """Samples that run at once; 1 if not said, or as many as --input has"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Score the pieces of a model, and show how the scores are distributed.

    $ tonsor score zoo:resnet56 --weights resnet56.safetensors --by spectral --figure norms.svg
    """

    model: Model
    """zoo:resnet56, package.module:name or path/to/file.py:name; a class, a function or a model"""
    source: OmitArgPrefixes[Source] = Source()
    ranking: OmitArgPrefixes[Ranking] = Ranking()
    images: OmitArgPrefixes[Images] = Images(data=None)
    layers: Annotated[Repeated, arg(metavar="NAME")] = ()
    """Groups, layers or patterns to show; all if not said"""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Where to save all scores as JSON; `tonsor prune --by FILE.json` cuts by them"""
    figure: Annotated[Path | None, arg(metavar="FILE")] = None
    """Where to draw histograms and densities as SVG, with their data beside it"""
    json: bool = False
    """Print all scores as JSON"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """Cut each group alone, in several steps, and judge what is left on the validation split.

    $ tonsor sensitivity zoo:resnet20 --weights base.safetensors --data cifar10:data/cifar10
    """

    model: Model
    """zoo:resnet20, package.module:name or path/to/file.py:name; a class, a function or a model"""
    source: OmitArgPrefixes[Source] = Source()
    ranking: OmitArgPrefixes[Ranking] = Ranking(by="l1")
    images: OmitArgPrefixes[Images] = Images()
    layers: Annotated[Repeated, arg(metavar="NAME")] = ()
    """Groups, layers or patterns to cut; all if not said"""
    kept: UseAppendAction[tuple[float, ...]] = ()
    """A fraction of a group to keep; 0.9, 0.75, 0.5, 0.25 and 0.1 if not said"""
    worst: Annotated[float, arg(metavar="DROP")] = 0.01
    """The accuracy that a group may cost alone, for the ratios that are proposed"""
    processes: Annotated[int, arg(metavar="N")] = 1
    """How many processes share the work"""
    out: Annotated[Path, arg(aliases=("-o",), metavar="FOLDER")] = Path("runs/sensitivity")
    """Where every finished row, the table and the figure go"""
    resume: bool = False
    """Go on with what is in that folder"""
    quiet: bool = False
    """Show no progress"""
    json: bool = False
    """Print the result as JSON"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Swp:
    """Of --method swp and lasso, which train stripes away."""

    start: Literal["ones", "norms"] | None = None
    """Of swp: what the skeleton starts as. norms, the norms of the stripes, if the network is
    trained already (--weights), and ones if it is not, unless you say"""
    revival: bool = True
    """With a threshold: stripes that are gone stay gone; else one that momentum lifts above the
    threshold is back"""
    skeleton_only: bool = False
    """Of swp: leave the weights as they are, and train the skeleton alone"""
    ramp: Annotated[int | None, arg(metavar="N")] = None
    """With a budget: the cost comes down to it in so many minibatches; in six tenths of the
    training if not said"""
    every: Annotated[int | None, arg(metavar="N")] = None
    """With a budget: how many minibatches until more stripes go; 50 if not said"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spp:
    """Of --method spp. Each piece is left out of a minibatch by a chance of its own, 0 at first.

    Now and then the pieces of a layer are ranked by their norm. The chance of the lowest rises most
    and that of the highest falls; a piece whose chance has come to 1 is gone for good.
    """

    interval: Annotated[int | None, arg(metavar="N")] = None
    """How many minibatches until the chances change again. A layer takes about 70 changes. 180 if
    not said, as in the paper, or so many fewer that six tenths of the training are enough"""
    most: Annotated[float, arg(metavar="CHANCE")] = 0.05
    """By how much the chance of the lowest rises each time (the paper's A): more is faster, and
    leaves less time to think better of it"""
    centre: Annotated[float, arg(metavar="PART")] = 0.25
    """How steep it is (the paper's u): the increment has come down to this part of --most at the
    rank about which it is symmetric; the less, the more the lowest go first"""
    shape: Literal["exponential", "linear"] = "exponential"
    """How the increment comes down from rank to rank; linear makes no use of --centre"""
    scores: Literal["rank", "size"] = "rank"
    """What decides: the rank of a piece, as in the paper, or the size of its norm itself"""
    history: Annotated[float, arg(metavar="PART")] = 0.0
    """Add up the scores of all minibatches, of which this part stays each time; 0 has the newest
    alone"""
    recovery: bool = True
    """Let no chance fall, so that no wrong decision is taken back"""
    guard: Annotated[int, arg(metavar="N")] = 500
    """After so many changes a layer that has not lost its part loses the lowest of the rest"""
    elementwise: bool = False
    """Draw for each weight of a piece instead of for the whole piece"""
    gradient: Literal["masked", "caffe"] = "masked"
    """What learns of a piece that is left out: masked, nothing; caffe, as in the authors' code, all
    of it until its layer has lost something for good"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Along:
    """How to train, where pruning goes along with training."""

    recipe: Annotated[str | None, arg(metavar="NAME|FILE")] = None
    """A recipe of the papers (`tonsor list recipes`) or a TOML file; a short cosine if not said"""
    epochs: Annotated[int | None, arg(metavar="N")] = None
    """Passes over the training images. If not said: as many as the schedule needs and one more;
    with --method 40, and 160 from random weights with swp and lasso. With lfpc they come after
    the search"""
    lr: Annotated[float | None, arg(metavar="RATE")] = None
    """Learning rate"""
    set: Annotated[Repeated, arg(metavar="FIELD=VALUE")] = ()
    """Any other field of the recipe, with its value as in TOML"""
    run: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/prune")
    """Where checkpoints, the recipe and the results of the training go"""
    resume: bool = False
    """Go on with the run in that folder"""
    device: Annotated[str | None, arg(metavar="DEVICE")] = None
    """cpu, cuda, ...: where to train, the best there is if not said, and where latency is measured,
    the CPU if not said"""
    quiet: bool = False
    """Show no progress"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prune:
    """Cut a model down to a budget, prove the result right, and save it.

    --family says what goes:
    - channels: whole filters and hidden units, with all that reads them; the network is narrower
    - columns: one tap of one input of a convolution, in all its filters (`tonsor columns`)
    - stripes: one tap of one filter, over all its inputs (`tonsor stripes`)
    - blocks: whole residual blocks, so that less runs one after the other (`tonsor blocks`)
    - branches: parts of blocks, such as the attention of a layer

    $ tonsor prune nets.py:ResNet --input 1,3,32,32 --budget macs=50% --out slim.tonsor
    $ tonsor prune zoo:resnet56 --weights w.safetensors --by spectral --budget macs=44% \\
        --schedule iterative:100/10 --data cifar10:data/cifar10 --out slim.tonsor
    $ tonsor prune zoo:resnet56 --weights w.safetensors --family blocks --budget latency=70% \\
        --data cifar10:data/cifar10 --out slim.tonsor
    $ tonsor prune zoo:resnet56 --weights w.safetensors --method swp --budget macs=50% \\
        --epochs 40 --data cifar10:data/cifar10 --out slim.tonsor
    $ tonsor prune zoo:convnet --weights w.safetensors --method spp --ratio 0.75 \\
        --epochs 40 --data cifar10:data/cifar10 --out slim.tonsor
    $ tonsor prune zoo:resnet56 --weights w.safetensors --method lfpc --budget macs=50% \\
        --search-epochs 10 --epochs 40 --data cifar10:data/cifar10 --out slim.tonsor
    """

    model: Model
    """zoo:resnet56, package.module:name or path/to/file.py:name; a class, a function or a model"""
    source: OmitArgPrefixes[Source] = Source()
    family: Family | None = None
    """What goes. If not said, what suits --method: columns for spp, stripes for swp and lasso; and
    channels for lfpc, and without one"""
    method: Literal["swp", "lasso", "spp", "lfpc"] | None = None
    """Train on --data, and have the training say what goes. swp: a filter skeleton, a number for
    each stripe that is trained with the rest. lasso: a penalty on the norms of stripes. spp: pieces
    go by chance, which rises for those of small norm and falls for the others. lfpc: each layer
    learns by which criterion it is pruned, and how far"""
    budget: Annotated[str | None, arg(metavar="COST=KEPT")] = None
    """What to keep: macs=50%, params=1.2M, pieces=70%, spp_speedup=2x, or another way of counting
    (`tonsor list conventions`); latency=70% or latency=12ms is measured, and corrected until the
    measured figure holds"""
    macs: Annotated[str | None, arg(metavar="KEPT")] = None
    """The same as --budget macs=KEPT: 50%, 0.5 or an amount such as 1.2G"""
    params: Annotated[str | None, arg(metavar="KEPT")] = None
    """The same as --budget params=KEPT"""
    remove: Annotated[Repeated, arg(metavar="N|NAME")] = ()
    """Of blocks, in place of a budget: how many go, or the name of one that does"""
    threshold: Annotated[float | None, arg(metavar="LEAST")] = None
    """Of stripes and columns, in place of a budget: those that are not above it go. At once it is a
    score, by default a norm over the mean of its layer, such as 0.4; with swp and lasso it is a
    number of the skeleton, or a norm, such as 0.01, as SWP's authors take"""
    alpha: Annotated[float | Literal["constant", "adaptive"] | None, arg(metavar="WEIGHT|WORD")] = (
        None
    )
    """Of swp and lasso: the weight of the penalty in the loss; 1e-5 for swp and 1e-4 for lasso if
    not said. Of spp: whether what changes a chance aims at all that is to go (constant, as in the
    paper) or at what is still to go (adaptive, more than twice as slow)"""
    timed: OmitArgPrefixes[Timed] = Timed()
    swp: OmitArgPrefixes[Swp] = Swp()
    spp: OmitArgPrefixes[Spp] = Spp()
    lfpc: OmitArgPrefixes[Lfpc] = field(default_factory=Lfpc)
    ranking: OmitArgPrefixes[Ranking] = Ranking(by=None)
    rank: Literal["global", "per_group", "normalised", "isomorphic", "per_layer"] | None = None
    """Compare pieces over the whole model (global), take the same share of each group (per_group,
    or per_layer for stripes and columns), compare after dividing by each group's mean
    (normalised), or compare among groups of the same structure only (isomorphic). Where nothing is
    said, global, and normalised for stripes and columns"""
    keep: Annotated[Repeated, arg(metavar="NAME")] = ()
    """A module, block, parameter or pattern that must not be cut"""
    ratio: Annotated[Repeated, arg(metavar="NAME=KEPT|PART")] = ()
    """The part of a layer to keep, as a fraction (conv1=0.5) or a number of channels (conv1=24).
    With --method spp, in place of a budget, it is the part that goes, as in the paper: of every
    layer (0.75), or by patterns of their names (conv2=0.75)"""
    skew: Annotated[float | None, arg(metavar="LIMIT")] = None
    """Leave groups whole whose scores have a skewness above this (0 is the usual limit): layers
    with a tail towards small scores are the robust ones"""
    round_to: Annotated[int, arg(metavar="N")] = 1
    """Keep multiples of this many; convolutions often run best in eights"""
    stripe_group: Annotated[int, arg(metavar="N")] = 1
    """Of stripes, at once and with swp and lasso: so many consecutive filters of a convolution keep
    the same ones. 8, 16 or 32 suit GPUs"""
    floor: Annotated[float | None, arg(metavar="LEAST")] = None
    """The least that stays of a group, or of the stripes or columns of a layer: a number, or below
    1 a fraction of it. Where nothing is said, 0.1, and 1 for stripes and columns"""
    schedule: Annotated[str, arg(metavar="SCHEDULE")] = "one-shot"
    """When to cut: one-shot, or while training on --data: iterative:100/10 (100 pieces each 10
    minibatches), fraction:0.2/30 (of what is left), ramp:20/100 (20 rounds along a cubic), soft:79
    (each 79 minibatches; what was zeroed may return). Of blocks, iterative:1 removes one at a time
    and trains for --epochs after each"""
    images: OmitArgPrefixes[Images] = Images(data=None)
    along: OmitArgPrefixes[Along] = Along()
    recover: UseAppendAction[tuple[Literal["compensate", "batchnorm"], ...]] = ()
    """What to do after the cut, with images but no labels: put the mean of what was removed in its
    place, take the statistics of batch norm anew; each says what it has won"""
    measure: bool = True
    """Leave out measuring: neither latency, nor how layers of stripes or columns run fastest"""
    verify: bool = True
    """Leave out the proof that the slim model computes what the masked one does"""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Where to save the slim model, with the plan inside it"""
    plan: Annotated[Path | None, arg(metavar="FILE")] = None
    """Where to save the plan on its own, as JSON"""
    json: bool = False
    """Print the report as JSON"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Compare criteria, schedules, or blocks and filters, on one network, all else the same.

    Every trial has a folder of its own and is done once; the same command goes on where it was
    stopped, and several of them on one folder share the work.

    $ tonsor study criteria resnet20 --weights resnet20.safetensors --data cifar10:data/cifar10
    """

    what: Annotated[
        Positional[
            Literal[
                "criteria", "schedules", "spsrc", "layerprune", "swp", "spp", "spp-settings", "lfpc"
            ]
        ],
        arg(metavar="WHAT"),
    ]
    """criteria: each of them, random and uniform. schedules: iterative against one-shot. spsrc: the
    configurations of SPSRC by its norms and by L1. layerprune: blocks against filters, on accuracy
    and measured latency. swp: stripes against filters, and the filter skeleton against group
    lasso. spp: columns that go by chance against columns and filters at once. spp-settings: what
    its interval, its largest increment and its centre change. lfpc: criteria learned for each
    layer against each single one, at the same widths"""
    network: Annotated[Positional[str], arg(metavar="NETWORK")]
    """A network of the zoo, such as resnet20"""
    weights: Annotated[Path, arg(metavar="FILE")]
    """Its trained weights"""
    data: Annotated[str, arg(aliases=("-d",), metavar="DATA")]
    """cifar10:FOLDER or whatever else `tonsor train --data` takes"""
    mean: Annotated[tuple[float, ...] | None, arg(metavar="MEAN")] = None
    """What images are normalised with, if not with what suits the data"""
    std: Annotated[tuple[float, ...] | None, arg(metavar="STD")] = None
    """As --mean, the standard deviation"""
    by: Annotated[Repeated, arg(metavar="CRITERION")] = ()
    """Criteria to compare, or for lfpc to choose from; all there are, or those of the paper, if not
    said"""
    kept: UseAppendAction[tuple[float, ...]] = ()
    """Fractions of the cost to keep: 0.5 and 0.3 if not said; for schedules, of the filters: 0.8
    and 0.7; for spp, of the work of convolutions: 0.5, 0.25 and 0.125, speed-ups of 2x, 4x and
    8x"""
    most: Annotated[int, arg(metavar="N")] = 8
    """Of layerprune: how many blocks are removed at most"""
    seeds: Annotated[int, arg(metavar="N")] = 3
    """How many seeds"""
    images: Annotated[int, arg(metavar="N")] = 10_000
    """Training images to learn from"""
    epochs: Annotated[int, arg(metavar="N")] = 1
    """Passes of fine-tuning over them"""
    processes: Annotated[int, arg(metavar="N")] = 1
    """How many trials run at a time"""
    out: Annotated[Path, arg(aliases=("-o",), metavar="FOLDER")] = Path("runs/study")
    """Where the trials, the tables and the figures go"""
    quiet: bool = False
    """Show no progress"""
    json: bool = False
    """Print the results as JSON"""
    traceback: bool = False
    """Show where in the code an error came from"""
