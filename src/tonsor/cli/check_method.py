"""Which options have no meaning for the method that is named."""

from __future__ import annotations

from tonsor.cli.along_lfpc import chosen_by, criteria_named, reads_data, searched
from tonsor.cli.choose_options import Prune
from tonsor.cli.chosen_blocks import looks_at_data
from tonsor.cli.family import FIBRES, every, family_of, given, named
from tonsor.criteria.registry import find_criterion
from tonsor.errors import SelectionError

_OF_SKELETONS = ("start", "skeleton_only")
_OF_DATA = ("score_batches", "score_batch")
_BY_CHANCE = ("columns", "channels", "stripes", "blocks")


def check_method(command: Prune) -> None:
    """Refuse options that the method makes no use of."""
    if command.method == "spp":
        _check_spp(command)
    elif command.method == "lfpc":
        _check_lfpc(command)
    else:
        _check_swp(command)


def _check_swp(command: Prune) -> None:
    options, method = command.swp, command.method
    if (family := family_of(command)) != "stripes":
        message = (
            f"--method {method} trains stripes away, and {family} go here; leave out --family, or "
            "take --method spp or lfpc, by which columns, channels, stripes or blocks go"
        )
        raise SelectionError(message)
    _check_others(command, "spp", "lfpc")
    if isinstance(command.alpha, str):
        message = (
            f"--alpha {command.alpha} is for spp; of {method} it is the weight of the penalty: "
            "--alpha 1e-5"
        )
        raise SelectionError(message)
    scoring = given(command.ranking, _OF_DATA) + given(command, ("rank",))
    scoring = (["by"] if command.ranking.by is not None else []) + scoring
    if scoring:
        message = (
            f"{named(scoring)} is about scores, and --method {method} learns which stripes go; "
            "leave it out, or leave out --method"
        )
        raise SelectionError(message)
    skeleton = given(options, _OF_SKELETONS)
    if method == "lasso" and skeleton:
        message = f"{named(skeleton)} is about skeletons, and lasso has none: --method swp"
        raise SelectionError(message)
    if command.threshold is not None and (course := given(options, ("ramp", "every"))):
        message = (
            f"{named(course)} is how the cost comes down to a budget; with --threshold stripes go "
            "when they fall to it. Leave it out, or say --budget instead"
        )
        raise SelectionError(message)
    if command.threshold is None and not options.revival:
        message = (
            "--no-revival is for --threshold; with a budget what is gone stays gone anyway, so "
            "leave it out"
        )
        raise SelectionError(message)


def _check_spp(command: Prune) -> None:
    if (family := family_of(command)) not in _BY_CHANCE:
        message = f"by spp go {', '.join(_BY_CHANCE[:-1])} or blocks, not {family}: --family blocks"
        raise SelectionError(message)
    _check_others(command, "swp", "lfpc")
    if isinstance(command.alpha, float):
        message = (
            f"--alpha {command.alpha:g} is for swp and lasso; of spp it is constant or adaptive"
        )
        raise SelectionError(message)
    other = given(command, ("threshold", "remove", "rank", "floor", "skew", "round_to"))
    other += given(command.ranking, _OF_DATA)
    other += given(command.ranking, ("combine",))
    other += ["head_dims"] if command.source.head_dims else []
    other += ["schedule"] if command.schedule != "one-shot" else []
    if other:
        message = (
            f"{named(other)} has no meaning for --method spp, which takes the part of each layer "
            "that --ratio says, or the same part of all until a budget is met; leave it out"
        )
        raise SelectionError(message)
    if "compensate" in command.recover:
        message = (
            "--recover compensate makes up for what a cut takes, and after a training by spp the "
            "cut changes nothing; leave it out"
        )
        raise SelectionError(message)
    by = command.ranking.by
    if by is None:
        return
    shown = looks_at_data if family == "blocks" else lambda name: find_criterion(name).reads_data
    if by.endswith(".json") or shown(by):
        message = (
            f"--by {by} is no criterion of weights alone, and spp scores anew after each interval; "
            "take l1, l2 or another of those"
        )
        raise SelectionError(message)


def _check_lfpc(command: Prune) -> None:
    if (family := family_of(command)) not in _BY_CHANCE:
        message = (
            f"by lfpc go channels, {', '.join(f for f in _BY_CHANCE[:-1] if f != 'channels')} or "
            f"blocks, not {family}: --family blocks"
        )
        raise SelectionError(message)
    _check_others(command, "swp", "spp")
    if command.ranking.by is not None:
        message = (
            f"--by {command.ranking.by} names one criterion for all layers, and by lfpc each "
            f"chooses among several; say which by --criteria, and --choice {command.ranking.by} "
            "if all are to take that one"
        )
        raise SelectionError(message)
    other = given(command, ("threshold", "remove", "ratio", "rank", "floor", "skew", "alpha"))
    other += ["schedule"] if command.schedule != "one-shot" else []
    if other:
        message = (
            f"{named(other)} has no meaning for --method lfpc, which learns how far each layer is "
            "pruned to meet a budget; leave it out, and say by --rates which parts may go and by "
            "--keep what must stay"
        )
        raise SelectionError(message)
    if "compensate" in command.recover:
        message = (
            "--recover compensate makes up for what a cut takes, and by lfpc the slim model has "
            "been trained since; leave it out"
        )
        raise SelectionError(message)
    _check_search(command)


def _check_search(command: Prune) -> None:
    """Refuse a search that can't be, and options of it that would do nothing."""
    options, family = command.lfpc, family_of(command)
    criteria = criteria_named(options.criteria)
    searched(options, command.round_to)
    if options.search_epochs is not None and options.search_epochs < 1:
        message = (
            f"--search-epochs {options.search_epochs} leaves no search, by which alone it is known "
            "what goes; give it at least 1"
        )
        raise SelectionError(message)
    choice, seeing = chosen_by(options.choice, criteria), reads_data(command)
    if seeing and family in FIBRES:
        message = (
            f"{seeing[0]} looks at data, and {family} are scored anew after each step, by weights "
            "alone; leave it out of --criteria, or take --family channels"
        )
        raise SelectionError(message)
    if not seeing and (found := given(command.ranking, _OF_DATA)):
        message = (
            f"{named(found)} is for criteria that look at data, and none of "
            f"{', '.join(criteria)} does; leave it out"
        )
        raise SelectionError(message)
    if choice != "learned" and options.turns != "together":
        message = (
            f"--turns {options.turns} is about learning criteria and rates in turns, and with "
            "--choice there are rates alone to learn; leave one of them out"
        )
        raise SelectionError(message)


def _check_others(command: Prune, *methods: str) -> None:
    for method in methods:
        options = getattr(command, method)
        if found := given(options, every(type(options))):
            message = f"{named(found)} is about --method {method}, and here it is {command.method}"
            raise SelectionError(message)
