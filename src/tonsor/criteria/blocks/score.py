"""Score every block of a model, by any criterion that there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch

from tonsor.anatomy import Anatomy
from tonsor.criteria.blocks.imprinting import imprint
from tonsor.criteria.blocks.lifted import lift
from tonsor.criteria.blocks.material import Material
from tonsor.criteria.blocks.probes import probe
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.criteria.blocks.similarity import cosine
from tonsor.criteria.blocks.voting import FIVE, vote
from tonsor.criteria.registry import CRITERIA, choices, find_criterion, read_options
from tonsor.criteria.stream import Loss
from tonsor.errors import SelectionError
from tonsor.families.blocks.block import Blocks

__all__ = ["BlockScores", "block_criteria", "score_blocks"]


def score_blocks(
    anatomy: Anatomy,
    blocks: Blocks,
    by: str = "imprint",
    *,
    batches: Iterable[Any] | None = None,
    judge: Iterable[Any] | None = None,
    loss: Loss | None = None,
    at_most: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> BlockScores:
    """Score the blocks of a model; the lowest matter least.

    `by` is one of `block_criteria()` with its options: `"imprint:first=stem"`, `"ensemble"`, or
    `"ensemble:l1+bn_scale"` to say who votes; any criterion of pieces stands for its mean over
    the filters of a block, such as `"taylor_gate:inner=true"`. Data comes from `batches`, at most
    `at_most` of them: any iterable of `(inputs, target)`. Imprinting and probes learn from them,
    and are judged on `judge`, or on every fifth minibatch that was kept back for that.
    """
    if not len(blocks):
        message = "this model has no blocks, so there is nothing to score"
        raise SelectionError(message)
    return _scored(Material(anatomy, blocks, batches, judge, loss, at_most, seed, quiet), by)


def block_criteria() -> Mapping[str, str]:
    """Return the names of all ways to score blocks, each with what it measures."""
    own = {name: (f.__doc__ or "").split("\n")[0] for name, f in _OWN.items()}
    lifted = {n: f"Mean over filters: {c.summary}" for n, c in CRITERIA.items() if n not in own}
    return own | lifted


def random(material: Material) -> BlockScores:
    """A random number for each block, by the seed."""
    drawn = torch.rand(len(material.blocks), generator=torch.Generator().manual_seed(material.seed))
    values = {b.name: v for b, v in zip(material.blocks, drawn.tolist(), strict=True)}
    return BlockScores(values, "random", conditions={"seed": material.seed})


def ensemble(
    material: Material, members: Sequence[str] = tuple(FIVE.values()), *, inner: bool = False
) -> BlockScores:
    """The sum of ranks by the five criteria of LayerPrune (Elkerdawy et al., 2020).

    Others may vote by naming them, as in `ensemble:l1+bn_scale`; `inner` is meant for those of
    them that are means over filters.
    """
    readers = [m for m in members if _reads_data(m)]
    if len(readers) > 1 and isinstance(material.batches, Iterator):
        message = (
            f"{' and '.join(readers)} each go through the data, and these batches can be gone "
            "through only once; give a list or a loader"
        )
        raise SelectionError(message)
    if inner:
        members = [m if _taken_apart(m)[0] in _OWN else _with(m, "inner=True") for m in members]
    return vote([_scored(material, m) for m in members])


_OWN: Mapping[str, Callable[..., BlockScores]] = {
    "imprint": imprint, "probe": probe, "cosine": cosine, "ensemble": ensemble, "random": random,
}  # fmt: skip


def _scored(material: Material, by: str) -> BlockScores:
    name, given = _taken_apart(by)
    items = [item.strip() for item in given.split(",") if item.strip()]
    if name not in _OWN:
        mine = [i for i in items if i.partition("=")[0].strip() in choices(lift)]
        found = find_criterion(f"{name}:{','.join(i for i in items if i not in mine)}")
        options = read_options(name, lift, ",".join(mine))
        scores = lift(material, found, **options)
        return replace(scores, by=_written(name, {**found.options, **options}))
    voters = [item for item in items if name == "ensemble" and "=" not in item]
    members = [m.strip() for item in voters for m in item.split("+")]
    options = read_options(name, _OWN[name], ",".join(i for i in items if i not in voters))
    scores = _OWN[name](material, *([members] if voters else []), **options)
    return replace(scores, by=_written(name, options, "+".join(members)))


def _reads_data(by: str) -> bool:
    name, _ = _taken_apart(by)
    return name in ("imprint", "probe", "cosine") or (
        name not in _OWN and CRITERIA[name].reads_data
    )


def _taken_apart(by: object) -> tuple[str, str]:
    """Return the name of a criterion and the text of its options."""
    if not isinstance(by, str):
        message = f"a criterion of blocks is given by name, got {by!r}"
        raise SelectionError(message)
    name, _, given = by.partition(":")
    known = list(dict.fromkeys([*_OWN, *CRITERIA]))
    if name not in known:
        close = get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
        message = f"no criterion of blocks is called '{name}'; {hint}"
        raise SelectionError(message)
    return name, given


def _with(by: str, option: str) -> str:
    return f"{by},{option}" if ":" in by else f"{by}:{option}"


def _written(name: str, options: Mapping[str, Any], members: str = "") -> str:
    given = [*([members] if members else []), *(f"{k}={v}" for k, v in options.items())]
    return f"{name}:{','.join(given)}" if given else name
