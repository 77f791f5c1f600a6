"""Which options have no meaning for the method that is named."""

from __future__ import annotations

from tonsor.cli.choose_options import Prune, Spp, Swp
from tonsor.cli.chosen_blocks import looks_at_data
from tonsor.cli.family import every, family_of, given, named
from tonsor.criteria.registry import find_criterion
from tonsor.errors import SelectionError

_OF_SKELETONS = ("start", "skeleton_only")
_OF_DATA = ("score_batches", "score_batch")
_BY_CHANCE = ("columns", "channels", "stripes", "blocks")


def check_method(command: Prune) -> None:
    """Refuse options that the method makes no use of."""
    if command.method == "spp":
        _check_spp(command)
    else:
        _check_swp(command)


def _check_swp(command: Prune) -> None:
    options, method = command.swp, command.method
    if (family := family_of(command)) != "stripes":
        message = (
            f"--method {method} trains stripes away, and {family} go here; leave out --family, or "
            "take --method spp, by which columns, channels, stripes or blocks go"
        )
        raise SelectionError(message)
    _check_others(command, given(command.spp, every(Spp)), "spp")
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
    _check_others(command, given(command.swp, every(Swp)), "swp")
    if isinstance(command.alpha, float):
        message = (
            f"--alpha {command.alpha:g} is for swp and lasso; of spp it is constant or adaptive"
        )
        raise SelectionError(message)
    other = given(command, ("threshold", "remove", "rank", "floor", "skew", "round_to"))
    other += given(command.ranking, _OF_DATA)
    other += ["combine"] if command.ranking.combine != "mean" else []
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


def _check_others(command: Prune, found: list[str], method: str) -> None:
    if found:
        message = f"{named(found)} is about --method {method}, and here it is {command.method}"
        raise SelectionError(message)
