"""How much SPP depends on its settings: the interval, the largest increment, and the centre.

The supplement's tables 2 and 3, with intervals that are as much shorter as the training is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tonsor.methods.spp.table import INTERVAL, TABLE2, TABLE3
from tonsor.study.base import Base
from tonsor.study.spp import by_chance_trial
from tonsor.study.trials import Trial

SHORTER: Mapping[str, int] = MappingProxyType({"interval": 30, "most": 90, "centre": 90})
"""How many times shorter intervals are than the paper's 180, by what is varied."""


@dataclass(frozen=True, kw_only=True)
class SettingsStudy:
    """One thing is varied at a time, at one speed-up."""

    base: Base
    speedup: float = 4
    seeds: tuple[int, ...] = (0,)

    def trials(self) -> list[Trial]:
        """All trials, those of one seed together."""
        rows = (*TABLE2, *TABLE3)
        return [self._trial(row.name, row.value, seed) for seed in self.seeds for row in rows]

    def _trial(self, name: str, value: float, seed: int) -> Trial:
        return Trial(
            f"{name}_{value:g}_{seed}",
            {
                "network": self.base.network, "varied": name, "value": value, "seed": seed,
                "speedup": self.speedup, "images": self.base.images,
                "epochs": self.base.recipe.epochs, "lr": self.base.recipe.lr,
                "shorter": SHORTER[name],
            },
        )  # fmt: skip


def settings_trial(study: SettingsStudy, trial: Trial, folder: Path) -> dict[str, Any]:
    """Prune one network with one setting changed, and judge it."""
    name, value, shorter = (trial.settings[k] for k in ("varied", "value", "shorter"))
    options: dict[str, Any] = {"interval": round(INTERVAL / shorter)}
    options[name] = round(value / shorter) if name == "interval" else value
    return by_chance_trial(study.base, trial, folder, options)
