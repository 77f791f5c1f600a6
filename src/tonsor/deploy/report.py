"""What `tonsor.deploy` has found: the way of each layer, and how long the whole model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_WIDTH = 100
_NARROWEST = 12


@dataclass(frozen=True, slots=True)
class Row:
    """One convolution: what it is, what was fused into it, and milliseconds by way.

    `kept` is the share of its weight that it holds. `left_out` says why ways were not timed that
    there are for it. `chosen` is empty where these inputs never led to it.
    """

    name: str
    kind: str
    kept: float
    fused: str
    output: tuple[int, ...] = ()
    ms: Mapping[str, float] = field(default_factory=dict)
    chosen: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What has to stand beside every number."""

    device: str
    dtype: str
    threads: int
    torch: str
    batch: int
    rounds: int

    def __str__(self) -> str:
        threads = f"{self.threads} thread" + ("s" if self.threads != 1 else "")
        return (
            f"{self.device}, {self.dtype}, batch {self.batch}, {threads}, torch {self.torch}, "
            f"medians of {self.rounds} rounds in turns"
        )


@dataclass(frozen=True, slots=True)
class DeployReport:
    """Rows of layers, milliseconds of the whole model, and what was not to be had.

    `returned` says which of the models in `whole` was given back, `interval` how the time of the
    deployed one over the better of the others is known, with 95 %.
    """

    rows: tuple[Row, ...]
    whole: Mapping[str, float]
    ratio: float
    interval: tuple[float, float]
    returned: str
    any_batch: bool
    conditions: Conditions
    notes: tuple[str, ...] = ()

    @property
    def speedup(self) -> float:
        """How many times as fast as the model that was given what came back is."""
        return self.whole["as given"] / self.whole[self.returned]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        data = asdict(self)
        data["rows"] = [
            data_of | {"output": list(data_of["output"])} for data_of in data.pop("rows")
        ]
        return data | {
            "interval": list(self.interval), "notes": list(self.notes), "speedup": self.speedup,
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [*_table(self.rows), ""] if self.rows else []
        whole = ", ".join(f"{name} {_ms(ms)}" for name, ms in self.whole.items())
        low, high = self.interval
        lines.append(f"whole model, ms: {whole}")
        if "deployed" in self.whole:
            lines.append(
                f"deployed takes {self.ratio:.1%} of the better other ({low:.1%} to {high:.1%})"
            )
        batch = "any batch" if self.any_batch else "this batch only"
        lines.append(f"returned: {self.returned}, {self.speedup:.2f}x as fast as given; {batch}")
        lines += [*_wrapped(str(self.conditions))]
        for note in (*self.notes, *_left_out(self.rows)):
            lines += _wrapped(f"note: {note}")
        return "\n".join(lines)


def _table(rows: tuple[Row, ...]) -> list[str]:
    rows_ms = [_by_family(row.ms) for row in rows]
    ways = list(dict.fromkeys(way for ms in rows_ms for way in ms))
    head = ["layer", "kind", "kept", "output", "fused", *ways, "runs as"]
    cells = [
        [
            row.name, row.kind, f"{row.kept:.0%}", "x".join(map(str, row.output[2:])),
            row.fused, *(_ms(ms[way]) if way in ms else "" for way in ways),
            row.chosen or "not reached",
        ]
        for row, ms in zip(rows, rows_ms, strict=True)
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    over = sum(widths) + len(widths) - 1 - _WIDTH
    for i in (0, 1):  # names first, which differ at their end
        less = min(max(over, 0), max(0, widths[i] - _NARROWEST))
        widths[i], over = widths[i] - less, over - less
    cells = [[_short(c[0], widths[0]), _short(c[1], widths[1]), *c[2:]] for c in cells]
    right = (2, *range(5, 5 + len(ways)))
    return [
        " ".join(
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, *cells)
    ]


def _by_family(ms: Mapping[str, float]) -> dict[str, float]:
    """Take of the forms of a kernel the fastest, so that the table is not too wide."""
    found: dict[str, float] = {}
    for way, value in ms.items():
        family = way.partition("/")[0]
        found[family] = min(value, found.get(family, value))
    return found


def _left_out(rows: tuple[Row, ...]) -> list[str]:
    """Say what was left out, and where first, once for each reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for way, why in row.left_out.items():
            found.setdefault((way, why), []).append(row.name)
    return [
        f"'{way}' was left out in {names[0]}"
        + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        + f": {why}"
        for (way, why), names in found.items()
    ]


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f}" if milliseconds >= 1 else f"{milliseconds:.3f}"


def _short(text: str, width: int) -> str:
    """Leave out the front of what is too long."""
    return text if len(text) <= width else "~" + text[1 - width :]


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _WIDTH:
            lines.append(" ")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines
