"""The tables of the LayerPrune study, as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tonsor.criteria.blocks.scores import BlockScores
from tonsor.study.layerprune import LayerPruneStudy
from tonsor.study.layerprune_run import Findings
from tonsor.study.markdown import table
from tonsor.study.paired import Answers, accuracy, difference, unpacked

Result = Mapping[str, Any]


class Told:
    """What the tables of a study have in common: results by what they are of."""

    def __init__(self, study: LayerPruneStudy, findings: Findings) -> None:
        self.study = study
        self.findings = findings
        self.count = len(study.base.splits(0).test)
        self.results = {**findings.cut, **findings.matched}
        self.latencies = {
            (r["settings"]["n"], name): ratio
            for r in findings.latency.values() for name, ratio in r["ratios"].items()
        }  # fmt: skip

    def of(self, kind: str, by: str, n: int) -> list[Result]:
        """The results of a kind, one a seed."""
        return [
            r for r in self.results.values()
            if (r["settings"]["kind"], r["settings"]["by"], r["settings"]["n"]) == (kind, by, n)
        ]  # fmt: skip

    def right(self, results: Iterable[Result], stage: str) -> list[Answers]:
        """Which images are right, one array a seed."""
        ordered = sorted(results, key=lambda r: r["settings"]["seed"])
        return [unpacked(r["answers"][stage], self.count) for r in ordered]

    def shown(self, results: Sequence[Result], stage: str) -> str:
        """The accuracy at a stage, or nothing where there is none."""
        if not results or stage not in results[0]["answers"]:
            return ""
        return accuracy(self.right(results, stage)).percent

    def latency(self, key: str, batch: int) -> str:
        """The share of the whole model's latency, with the interval it is known to."""
        found = self.latencies.get((batch, key))
        if found is None:
            return ""
        middle, low, high = found
        return f"{100 * middle:.0f} % ({100 * low:.0f} to {100 * high:.0f})"

    def network(self, n: int) -> str:
        """The latencies of a model without so many blocks, at each batch."""
        key = f"blocks_{self.study.main}_{n}_{self.study.seeds[0]}"
        return " / ".join(self.latency(key, b) for b in self.study.batches)


def page(study: LayerPruneStudy, findings: Findings) -> str:
    """Write all tables with their conditions."""
    told = Told(study, findings)
    whole = accuracy([unpacked(study.base.judge(study.base.model()), told.count)])
    lines = [f"## {study.base.network}, {whole.percent} % before anything is removed", ""]
    for title, header, rows in _tables(told):
        found = list(rows)
        if found:
            lines += [f"### {title}", "", *table(header, found), ""]
    lines += [f"- {c}" for c in study.base.conditions(len(study.seeds))]
    lines += [f"- Latency as a share of the whole network's: {r['conditions']}; in brackets what "
              "holds the true median with 95 %." for r in findings.latency.values()]  # fmt: skip
    lines += [f"- No cut of filters is as fast as {key}: {why}"
              for key, why in findings.unreached.items()]  # fmt: skip
    return "\n".join(lines)


def _tables(told: Told) -> Iterator[tuple[str, Sequence[str], Iterable[Sequence[str]]]]:
    study = told.study
    batches = " / ".join(map(str, study.batches))
    yield (
        "The order in which blocks go",
        ("criterion", "blocks, the least important first"), _orders(told),
    )  # fmt: skip
    yield (
        f"Blocks removed by {study.main}",
        ("blocks", "which", "MACs kept", f"latency, batch {batches}", "after the cut",
         "statistics anew", "fine-tuned"), _blocks(told),
    )  # fmt: skip
    yield (
        f"Against filters ({study.matched_by}) cut to the same measured latency",
        ("blocks", "at batch", "latency", "without blocks", "without filters",
         "blocks - filters", "MACs kept, blocks", "MACs kept, filters"), _matched(told),
    )  # fmt: skip
    yield (
        "Filters removed by the criteria of the paper",
        ("criterion", "filters", "MACs kept", f"latency, batch {batches}", "after the cut",
         "statistics anew", "fine-tuned"), _filters(told),
    )  # fmt: skip
    yield (
        "Blocks removed by every criterion, not fine-tuned (statistics anew)",
        ("criterion", *(f"{n} blocks" for n in (1, *study.others))), _untuned(told),
    )  # fmt: skip
    yield (
        "Blocks removed by other criteria, fine-tuned",
        ("criterion", *(f"{n} blocks" for n in study.others)), _others(told),
    )  # fmt: skip
    yield (
        "All at once, or one by one with training in between",
        ("blocks", "one-shot", "iterative", "iterative - one-shot", "Spearman"), _iterative(told),
    )  # fmt: skip
    yield (
        "Trained on, or trained from scratch for as long",
        ("blocks", "fine-tuned", "from scratch"), _scratch(told),
    )  # fmt: skip
    yield (
        "Beside networks made small by hand",
        ("network", "MACs kept", f"latency, batch {batches}", "accuracy"), _smaller(told),
    )  # fmt: skip


def _orders(told: Told) -> Iterator[Sequence[str]]:
    for result in told.findings.scores.values():
        scores = BlockScores.from_json(result["scores"])
        may = told.findings.removable
        place = {name: i for i, name in enumerate(told.findings.blocks, start=1)}
        ranked = [str(place[n]) for n in scores.ranking() if n in may]
        if result["settings"]["seed"] == told.study.seeds[0]:
            yield result["settings"]["by"], " ".join(ranked)


def _kept(results: Sequence[Result]) -> str:
    before, after = results[0]["macs"]
    return f"{100 * after / before:.1f} %"


def _blocks(told: Told) -> Iterator[Sequence[str]]:
    for n in (*range(1, told.study.most + 1), *told.study.deep):
        results = told.of("blocks", told.study.main, n)
        if results:
            stages = [told.shown(results, s) for s in ("cut", "recalibrated", "tuned")]
            which = " ".join(results[0]["gone"])
            yield str(n), which, _kept(results), told.network(n), *stages


def _matched(told: Told) -> Iterator[Sequence[str]]:
    study = told.study
    for batch in study.batches:
        for n in range(2, study.most + 1, 2):
            mine = told.of("blocks", study.main, n)
            its = told.of(f"matched{batch}", study.matched_by, n)
            if not mine:
                continue
            share = told.latency(f"blocks_{study.main}_{n}_{study.seeds[0]}", batch)
            if not its:
                yield (
                    str(n),
                    str(batch),
                    share,
                    told.shown(mine, "tuned"),
                    "not reached",
                    "",
                    "",
                    "",
                )
                continue
            gain = difference(told.right(mine, "tuned"), told.right(its, "tuned"))
            yield (
                str(n), str(batch), share, told.shown(mine, "tuned"), told.shown(its, "tuned"),
                gain.signed, _kept(mine), _kept(its),
            )  # fmt: skip


def _filters(told: Told) -> Iterator[Sequence[str]]:
    study = told.study
    for by in study.filters_by:
        for n in study.filters:
            results = told.of("filters", by, n)
            if not results:
                continue
            key = results[0]["key"]
            shares = " / ".join(told.latency(key, b) for b in study.batches)
            stages = [told.shown(results, s) for s in ("cut", "recalibrated", "tuned")]
            yield by, str(n), _kept(results), shares, *stages


def _untuned(told: Told) -> Iterator[Sequence[str]]:
    for by in told.study.by:
        cells = []
        for n in (1, *told.study.others):
            results = told.of("blocks" if by == told.study.main else "untuned", by, n)
            cells.append(told.shown(results, "recalibrated"))
        if any(cells):
            yield by, *cells


def _others(told: Told) -> Iterator[Sequence[str]]:
    for by in (told.study.main, *told.study.tuned_others):
        cells = [told.shown(told.of("blocks", by, n), "tuned") for n in told.study.others]
        if any(cells):
            yield by, *cells


def _iterative(told: Told) -> Iterator[Sequence[str]]:
    for result in told.of("iterative", told.study.main, told.study.scratch)[:1]:
        for n, step in enumerate(result["steps"], start=1):
            once = told.right(told.of("blocks", told.study.main, n)[:1], "tuned")
            mine = [unpacked(step["answers"], told.count)]
            rho = "" if step["spearman"] is None else f"{step['spearman']:.2f}"
            if once:
                yield (
                    str(n), accuracy(once).percent, accuracy(mine).percent,
                    difference(mine, once).signed, rho,
                )  # fmt: skip


def _scratch(told: Told) -> Iterator[Sequence[str]]:
    for n in range(1, told.study.scratch + 1):
        results = told.of("scratch", told.study.main, n)
        if results:
            tuned = told.shown(told.of("blocks", told.study.main, n), "tuned")
            yield str(n), tuned, told.shown(results, "tuned")


def _smaller(told: Told) -> Iterator[Sequence[str]]:
    study = told.study
    for name, found in told.findings.smaller.items():
        shares = " / ".join(told.latency(f"smaller_{name}", b) for b in study.batches)
        right = accuracy([unpacked(found["answers"], told.count)])
        yield name, f"{100 * found['macs'] / found['whole']:.1f} %", shares, right.percent
    if told.findings.smaller:
        for n in (6, *study.deep):
            results = told.of("blocks", study.main, n)
            if results:
                yield (
                    f"{study.base.network} without {n} blocks", _kept(results), told.network(n),
                    told.shown(results, "tuned"),
                )  # fmt: skip
