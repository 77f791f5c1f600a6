"""Scores of blocks: one number for each, and what is to be said of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tonsor.errors import ScoreError


@dataclass(frozen=True)
class BlockScores:
    """One number for each block that could be judged, in the order in which blocks run.

    The lowest go first. `unscored` says of the other blocks why they have none, `conditions` what
    the scores come from. Where blocks are judged by what is known after each, `curve` holds the
    accuracy after each, from 0 to 1, and `network` that of the model itself.
    """

    values: Mapping[str, float]
    by: str
    unscored: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    curve: Mapping[str, float] | None = None
    network: float | None = None

    def __getitem__(self, block: str) -> float:
        return self.values[block]

    def ranking(self, names: Iterable[str] | None = None) -> tuple[str, ...]:
        """Return the blocks of these names, or all, the least important first.

        Blocks with the same score stay in the order in which they run; those without one are
        left out.

        >>> BlockScores({"a": 2.0, "b": 1.0, "c": 1.0}, "l1").ranking()
        ('b', 'c', 'a')
        """
        wanted = set(self.values if names is None else names)
        return tuple(sorted((n for n in self.values if n in wanted), key=self.values.__getitem__))

    @property
    def notes(self) -> Iterator[str]:
        """What a careful user should know about this ranking."""
        shared = len(self.values) - len(set(self.values.values()))
        if shared:
            yield (
                f"'{self.by}' gives {shared} blocks a score that another has too; of those the "
                "first to run goes first"
            )
        untaught = self.conditions.get("untaught")
        if untaught:
            yield (
                f"nothing was learned of class {', '.join(map(str, untaught))}, so it is never "
                "predicted; give more minibatches to learn from"
            )
        if self.unscored:
            name, why = next(iter(self.unscored.items()))
            rest = f" and {len(self.unscored) - 1} others" if len(self.unscored) > 1 else ""
            yield f"'{self.by}' can't judge '{name}'{rest}; {name}: {why}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads back."""
        return {
            "by": self.by,
            "values": dict(self.values),
            "unscored": dict(self.unscored),
            "conditions": dict(self.conditions),
            "curve": None if self.curve is None else dict(self.curve),
            "network": self.network,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BlockScores:
        """Read what `to_json` returned."""
        try:
            curve, network = data.get("curve"), data.get("network")
            scores = cls(
                values=_numbers(data["values"]),
                by=str(data["by"]),
                unscored={str(n): str(why) for n, why in data.get("unscored", {}).items()},
                conditions=dict(data.get("conditions", {})),
                curve=None if curve is None else _numbers(curve),
                network=None if network is None else float(network),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"these are no scores of blocks: {type(error).__name__}: {error}"
            raise ScoreError(message) from None
        bad = next((n for n, v in scores.values.items() if not math.isfinite(v)), None)
        if bad is not None:
            message = f"the score of block '{bad}' is {scores[bad]}, which can't be ranked"
            raise ScoreError(message)
        return scores

    def __str__(self) -> str:
        names = [*self.values, *(n for n in self.unscored if n not in self.values)]
        width = max((len(n) for n in names), default=0)
        place = {name: at for at, name in enumerate(self.ranking(), 1)}
        head = f"Scores of {len(self.values)} blocks by {self.by}, and which goes when"
        if self.network is not None:
            head += f"; the network is right in {self.network:.2%}"
        lines = [head]
        for name, value in self.values.items():
            after = (self.curve or {}).get(name)
            known = "" if after is None else f"  {after:7.2%} after it"
            lines.append(f"  {name:<{width}}  {value:>12.5g}  {place[name]:>4}.{known}")
        return "\n".join([*lines, *(f"  note: {n}" for n in self.notes)])


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    return {str(n): float(v) for n, v in data.items()}
