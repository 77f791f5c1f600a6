"""What cutting one group at a time has shown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from tonsor.errors import SelectionError, TrainError
from tonsor.files import replacing
from tonsor.train.evaluate import Evaluation

FORMAT = "tonsor sensitivity"
Spot = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """The model with one group cut: what was asked for and what came of it.

    `kept` of `size` indices stayed, which is as near to `fraction` as the group can come. `macs`
    and `params` are what the cut saves.
    """

    group: str
    fraction: float
    kept: int
    size: int
    judged: Evaluation
    macs: int
    params: int

    @property
    def share(self) -> float:
        """The fraction that was kept in fact."""
        return self.kept / self.size

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads back."""
        about = {"group": self.group, "fraction": self.fraction, "kept": self.kept}
        costs = {"size": self.size, "macs": self.macs, "params": self.params}
        return {**about, **costs, **judged_json(self.judged)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reading:
        """Read what `to_json` returned."""
        return cls(
            str(data["group"]), float(data["fraction"]), int(data["kept"]), int(data["size"]),
            judged_from(data), int(data["macs"]), int(data["params"]),
        )  # fmt: skip


@dataclass(frozen=True)
class Sensitivity:
    """What the accuracy is when one group alone is cut, for each group and fraction.

    `together` lists groups that were cut along with the one that a row names, `skipped` says of
    groups that were not tried why not.
    """

    by: str
    base: Evaluation
    rows: tuple[Reading, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    together: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that were tried, from the input of the model to its output."""
        return tuple(dict.fromkeys(row.group for row in self.rows))

    def of(self, group: str) -> tuple[Reading, ...]:
        """Return the rows of one group, the largest fraction first."""
        found = tuple(row for row in self.rows if row.group == group)
        if not found:
            message = f"'{group}' was not tried; tried were {', '.join(self.groups) or 'none'}"
            raise SelectionError(message)
        return found

    def lost(self, row: Reading) -> float:
        """How much accuracy a cut costs, as a fraction; below zero where it is better."""
        return self.base.accuracy - row.judged.accuracy

    def curves(self) -> dict[str, tuple[Spot, ...]]:
        """Return for each group (kept fraction, accuracy, its standard error), the whole first."""
        whole = (1.0, self.base.accuracy, self.base.standard_error)
        found = {}
        for group in self.groups:
            spots = {row.share: row.judged for row in self.of(group)}
            cut = [(x, e.accuracy, e.standard_error) for x, e in spots.items() if x < 1]
            found[group] = (whole, *sorted(cut, reverse=True))
        return found

    def ranking(
        self, by: Literal["macs", "params", "area"] = "macs"
    ) -> tuple[tuple[str, float], ...]:
        """Return the groups, the one that is cut at the least loss first, each with its number.

        `macs` and `params` divide the accuracy that a group's cuts cost, all together, by what
        they save of the model, in millions; a group that saves nothing is last. `area` is
        the mean loss of accuracy from the whole group down to the least that was tried.
        """
        if by not in ("macs", "params", "area"):
            message = f"a ranking is by 'macs', 'params' or 'area', got {by!r}"
            raise SelectionError(message)
        found = [(g, self._area(g) if by == "area" else self._price(g, by)) for g in self.groups]
        return tuple(sorted(found, key=lambda pair: pair[1]))

    def ratios(self, worst_loss: float = 0.01) -> dict[str, float]:
        """Return for each group the least fraction that costs at most so much accuracy.

        Made for `plan(ratios=...)`. A group in which every cut costs more stays whole. Each group
        was cut alone: all cut together lose more.
        """
        if not math.isfinite(worst_loss) or worst_loss < 0:
            message = f"worst_loss is a loss of accuracy such as 0.01, got {worst_loss!r}"
            raise SelectionError(message)
        least = {}
        for group in self.groups:
            fine = [row.share for row in self.of(group) if self.lost(row) <= worst_loss + 1e-12]
            least[group] = min([*fine, 1.0])
        return least

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads back."""
        return {
            "format": FORMAT,
            "by": self.by,
            "base": judged_json(self.base),
            "rows": [row.to_json() for row in self.rows],
            "skipped": dict(self.skipped),
            "together": {name: list(others) for name, others in self.together.items()},
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sensitivity:
        """Read what `to_json` returned."""
        try:
            if data["format"] != FORMAT:
                raise ValueError(data["format"])
            return cls(
                str(data["by"]),
                judged_from(data["base"]),
                tuple(Reading.from_json(row) for row in data["rows"]),
                dict(data["skipped"]),
                {name: tuple(others) for name, others in data["together"].items()},
                tuple(data["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"this is no sensitivity: {type(error).__name__}: {error}"
            raise TrainError(message) from None

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        with replacing(path) as part:
            part.write_text(json.dumps(self.to_json(), indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Sensitivity:
        """Read what `save` has written."""
        try:
            data = json.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            message = f"'{path}' can't be read as a sensitivity: {error}"
            raise TrainError(message) from None
        return cls.from_json(data)

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def _price(self, group: str, by: Literal["macs", "params"]) -> float:
        saved = sum(getattr(row, by) for row in self.of(group))
        lost = sum(self.lost(row) for row in self.of(group))
        return 1e6 * lost / saved if saved > 0 else math.inf

    def _area(self, group: str) -> float:
        spots = [(x, self.base.accuracy - y) for x, y, _ in self.curves()[group]]
        pairs = pairwise(spots)
        width = spots[0][0] - spots[-1][0]
        area = sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for a, b in pairs)
        return area / width if width > 0 else 0.0


def judged_json(judged: Evaluation) -> dict[str, Any]:
    """Return plain data of what was judged; a loss that is no number is null, as JSON has none."""
    loss = judged.loss if math.isfinite(judged.loss) else None
    return {"correct": judged.correct, "total": judged.total, "loss": loss}


def judged_from(data: Mapping[str, Any]) -> Evaluation:
    """Read what `judged_json` returned."""
    loss = data["loss"]
    found = math.nan if loss is None else float(loss)
    return Evaluation(int(data["correct"]), int(data["total"]), found)


def _lines(found: Sensitivity) -> list[str]:
    fractions = sorted({row.fraction for row in found.rows}, reverse=True)
    wide = max((len(g) for g in found.groups), default=0)
    lines = [
        f"Sensitivity by {found.by}: {len(found.groups)} groups, each cut alone",
        f"  the whole model is right in {found.base}, at a loss of {found.base.loss:.4f}",
    ]
    if found.rows:
        heads = "".join(f"{f'{100 * f:g} %':>9}" for f in fractions)
        lines.append(f"  {'change of accuracy when kept are':<{wide + 8}}{heads}")
    for group in found.groups:
        rows = {row.fraction: row for row in found.of(group)}
        change = {f: f"{100 * (0.0 - found.lost(row)):+.2f}" for f, row in rows.items()}
        cells = [f"{change.get(f, ''):>9}" for f in fractions]
        size = next(iter(rows.values())).size
        lines.append(f"  {group:<{wide}}{size:>8}{''.join(cells)}")
    for name, others in found.together.items():
        lines.append(f"  with {name} are cut {', '.join(others)}")
    lines += [f"  not tried: {name}: {why}" for name, why in found.skipped.items()]
    return lines + [f"  note: {note}" for note in found.notes]
