"""Ways in which papers count, each by name; numbers of different conventions don't compare.

A convention says how much one unit of each term weighs. `mac_conv` is the primary one: what
most papers call "FLOPs". The names and definitions are those of the method specification.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tonsor.cost.ops import BATCH_NORMS
from tonsor.cost.terms import Line, Term
from tonsor.errors import SelectionError

Weigh: TypeAlias = Callable[[Line, Term], int]
Finish: TypeAlias = Callable[[int, int], float]


@dataclass(frozen=True, slots=True)
class Convention:
    """How much each term weighs, and what is made of the sum, where that is not all.

    `finish(after, before)` gets the sum after a plan and that of the whole model.
    """

    name: str
    about: str
    weigh: Weigh
    finish: Finish | None = None


CONVENTIONS: dict[str, Convention] = {}


def convention(name: str, finish: Finish | None = None) -> Callable[[Weigh], Weigh]:
    """Register a way of counting under a name.

    >>> @convention("norms_only")
    ... def norms_only(line, term):
    ...     \"\"\"Elements that are normalised.\"\"\"
    ...     return int(term.kind == "norm")
    """

    def register(weigh: Weigh) -> Weigh:
        if name in CONVENTIONS:
            message = f"there is a convention '{name}' already"
            raise ValueError(message)
        about = (weigh.__doc__ or "").strip().partition("\n")[0]
        CONVENTIONS[name] = Convention(name, about, weigh, finish)
        return weigh

    return register


def find_convention(name: str) -> Convention:
    """Return the convention of this name, or say which names are close."""
    found = CONVENTIONS.get(name)
    if found is not None:
        return found
    close = difflib.get_close_matches(name, CONVENTIONS, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    message = f"no convention is called '{name}'.{hint} There are: {', '.join(CONVENTIONS)}."
    raise SelectionError(message)


@convention("mac_conv")
def mac_conv(line: Line, term: Term) -> int:
    """Multiply-accumulates of convolutions and linear layers."""
    return int(term.kind in ("conv", "linear"))


@convention("mac")
def mac(line: Line, term: Term) -> int:
    """All multiply-accumulates: matrix products, attention and recurrent layers too."""
    return int(term.kind in ("conv", "linear", "matmul", "attention", "recurrent"))


@convention("flops2_conv")
def flops2_conv(line: Line, term: Term) -> int:
    """Twice `mac_conv`: a multiplication and an addition are two."""
    return 2 * mac_conv(line, term)


@convention("counter_rethinking")
def counter_rethinking(line: Line, term: Term) -> int:
    """The forward-hook counter of many public repositories, for convolutional networks.

    It sees modules only, so functional ReLU and pooling are invisible to it, and so are all
    modules but Conv2d, Linear, BatchNorm2d, ReLU, MaxPool2d, AvgPool2d and Upsample.
    """
    if line.operator in ("aten.conv2d", "aten.linear"):
        return 1 if term.kind == "bias" else 2
    if line.operator in BATCH_NORMS:
        return 2 if len(term.axes) == 4 else 0
    if term.kind == "activation":
        return int(line.module_type == "ReLU")
    if term.kind == "pool":
        return int(line.module_type in ("MaxPool2d", "AvgPool2d"))
    if term.kind == "resize":
        return 12 if line.module_type == "Upsample" else 0
    return 0


def _in_units_of_1024(after: int, before: int) -> float:
    return round(after / 1e9, 5) / 2 * 1024


@convention("spsrc_table", _in_units_of_1024)
def spsrc_table(line: Line, term: Term) -> int:
    """The column of SPSRC's table: `counter_rethinking` in G, to 5 places, / 2 × 1024."""
    return counter_rethinking(line, term)


def _ratio(after: int, before: int) -> float:
    return before / after if after else math.inf


@convention("spp_speedup", _ratio)
def spp_speedup(line: Line, term: Term) -> int:
    """How many times fewer multiply-accumulates convolutions do after a plan."""
    return int(term.kind == "conv")


@convention("spp_speedup_fc", _ratio)
def spp_speedup_fc(line: Line, term: Term) -> int:
    """The same with linear layers counted in."""
    return mac_conv(line, term)
