"""How `tonsor prune` says what it has done: in words, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tonsor.cli.outcome import Outcome
from tonsor.cli.show import show, show_table
from tonsor.cli.timing import Measured
from tonsor.explain import short
from tonsor.plan_parts import fibres_text

if TYPE_CHECKING:
    from tonsor.recover import Recovery


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a cut, and everything that is to be said of it."""

    done: Outcome
    measured: Measured | None
    won: Recovery | None
    notes: Sequence[str]
    files: dict[str, str]

    def show(self) -> None:
        """Print it for people."""
        report = self.done.report
        rows = [
            (name, short(before), short(after), f"{after / (before or 1):.1%}")
            for name, (before, after) in (("parameters", report.params), ("MACs", report.macs))
        ]
        name = type(report.anatomy.model).__name__
        show_table(("", "before", "after", "kept"), rows, title=name, numbers=1)
        for line in self._lines():
            show(line)
        if self.done.timings:
            show_table(("stripes of", "left", "dense ms", "stripes ms", "runs as"), self._layers())
            show(f"({self.done.report.plan.made_by['execution']['conditions']})")
        for note in self.notes:
            show(f"note: {note}", "yellow")
        for path in self.files.values():
            show(f"written: {path}", "green")

    def _lines(self) -> Iterator[object]:
        report = self.done.report
        cut, gone = len(report.plan.keep), [d.name for d in report.plan.drops]
        if gone:
            yield f"{len(gone)} block{'s' * (len(gone) > 1)} went: {', '.join(gone)}"
        elif report.plan.made_by.get("family") == "blocks":
            yield "no block had to go"
        if report.plan.stripes:
            yield fibres_text(report.plan.cut().fibres)
            yield f"those above {report.plan.made_by['threshold']:.4g} stay"
        elif report.plan.made_by.get("family") == "stripes":
            yield "no stripe had to go"
        if cut or report.plan.made_by.get("family") not in ("blocks", "stripes"):
            free = len(report.anatomy.prunable)
            yield f"{cut} of {free} free groups were cut, {len(report.anatomy.pinned)} may not be"
        for number, step in enumerate(self.done.steps, 1):
            alike = "" if step.spearman is None else f", Spearman {step.spearman:.2f} to one-shot"
            yield f"  step {number}: {', '.join(step.gone)} went{alike}"
        if self.measured is not None:
            yield self.measured
        yield from _predicted(report.plan.made_by)
        yield f"proven: {report.proof}" if report.proof else "not proven (--no-verify)"
        if self.won is not None:
            yield self.won

    def _layers(self) -> Iterator[tuple[str, ...]]:
        """Yield a row for each layer of stripes, with how long it takes where that was measured."""
        timed = {t.name: t for t in self.done.timings}
        for weight, stripes in self.done.report.plan.cut().fibres.items():
            name = weight.removesuffix(".weight")
            known = timed.get(name)
            ms = ("", "") if known is None else (known.dense_ms, known.fibres_ms)
            said = [m if isinstance(m, str) else f"{m:.3g}" for m in ms]
            yield name, f"{stripes.left:,} of {stripes.size:,}", *said, stripes.run

    def to_json(self, budget: str | None) -> dict[str, Any]:
        """Return all of it as plain data."""
        report = self.done.report
        proof, made, test = report.proof, report.plan.made_by, self.done.test
        return {
            "model": type(report.anatomy.model).__name__,
            "budget": budget,
            "params": dict(zip(("before", "after"), report.params, strict=True)),
            "macs": dict(zip(("before", "after"), report.macs, strict=True)),
            "kept": report.plan.counts,
            "stripes": {
                n: {"left": s.left, "of": s.size, "run": s.run}
                for n, s in report.plan.cut().fibres.items()
            },
            "threshold": made.get("threshold"),
            "execution": made.get("execution"),
            "test": None if test is None else asdict(test) | {"accuracy": test.accuracy},
            "gone": [d.name for d in report.plan.drops],
            "steps": [{"gone": list(s.gone), "spearman": s.spearman} for s in self.done.steps],
            "latency": None if self.measured is None else self.measured.to_json(),
            "predicted_ms": made.get("predicted"),
            "proof": None
            if proof is None
            else {"error": proof.error, "tolerance": proof.tolerance},
            "recovery": None if self.won is None else self.won.to_json(),
            "notes": list(self.notes),
            "files": self.files,
        }


def _predicted(made: Any) -> Iterator[str]:
    if "predicted" in made:
        yield (
            f"predicted from the timings of blocks: {made['predicted']:.3g} ms, where they tell "
            f"the whole to within {made['table_error']:+.1%}"
        )
