"""Scores: one number for each piece, and what is to be said of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tonsor.criteria.rows import Array
from tonsor.errors import ScoreError
from tonsor.files import replacing


@dataclass(frozen=True)
class Scores:
    """One number for each index of each group; the lowest go first.

    `unscored` says of groups that the criterion can't judge why not; they are left whole.
    """

    values: Mapping[str, Array]
    by: str
    unscored: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, group: str) -> Array:
        return self.values[group]

    @property
    def tied(self) -> dict[str, int]:
        """Groups in which all pieces have the same score, with their size: no ranking at all."""
        return {n: len(v) for n, v in self.values.items() if len(v) > 1 and np.ptp(v) == 0}

    @property
    def ties(self) -> dict[str, int]:
        """How many pieces of each group share their score with another; others are absent."""
        counts = {n: _sharing(v) for n, v in self.values.items()}
        return {n: c for n, c in counts.items() if c}

    @property
    def notes(self) -> Iterator[str]:
        """What a careful user should know about this ranking."""
        tied, ties = self.tied, self.ties
        if tied:
            yield (
                f"'{self.by}' gives all pieces of {_some(tied)} the same score, so which of them "
                "go is decided by their order alone"
            )
        partly = {n: c for n, c in ties.items() if n not in tied}
        if partly:
            pieces = sum(partly.values())
            yield f"'{self.by}' gives {pieces} pieces of {_some(partly)} a score they share"
        if self.unscored:
            name, why = next(iter(self.unscored.items()))
            groups = _some(self.unscored)
            yield f"'{self.by}' can't judge {groups}, and they stay whole; {name}: {why}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads back."""
        values = {n: v.tolist() for n, v in self.values.items()}
        return {"by": self.by, "values": values, "unscored": dict(self.unscored)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scores:
        """Read what `to_json` returned."""
        try:
            values = {str(n): np.asarray(v, dtype=np.float64) for n, v in data["values"].items()}
            by, unscored = str(data["by"]), dict(data.get("unscored", {}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"these are no scores: {type(error).__name__}: {error}"
            raise ScoreError(message) from None
        for name, row in values.items():
            if row.ndim != 1 or not np.isfinite(row).all():
                message = f"the scores of '{name}' are no list of finite numbers"
                raise ScoreError(message)
        return cls(values, by, unscored)

    def save(self, path: str | Path) -> None:
        """Write the scores as JSON, whole or not at all."""
        with replacing(path) as part:
            part.write_text(json.dumps(self.to_json()) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read scores that `save` has written."""
        try:
            data = json.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            message = f"'{path}' can't be read as scores: {error}"
            raise ScoreError(message) from None
        return cls.from_json(data)

    def __str__(self) -> str:
        width = max((len(n) for n in self.values), default=0)
        lines = [f"Scores by {self.by}: {len(self.values)} groups"]
        for name, row in self.values.items():
            low, middle, high = (float(np.quantile(row, q)) for q in (0, 0.5, 1))
            lines.append(
                f"  {name:<{width}}  {len(row):>6}  {low:.4g} .. {middle:.4g} .. {high:.4g}"
            )
        return "\n".join([*lines, *(f"  note: {n}" for n in self.notes)])


def _sharing(row: Array) -> int:
    _, counts = np.unique(row, return_counts=True)
    return int(counts[counts > 1].sum())


def _some(names: Mapping[str, object]) -> str:
    first = next(iter(names))
    return f"'{first}'" if len(names) == 1 else f"'{first}' and {len(names) - 1} other groups"
