"""How many iterations does SPP's rule take, next to the two tables of the paper?

    python bench/spp_schedule.py
    python bench/spp_schedule.py --seeds 3 --out /tmp/spp_schedule.json

For each setting of tables 2 and 3 of the supplement: thousands of iterations as printed, and the
mean, standard deviation, least and most over the seeds, of a layer of 800 columns of which 75% are
to go. Scores are uniform from 0 to 1 plus normal noise of 0.6, drawn anew at each update; nothing
is trained. The lines below are the same with one thing changed: no noise, an increment that aims
at what is still to go (`adaptive`; with noise it does not end before the guard of 2,000 updates),
a straight line, other ratios and sizes.

`draw_ms` and `update_ms` are CPU milliseconds, medians of 200, of a draw and an update of 20 layers
of 800 columns each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tonsor.methods.spp.chances import Chances
from tonsor.methods.spp.increment import Increment
from tonsor.methods.spp.table import simulate, tables

OUT = Path(__file__).parent / "results/spp_schedule.json"
OTHERS: dict[str, dict[str, Any]] = {
    "no noise": {"noise": 0.0},
    "adaptive, no noise": {"alpha": "adaptive", "noise": 0.0},
    "adaptive": {"alpha": "adaptive"},
    "straight line": {"increment": Increment(shape="linear")},
    "no recovery": {"increment": Increment(recovery=False)},
    "ratio 0.5": {"ratio": 0.5},
    "ratio 0.875": {"ratio": 0.875},
    "75 columns": {"size": 75},
}


def summary(thousands: list[float]) -> dict[str, float]:
    """Mean and spread over the seeds."""
    return {
        "mean": statistics.fmean(thousands),
        "spread": statistics.stdev(thousands) if len(thousands) > 1 else 0.0,
        "least": min(thousands), "most": max(thousands),
    }  # fmt: skip


def milliseconds(act: Callable[[], object], count: int = 200) -> float:
    """CPU time of an act, the median."""
    seconds = []
    for _ in range(count):
        begun = time.process_time()
        act()
        seconds.append(time.process_time() - begun)
    return 1000 * statistics.median(seconds)


def costs() -> dict[str, float]:
    """Time a draw and an update of 20 layers of 800 columns."""
    there = {str(i): torch.ones(800, dtype=torch.bool) for i in range(20)}
    chances = Chances(
        dict.fromkeys(there, 0.75), there, increment=Increment(most=1e-4), guard=10_000
    )
    scores = [torch.rand(800) for _ in there]
    return {
        "draw_ms": milliseconds(chances.draw),
        "update_ms": milliseconds(lambda: chances.update(scores)),
    }


def main() -> None:
    """Print the tables, and save them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = tables(seeds=range(given.seeds))
    print(found)
    rows: list[dict[str, Any]] = [
        {
            "setting": row.printed.name, "value": row.printed.value,
            "printed": row.printed.thousands, **summary(list(row.simulated)),
        }
        for row in found.rows
    ]  # fmt: skip
    others: list[dict[str, Any]] = []
    for name, options in OTHERS.items():
        seeds = range(3 if name == "adaptive" else given.seeds)
        taken = summary([simulate(seed=seed, **options) / 1000 for seed in seeds])
        others.append({"setting": name, "seeds": len(seeds), **taken})
        print(f"{name:<20}{taken['mean']:>8.2f}{taken['spread']:>7.2f}", flush=True)
    took = costs()
    print(f"a draw {took['draw_ms']:.3f} CPU ms, an update {took['update_ms']:.3f}")
    about = {"torch": torch.__version__, "threads": 1, "seeds": given.seeds, "unit": "thousands",
             "rows": rows, "others": others, **took}  # fmt: skip
    given.out.write_text(json.dumps(about, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
