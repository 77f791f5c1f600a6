"""The demo: train, cut, prove, fine-tune and measure a small network in about a minute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from tonsor.demo.page import page
from tonsor.demo.story import WHOLE, Outcome, Settings, table, tell
from tonsor.files import replacing
from tonsor.report.page import write

__all__ = ["Settings", "run"]


def run(folder: Path, out: Console, settings: Settings | None = None) -> Outcome:
    """Tell the whole story, and leave the page, the numbers and the networks in a folder."""
    outcome = tell(folder, out, settings or Settings())
    out.print(table(outcome))
    for line in outcome.conditions:
        out.print(line, style="dim")
    write(folder / "report.html", page(outcome))
    with replacing(folder / "results.json") as part:
        part.write_text(json.dumps(_numbers(outcome), indent=1) + "\n", "utf-8")
    out.print()
    out.print(f"{outcome.seconds:.0f} s. Open {folder / 'report.html'} in a browser.")
    return outcome


def _numbers(outcome: Outcome) -> dict[str, Any]:
    def judged(which: Any) -> dict[str, Any]:
        return {"correct": which.correct, "total": which.total}

    whole = outcome.rows[0].report
    return {
        "conditions": list(outcome.conditions),
        WHOLE: {
            "macs": whole.macs[0],
            "params": whole.params[0],
            "test": judged(outcome.whole),
            "ms": outcome.latency[WHOLE].median_ms,
        },
        "pruned": {
            row.name: {
                "by": row.by,
                "macs": row.report.macs[1],
                "params": row.report.params[1],
                "test_after_cut": judged(row.raw),
                "test_after_tuning": judged(row.tuned),
                "ms": outcome.latency[row.name].median_ms,
                "proof": row.report.proof.error if row.report.proof is not None else None,
            }
            for row in outcome.rows
        },
    }
