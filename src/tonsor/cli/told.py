"""How `tonsor prune` says what it has done: in words, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tonsor.cli.family import FIBRES
from tonsor.cli.outcome import Outcome
from tonsor.cli.show import show, show_table
from tonsor.cli.timing import Measured
from tonsor.explain import short
from tonsor.plan_parts import fibres_text
from tonsor.plans import Plan

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
            columns = ("convolution", "left", "dense ms", "by these, ms", "runs as")
            show_table(columns, self._layers())
            show(f"({self.done.report.plan.made_by['execution']['conditions']})")
        if "lost" in report.plan.made_by:
            show_table(
                ("by chance", "went", "of", "changes"), _pools(report.plan.made_by), numbers=1
            )
        if "sites" in report.plan.made_by:
            show_table(
                ("learned", "criterion", "its odds", "left", "of"), _sites(report.plan.made_by),
                numbers=2,
            )  # fmt: skip
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
        family = report.plan.made_by.get("family")
        if report.plan.fibres:
            yield fibres_text(report.plan.cut().fibres)
            if "threshold" in report.plan.made_by:
                yield f"those above {report.plan.made_by['threshold']:.4g} stay"
        elif family in FIBRES:
            yield f"no {family.removesuffix('s')} had to go"
        if cut or family not in ("blocks", *FIBRES):
            free = len(report.anatomy.prunable)
            yield f"{cut} of {free} free groups were cut, {len(report.anatomy.pinned)} may not be"
        for number, step in enumerate(self.done.steps, 1):
            alike = "" if step.spearman is None else f", Spearman {step.spearman:.2f} to one-shot"
            yield f"  step {number}: {', '.join(step.gone)} went{alike}"
        yield from _learned(report.plan.made_by)
        if self.measured is not None:
            yield self.measured
        yield from _predicted(report.plan.made_by)
        yield f"proven: {report.proof}" if report.proof else "not proven (--no-verify)"
        if self.won is not None:
            yield self.won

    def _layers(self) -> Iterator[tuple[str, ...]]:
        """Yield a row for each layer of fibres, with how long it takes where that was measured."""
        timed = {t.name: t for t in self.done.timings}
        for weight, fibres in self.done.report.plan.cut().fibres.items():
            name = weight.removesuffix(".weight")
            known = timed.get(name)
            ms = ("", "") if known is None else (known.dense_ms, known.fibres_ms)
            said = [m if isinstance(m, str) else f"{m:.3g}" for m in ms]
            left = f"{fibres.left:,} of {fibres.size:,} {fibres.kind}"
            yield name, left, *said, fibres.run

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
            **{kind: _left(report.plan, kind) for kind in FIBRES},
            "lost": made.get("lost"),
            "updates": made.get("updates"),
            "sites": made.get("sites"),
            "chosen": _chosen(made),
            "reached": made.get("reached"),
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


def _left(plan: Plan, kind: str) -> dict[str, Any]:
    """Return what stays of the fibres of a kind, by the name of the weight."""
    return {
        name: {"left": f.left, "of": f.size, "run": f.run}
        for name, f in plan.cut().fibres.items() if f.kind == kind
    }  # fmt: skip


def _pools(made: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each pool of pieces that went by chance."""
    for name, (lost, size) in made["lost"].items():
        yield name, f"{lost:,}", f"{size:,}", str(made["updates"][name])


def _chosen(made: Mapping[str, Any]) -> dict[str, int] | None:
    """Count how often each criterion was chosen, if any were."""
    if "sites" not in made:
        return None
    took = [site["criterion"] for site in made["sites"].values()]
    return {by: took.count(by) for by in made["criteria"]}


def _learned(made: Mapping[str, Any]) -> Iterator[str]:
    """Say which criteria were chosen how often, and what it came to."""
    if (chosen := _chosen(made)) is not None:
        how = made["choice"] if isinstance(made["choice"], str) else "given"
        times = ", ".join(f"{by} {count} times" for by, count in chosen.items())
        yield f"criteria, {how}: {times}"
        yield (
            f"{made['budget']}: {made['reached']:,.6g} of {made['whole']:,.6g}; what was likeliest "
            f"came to {made['learned']:,.6g}"
        )


def _sites(made: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each place where a criterion was chosen."""
    for name, site in made["sites"].items():
        odds = site["criteria"][made["criteria"].index(site["criterion"])]
        yield name, site["criterion"], f"{odds:.0%}", f"{site['left']:,}", f"{site['of']:,}"


def _predicted(made: Any) -> Iterator[str]:
    if "predicted" in made:
        yield (
            f"predicted from the timings of blocks: {made['predicted']:.3g} ms, where they tell "
            f"the whole to within {made['table_error']:+.1%}"
        )
