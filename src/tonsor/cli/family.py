"""What a command takes away, and which options have no meaning for that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from tonsor.cli.choose_options import Family, Prune, Spp, Swp
from tonsor.cli.lfpc_options import Lfpc
from tonsor.cli.made import Made
from tonsor.errors import SelectionError

FIBRES = ("stripes", "columns")
OF_TRAINING = ("recipe", "epochs", "lr", "set", "run", "resume")
_OF_CHANNELS = ("skew", "round_to")
_RANKS = {
    "per_layer": FIBRES, "per_group": ("channels",), "isomorphic": ("channels",),
}  # fmt: skip
_USUAL: dict[str | None, Family] = {
    None: "channels", "swp": "stripes", "lasso": "stripes", "spp": "columns",
    "lfpc": "channels",
}  # fmt: skip


def family_of(command: Prune) -> Family:
    """What goes: what is said, or what the method is for."""
    return command.family or _USUAL[command.method]


def check_family(command: Prune) -> None:
    """Refuse options that have no meaning for what goes."""
    family = family_of(command)
    if command.threshold is not None and family not in FIBRES:
        message = (
            f"--threshold is about stripes and columns, and {family} go here; say --family stripes "
            "or columns, or what to keep by --budget"
        )
        raise SelectionError(message)
    if command.stripe_group != 1:
        _check_groups(command, family)
    if command.remove and family not in ("blocks", "branches"):
        hint = " or which of them go by --threshold" if family in FIBRES else ""
        message = (
            "--remove says which blocks go: add --family blocks, or say what to keep of the "
            f"{family} by --budget{',' if hint else ''}{hint}"
        )
        raise SelectionError(message)
    if family != "channels":
        check_no_channels(command, family)
    if command.rank is not None and family not in _RANKS.get(command.rank, (family,)):
        other = " and ".join(_RANKS[command.rank])
        message = f"--rank {command.rank} is for {other}, and {family} go here"
        raise SelectionError(message)
    if family in FIBRES and command.schedule != "one-shot":
        hint = "--method swp --ramp N" if family == "stripes" else "--method spp"
        message = (
            f"--schedule {command.schedule} is none for {family}: they go at once, or in the "
            f"course of a training by {hint}"
        )
        raise SelectionError(message)


def _check_groups(command: Prune, family: Family) -> None:
    option = f"--stripe-group {command.stripe_group}"
    if family != "stripes":
        message = (
            f"{option} is about stripes, and {family} go here; leave it out, or say --family "
            "stripes or --method swp"
        )
        raise SelectionError(message)
    if command.method not in (None, "swp", "lasso"):
        message = (
            f"{option} is for stripes that go at once or by --method swp or lasso; by "
            f"{command.method} each filter has its own, so leave it out"
        )
        raise SelectionError(message)


def check_at_once(command: Prune) -> None:
    """Refuse the options of methods where none is named."""
    family = family_of(command)
    of_spp, of_swp = given(command.spp, every(Spp)), given(command.swp, every(Swp))
    of_lfpc = given(command.lfpc, every(Lfpc))
    found = given(command, ("alpha",)) + of_swp + of_spp + of_lfpc
    if family in FIBRES:
        found += given(command.along, OF_TRAINING)
    if found:
        method = "spp" if of_spp or family != "stripes" else "swp"
        method = "lfpc" if of_lfpc else method
        message = (
            f"{named(found)} is about training by a method, and none is named; add --method "
            f"{method}, or train what comes out by `tonsor finetune`"
        )
        raise SelectionError(message)


def check_whole(command: Prune, made: Made) -> None:
    """Refuse to take channels or blocks from a model that has lost stripes or columns."""
    family, earlier = family_of(command), made.earlier
    if earlier is not None and earlier.fibres and family not in FIBRES:
        lost = " and ".join(k for k in FIBRES if getattr(earlier, k))
        message = (
            f"'{command.source.weights}' has lost {lost}, and {family} can't follow them: "
            "what is left of a convolution has other coordinates. Cut "
            f"{family} first, then {lost}"
        )
        raise SelectionError(message)


def check_no_channels(command: Prune, family: Family) -> None:
    """Refuse what is about channels alone."""
    blocks = family in ("blocks", "branches")
    found = given(command, (*(("rank", "floor") if blocks else ()), *_OF_CHANNELS))
    found += ["ratio"] if command.ratio and command.method != "spp" else []
    found += given(command.ranking, ("combine",))
    found += ["head_dims"] if command.source.head_dims else []
    if found:
        message = (
            f"{named(found)} is about channels, and --family {family} removes "
            f"{'blocks' if blocks else family}; leave it out, or prune in two steps, the second "
            "with --weights slim.tonsor"
        )
        raise SelectionError(message)
    if "compensate" in command.recover:
        message = (
            "--recover compensate makes up for channels, and of a block, a stripe or a column "
            "nothing is left that could; --recover batchnorm works after all of them"
        )
        raise SelectionError(message)


def every(options: type[Any]) -> tuple[str, ...]:
    """Name all options of a group."""
    return tuple(f.name for f in fields(options))


def given(options: Any, names: Iterable[str]) -> list[str]:
    """Name the options that are not as they are when nothing is said."""
    usual = {f.name: f.default for f in fields(options)}
    return [n for n in names if getattr(options, n) != usual[n]]


def named(names: Iterable[str]) -> str:
    """Write options as they are typed."""
    off = {f.name for kind in (Swp, Spp, Lfpc) for f in fields(kind) if f.default is True}
    return " and ".join(f"--{'no-' * (n in off)}{n.replace('_', '-')}" for n in names)
