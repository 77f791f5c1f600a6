"""How much SPP depends on its settings: the interval, the largest increment, and the centre.

The supplement's tables 2 and 3, with intervals that are as much shorter as the training is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tonsor.methods.spp.table import INTERVAL, TABLE2, TABLE3, Printed
from tonsor.study.base import Base
from tonsor.study.markdown import table
from tonsor.study.paired import Figure, accuracy, unpacked
from tonsor.study.spp import by_chance_trial
from tonsor.study.trials import Trial

SHORTER: Mapping[str, int] = MappingProxyType({"interval": 30, "most": 90, "centre": 90})
"""How many times shorter intervals are than the paper's, by what is varied."""
HEADER = ("setting", "paper, k", "ours, k", "updates", "paper, accuracy", "ours, accuracy")
_LETTERS = {"interval": "t", "most": "A", "centre": "u"}

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class SettingsStudy:
    """One thing is varied at a time, at one speed-up."""

    base: Base
    speedup: float = 4
    seeds: tuple[int, ...] = (0,)

    def trials(self) -> list[Trial]:
        """All trials, those of one seed together."""
        return [self.trial(row, seed) for seed in self.seeds for row in (*TABLE2, *TABLE3)]

    def trial(self, row: Printed, seed: int) -> Trial:
        """The trial of one column of a table."""
        return Trial(
            f"{row.name}_{row.value:g}_{seed}",
            {
                "network": self.base.network, "varied": row.name, "value": row.value, "seed": seed,
                "speedup": self.speedup, "images": self.base.images,
                "epochs": self.base.recipe.epochs, "lr": self.base.recipe.lr,
                "shorter": SHORTER[row.name],
            },
        )  # fmt: skip


def settings_trial(study: SettingsStudy, trial: Trial, folder: Path) -> dict[str, Any]:
    """Prune one network with one setting changed, and judge it."""
    name, value, shorter = (trial.settings[k] for k in ("varied", "value", "shorter"))
    options: dict[str, Any] = {"interval": round(INTERVAL / shorter)}
    options[name] = round(value / shorter) if name == "interval" else value
    return by_chance_trial(study.base, trial, folder, options)


def settings_page(study: SettingsStudy, found: Results, whole: Figure) -> str:
    """Tell all that was found, next to the tables of the paper."""
    lines = [
        f"## {study.base.network}, {whole.percent} % before anything is cut, at "
        f"{study.speedup:g}x", "", *table(HEADER, list(_rows(study, found))), "",
    ]  # fmt: skip
    shorter = sorted(set(SHORTER.values()))
    lines += [
        "- t is the interval between two updates, A the largest increment of a probability, u the "
        "height of the point of symmetry. Iterations are those until nothing more went, in "
        "thousands.",
        f"- Ours are {shorter[0]} times as many as they were where t is varied, and {shorter[-1]} "
        "times elsewhere, for intervals were that much shorter than the paper's.",
        "- Table 3 of the paper gives iterations in units of ten thousand, without saying so.",
        *(f"- {c}" for c in study.base.conditions(len(study.seeds))),
    ]
    return "\n".join(lines)


def _rows(study: SettingsStudy, found: Results) -> Iterator[tuple[str, ...]]:
    for row in (*TABLE2, *TABLE3):
        tried = [study.trial(row, seed) for seed in study.seeds]
        mine = [(t, found[t.key]) for t in tried if t.key in found]
        if not mine:
            continue
        updates = [max(r["updates"].values()) for _, r in mine]
        took = [
            u * r["interval"] * t.settings["shorter"] / 1000
            for u, (t, r) in zip(updates, mine, strict=True)
        ]
        early = any(note.startswith("training ended") for _, r in mine for note in r["notes"])
        images = len(study.base.splits(0).test)
        right = accuracy([unpacked(r["answers"]["tuned"], images) for _, r in mine])
        yield (
            f"{_LETTERS[row.name]} = {row.value:g}", f"{row.thousands:g}",
            f"{'> ' if early else ''}{sum(took) / len(took):.1f}",
            f"{sum(updates) / len(updates):.0f}", f"{row.accuracy:.1f}", right.percent,
        )  # fmt: skip
