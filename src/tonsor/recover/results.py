"""What recovery has done, and what each step of it has won."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tonsor.recover.distance import Distance, judged_json
from tonsor.train.evaluate import Evaluation

_HEAD = ("", "error", "divergence", "agreement", "accuracy")


@dataclass(frozen=True, slots=True)
class Recovered:
    """Which tensors make up for what weights no longer read, and why other weights are left.

    `changed` maps a tensor to the weight that it helps, `left` a weight to the reason.
    """

    changed: Mapping[str, str]
    left: Mapping[str, str]
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"changed": dict(self.changed), "left": dict(self.left), "samples": self.samples}

    @property
    def notes(self) -> Iterator[str]:
        """What was left alone, by reason."""
        reasons: dict[str, list[str]] = {}
        for name, why in self.left.items():
            reasons.setdefault(why, []).append(name)
        for why, names in reasons.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield f"not compensated: '{names[0]}'{more}, for {why}"

    def __str__(self) -> str:
        if not self.changed and not self.left:
            return "nothing to compensate: no weight reads what was removed"
        lines = [f"compensated {len(self.changed)} weights by means over {self.samples} samples"]
        return "\n".join([*lines, *(f"  note: {n}" for n in self.notes)])


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """How many BatchNorms took new statistics, of how many batches, and what that won.

    `moved` says how far means went, in standard deviations. `before` and `after` compare with the
    original, where it was given, on data of their own if `held_out`.
    """

    norms: int
    batches: int
    moved: float
    before: Distance | None = None
    after: Distance | None = None
    held_out: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "norms": self.norms, "batches": self.batches, "moved": self.moved,
            "before": self.before.to_json() if self.before else None,
            "after": self.after.to_json() if self.after else None, "held_out": self.held_out,
        }  # fmt: skip

    def __str__(self) -> str:
        if not self.norms:
            return "no BatchNorm has running statistics, so there was nothing to take anew"
        text = (
            f"statistics of {self.norms} BatchNorms over {self.batches} batches: the means moved "
            f"by {self.moved:.3g} standard deviations"
        )
        if self.before is None or self.after is None:
            return text
        return f"{text}, the error went from {self.before.error:.4g} to {self.after.error:.4g}"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was done to a slim model, with its distance from the original after every step.

    `stages` begins with `cut`, the model as it came. `held_out` says whether it was judged on
    other batches than were measured on. `original` is the original's accuracy, if there are labels.
    """

    stages: Mapping[str, Distance]
    original: Evaluation | None
    compensated: Recovered | None
    recalibrated: Recalibrated | None
    held_out: bool

    @property
    def notes(self) -> Iterator[str]:
        """What a careful user should know about this result."""
        if not self.held_out:
            yield (
                "judged on the very batches that were measured on, which flatters; give others as "
                "held_out=..."
            )
        for (_, before), (name, after) in pairwise(self.stages.items()):
            if not after.error <= before.error:
                yield f"'{name}' made the error larger: {before.error:.4g} → {after.error:.4g}"
        if self.compensated is not None:
            yield from self.compensated.notes
        if self.recalibrated is not None and not self.recalibrated.norms:
            yield str(self.recalibrated)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "stages": {n: d.to_json() for n, d in self.stages.items()},
            "original": judged_json(self.original),
            "compensated": self.compensated.to_json() if self.compensated else None,
            "recalibrated": self.recalibrated.to_json() if self.recalibrated else None,
            "held_out": self.held_out,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [_HEAD]
        if self.original is not None:
            rows.append(("original", "0", "0", "100.0 %", str(self.original)))
        for i, (name, distance) in enumerate(self.stages.items()):
            rows.append((f"+ {name}" if i else name, *_cells(distance)))
        used = [i for i in range(len(_HEAD)) if i == 0 or any(row[i] for row in rows[1:])]
        widths = {i: max(len(row[i]) for row in rows) for i in used}
        samples = next(iter(self.stages.values())).samples
        lines = [f"Recovery, judged on {samples} samples"]
        for row in rows:
            cells = [
                f"{row[i]:<{widths[i]}}" if i in (0, 4) else f"{row[i]:>{widths[i]}}" for i in used
            ]
            lines.append(f"  {'  '.join(cells)}".rstrip())
        return "\n".join([*lines, *(f"  note: {n}" for n in self.notes)])


def _cells(distance: Distance) -> tuple[str, str, str, str]:
    divergence, agreement = distance.divergence, distance.agreement
    return (
        f"{distance.error:.4g}",
        "" if divergence is None else f"{divergence:.4g}",
        "" if agreement is None else f"{agreement:.1%}".replace("%", " %"),
        "" if distance.evaluation is None else str(distance.evaluation),
    )
