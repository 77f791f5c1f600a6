"""From words on a command line to the options of a search for criteria."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tonsor.cli.choose_options import Prune
from tonsor.cli.chosen_blocks import batches_seen, looks_at_data
from tonsor.cli.family import family_of
from tonsor.cli.given import shown_to_criteria
from tonsor.cli.lfpc_options import Lfpc
from tonsor.criteria.registry import find_criterion
from tonsor.errors import SelectionError
from tonsor.methods.lfpc.search import CRITERIA, Search
from tonsor.train.data import Splits

_SEARCHED = (
    "rates", "masks", "warm", "cold", "among", "begin", "tolerance", "upper_tolerance",
    "expectation", "train_weights", "refresh", "end", "exact",
)  # fmt: skip


_RENAMED = {"weight": "cost_weight", "lr": "search_lr", "betas": "search_betas",
            "decay": "search_decay"}  # fmt: skip
"""What the search calls its options, where other options have those names here."""


def searched(options: Lfpc, round_to: int = 1) -> Search:
    """The options of the search itself."""
    found = {name: getattr(options, name) for name in _SEARCHED}
    turns = options.turns
    found["turns"] = turns if turns == "together" else f"{turns} first"
    found |= {name: getattr(options, here) for name, here in _RENAMED.items()}
    try:
        return Search(**found, round_to=round_to)
    except SelectionError as error:
        name, _, rest = str(error).partition(" ")
        message = f"--{_RENAMED[name].replace('_', '-')} {rest}" if name in _RENAMED else str(error)
        raise SelectionError(message) from None


def criteria_named(items: Iterable[str]) -> tuple[str, ...]:
    """Read criteria with commas between, of which some may be between options: `lp:p=3,l1`."""
    found: list[str] = []
    for part in (p.strip() for item in items for p in item.split(",")):
        if found and ":" in found[-1] and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return tuple(found) or CRITERIA


def chosen_by(items: Sequence[str], criteria: Sequence[str]) -> str | Mapping[str, str]:
    """Read how criteria are chosen: `learned`, `random`, one for all, or by patterns of sites."""
    if not items:
        return "learned"
    if len(items) == 1 and items[0] in ("learned", "random"):
        return items[0]
    found: dict[str, str] = {}
    for item in items:
        pattern, equals, by = ("*", "=", item) if item in criteria else item.partition("=")
        if not (equals and pattern and by in criteria) or pattern in found:
            message = (
                "--choice takes learned, random, a criterion, or PATTERN=CRITERION such as "
                f"layer1*={criteria[0]}, once each, of {', '.join(criteria)} (--criteria); got "
                f"'{item}'"
            )
            raise SelectionError(message)
        found[pattern] = by
    # The first pattern that fits counts, so the one that always fits is the last.
    return {k: v for k, v in found.items() if k != "*"} | {k: found[k] for k in found if k == "*"}


def reads_data(command: Prune) -> list[str]:
    """Name the criteria to choose from that look at data; one that is not known is refused."""
    named = criteria_named(command.lfpc.criteria)
    if family_of(command) == "blocks":
        return [by for by in named if looks_at_data(by)]
    return [by for by in named if find_criterion(by).reads_data]


def by_learned_criteria(command: Prune, splits: Splits) -> dict[str, Any]:
    """The options of lfpc."""
    options, ranking, seed = command.lfpc, command.ranking, command.source.seed
    criteria = criteria_named(options.criteria)
    found: dict[str, Any] = {
        "criteria": criteria, "choice": chosen_by(options.choice, criteria),
        "family": family_of(command), "search_epochs": options.search_epochs,
        "share": options.share, "weights": options.cut,
        "search": searched(options, command.round_to),
    }  # fmt: skip
    if ranking.combine is not None:
        found["combine"] = ranking.combine
    if seeing := reads_data(command):
        found["score_batches"] = shown_to_criteria(splits, ranking.score_batch, seed)
        seen = [batches_seen(ranking.score_batches, by) for by in seeing]
        found["at_most"] = None if None in seen else seen[0]
    return found
