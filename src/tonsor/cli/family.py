"""Which family the command line is about, and which options have no meaning for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

from tonsor.cli.choose_options import Prune, Ranking, Striping
from tonsor.cli.made import Made
from tonsor.errors import SelectionError

_OF_CHANNELS = ("ratio", "skew", "round_to")
_OF_METHODS = ("alpha", "start", "revival", "skeleton_only", "ramp", "every")
_OF_SKELETONS = ("start", "skeleton_only")
_OF_TRAINING = ("recipe", "epochs", "lr", "set", "run", "resume")
_OF_SCORES = ("by", "score_batches", "score_batch")
_NO_RANK = {"channels": ("per_layer",), "stripes": ("per_group", "isomorphic")}


def implied(command: Prune) -> Prune:
    """Return the command with the family that its method asks for."""
    if command.striping.method is not None and command.family == "channels":
        return replace(command, family="stripes")
    return command


def check_family(command: Prune) -> None:
    """Refuse options that have no meaning for what goes."""
    if command.rank in _NO_RANK.get(command.family, ()):
        other = "stripes" if command.family == "channels" else "channels"
        message = f"--rank {command.rank} is for {other}, and {command.family} go here"
        raise SelectionError(message)
    if command.family == "stripes":
        _check_stripes(command)
        return
    striping = given(command.striping, (*_OF_METHODS, "threshold", "method"))
    if striping:
        message = (
            f"{named(striping)} is about stripes, and {command.family} go here; say --family "
            "stripes, or --method swp, which trains them away"
        )
        raise SelectionError(message)
    if command.family == "channels":
        if command.remove:
            message = (
                "--remove says which blocks go: add --family blocks, or say what to keep of the "
                "channels by --budget"
            )
            raise SelectionError(message)
        return
    _check_no_channels(command, ("rank", "floor"), "removes blocks")


def check_unstriped(command: Prune, made: Made) -> None:
    """Refuse to take channels or blocks from a model that has lost stripes."""
    if made.earlier is not None and made.earlier.stripes and command.family != "stripes":
        message = (
            f"'{command.source.weights}' has lost stripes, and {command.family} can't follow them: "
            "what is left of a convolution has other coordinates. Cut "
            f"{command.family} first, then stripes (--family stripes)"
        )
        raise SelectionError(message)


def given(options: Any, names: Iterable[str]) -> list[str]:
    """Name the options that are not as they are when nothing is said."""
    usual = {f.name: f.default for f in fields(options)}
    return [n for n in names if getattr(options, n) != usual[n]]


def named(names: Iterable[str]) -> str:
    """Write options as they are typed."""
    off = {f.name for f in fields(Striping) if f.default is True}
    return " and ".join(f"--{'no-' * (n in off)}{n.replace('_', '-')}" for n in names)


def _check_no_channels(command: Prune, more: Iterable[str], does: str) -> None:
    found = given(command, (*more, *_OF_CHANNELS))
    found += ["combine"] if command.ranking.combine != Ranking().combine else []
    found += ["head_dims"] if command.source.head_dims else []
    if found:
        message = (
            f"{named(found)} is about channels, and --family {command.family} {does}; leave it "
            "out, or prune in two steps, the second with --weights slim.tonsor"
        )
        raise SelectionError(message)
    if "compensate" in command.recover:
        message = (
            "--recover compensate makes up for channels, and of a block or a stripe nothing is "
            "left that could; --recover batchnorm works after all of them"
        )
        raise SelectionError(message)


def _check_stripes(command: Prune) -> None:
    _check_no_channels(command, (), "removes stripes")
    if command.remove:
        message = (
            "--remove says which blocks go; say what to keep of the stripes by --budget, or "
            "which of them go by --threshold"
        )
        raise SelectionError(message)
    if command.schedule != "one-shot":
        message = (
            f"--schedule {command.schedule} is none for stripes: they go at once, or in the course "
            "of a training by --method swp --ramp N"
        )
        raise SelectionError(message)
    if command.striping.method is not None:
        _check_method(command)
        return
    training = given(command.striping, _OF_METHODS) + given(command.along, _OF_TRAINING)
    if training:
        message = (
            f"{named(training)} is about training, and at once nothing trains; add --method swp, "
            "or train what comes out by `tonsor finetune`"
        )
        raise SelectionError(message)


def _check_method(command: Prune) -> None:
    options, method = command.striping, command.striping.method
    scoring = given(command.ranking, _OF_SCORES[1:]) + given(command, ("rank",))
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
    if options.threshold is not None and (course := given(options, ("ramp", "every"))):
        message = (
            f"{named(course)} is how the cost comes down to a budget; with --threshold stripes go "
            "when they fall to it. Leave it out, or say --budget instead"
        )
        raise SelectionError(message)
    if options.threshold is None and not options.revival:
        message = (
            "--no-revival is for --threshold; with a budget what is gone stays gone anyway, so "
            "leave it out"
        )
        raise SelectionError(message)
