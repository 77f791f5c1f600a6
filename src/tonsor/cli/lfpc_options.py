"""The options of --method lfpc, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from tonsor.cli.learn_options import Repeated


@dataclass(frozen=True, kw_only=True, slots=True)
class Lfpc:
    """Of --method lfpc. Each layer learns by which criterion it is pruned, and how far.

    Layers have odds for criteria and for rates. At each step some are drawn from them, and what
    would go is masked; the loss on other training images changes the odds, the loss on the cost
    keeps them near the budget. Then each layer takes what is likeliest, is cut, and trains on.
    """

    criteria: Annotated[Repeated, arg(metavar="CRITERION")] = ()
    """What layers choose from, with commas between or one at a time: --criteria l1,l2,median. l1,
    l2 and geometric_median if not said, as in the paper; `tonsor list criteria` shows the others.
    Of stripes, columns and blocks they are those that look at weights"""
    choice: Annotated[Repeated, arg(metavar="learned|random|PATTERN=CRITERION")] = ()
    """To compare with: random draws the criterion of each layer once, and a criterion, or some by
    patterns of names (layer1*=l1), is taken as it is; then rates alone are learned"""
    search_epochs: Annotated[int | None, arg(metavar="N")] = None
    """Passes over the images that weights learn from while criteria are searched for; as many as
    --epochs, which are those that the slim model trains for afterwards, if not said"""
    share: Annotated[float, arg(metavar="PART")] = 0.5
    """The part of the training images that odds are learned from, in the search; weights learn
    from the others"""
    cut: Literal["searched", "given"] = "searched"
    """Which weights are cut: those that the search has trained meanwhile, or those it began with"""
    rates: Annotated[tuple[float, ...], arg(metavar="RATE")] = (
        0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7,
    )  # fmt: skip
    """The parts of a layer that may go, rising, with spaces between"""
    masks: Literal["soft", "straight"] = "soft"
    """Mask by the mixture that is drawn, as in the paper, or by what there is most of in it, with
    the gradients of the mixture (straight through)"""
    warm: Annotated[float, arg(metavar="TEMPERATURE")] = 1.0
    """The temperature of the first draw, where mixtures are more even. TAS has 5; short searches do
    better colder"""
    cold: Annotated[float, arg(metavar="TEMPERATURE")] = 0.1
    """The temperature of the last, where they are nearly single choices; it falls in a straight
    line"""
    among: Annotated[int | None, arg(metavar="N")] = None
    """Mix only so many criteria and rates at a time, which are drawn first; all if not said"""
    turns: Literal["together", "criteria", "rates"] = "together"
    """Learn criteria and rates together, or one of them in the first half of the search, and the
    other in the second"""
    begin: Literal["budget", "even"] = "budget"
    """Begin with odds of rates by which the budget is expected, or with even ones"""
    tolerance: Annotated[float, arg(metavar="PART")] = 0.05
    """How far from the budget what is drawn may be, as a part of it, before that counts"""
    upper_tolerance: bool = True
    """Above the budget, let it count at once"""
    cost_weight: Annotated[float, arg(metavar="WEIGHT")] = 2.0
    """The weight of the cost in the loss of the search"""
    expectation: Literal["odds", "drawn"] = "odds"
    """Expect the cost by the odds, or by the mixture that was drawn"""
    train_weights: bool = True
    """Leave the weights as they are while the odds are learned"""
    refresh: Annotated[int, arg(metavar="N")] = 1
    """Score anew after so many steps of the search"""
    search_lr: Annotated[float | None, arg(metavar="RATE")] = None
    """The learning rate of the odds (Adam): 0.001, or higher where a search is so short that odds
    would not get far, if not said"""
    search_betas: Annotated[tuple[float, float], arg(metavar="BETA")] = (0.5, 0.999)
    """The betas of that Adam"""
    search_decay: Annotated[float, arg(metavar="DECAY")] = 1e-3
    """The weight decay of that Adam, on the logits"""
    end: Literal["likeliest", "expected"] = "likeliest"
    """What a layer ends with: its likeliest rate, or as much as the odds let expect"""
    exact: bool = True
    """Leave it at what was learned, within the tolerance of the budget; else all layers give or
    take about the same part in the end, to just meet it"""
