"""How far tonsor gets with every model case: a table, and the reason for whatever it can't cut.

    python bench/coverage.py                      all cases, about ten minutes
    python bench/coverage.py --family wiring      one family
    python bench/coverage.py --match 'hf_*' --json coverage.json
    python bench/coverage.py --zoo                torchvision and timm instead, where they are

Each case is cut to half of its multiply-accumulates, or as far as it goes, and then checked as in
tests/models/test_matrix.py. The last line sums up; the exit status is 1 if anything is wrong.
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.models import ALL
from tests.models.checks import Outcome, check
from tests.zoo.cases import zoo
from tests.zoo.conftest import import_torchvision

HEADER = (
    f"{'model':<26} {'family':<18} {'ops':>4} {'free':>4} {'held':>4} {'MACs':>5} {'params':>6} "
    f"{'proof':>7}  {'trains':<6} {'loads':<5} {'exports':<7} {'s':>5}"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the chosen cases and print what came of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--family", help="only the cases of this family")
    parser.add_argument("--match", default="*", help="only the cases whose names fit this pattern")
    parser.add_argument("--json", type=Path, help="write everything to this file as well")
    parser.add_argument("--zoo", action="store_true", help="the models of torchvision and timm")
    given = parser.parse_args(arguments)
    if given.zoo:
        import_torchvision()
    every = zoo() if given.zoo else ALL
    cases = [
        c for c in every if fnmatchcase(c.name, given.match) and given.family in (None, c.family)
    ]
    if not cases:
        families = ", ".join(sorted({c.family for c in every}))
        parser.error(f"no case fits; families are: {families}")

    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)  # torch logs what it can't export, transformers what is slow
    torch.set_num_threads(1)
    print(HEADER)
    outcomes = []
    for case in cases:
        outcome = check(case, export=True)
        outcomes.append(outcome)
        print(row(outcome), flush=True)
    print(summary(outcomes))
    if given.json:
        text = json.dumps({"torch": torch.__version__, "cases": [asdict(o) for o in outcomes]})
        given.json.write_text(text + "\n", "utf-8")
    return int(any(o.problems for o in outcomes))


def row(outcome: Outcome) -> str:
    """One line of the table, with the reasons below it where something is not as hoped."""
    proof = "-" if outcome.proof is None else f"{outcome.proof:.0e}"
    line = (
        f"{outcome.name:<26} {outcome.family:<18} {outcome.operators:>4} {outcome.free:>4} "
        f"{outcome.pinned:>4} {outcome.macs:>5.0%} {outcome.params:>6.0%} {proof:>7}  "
        f"{brief(outcome.trains):<6} {brief(outcome.round_trip):<5} {brief(outcome.exports):<7} "
        f"{outcome.seconds:>5.1f}"
    )
    notes = [f"WRONG {problem}" for problem in outcome.problems]
    if outcome.why:
        notes.append(outcome.why)
    for what, said in (("trains", outcome.trains), ("exports", outcome.exports)):
        if said not in ("", "yes"):
            notes.append(f"{what}: {said}")
    return "\n".join([line, *(f"    {text}" for note in notes for text in note.splitlines())])


def brief(said: str) -> str:
    """Fit an answer into a column; the reason is told below the line."""
    return said if said in ("", "yes") else "no"


def summary(outcomes: Sequence[Outcome]) -> str:
    """Everything in one paragraph."""
    cut = [o for o in outcomes if o.proof is not None]
    half = [o for o in cut if o.macs <= 0.5]
    wrong = [o.name for o in outcomes if o.problems]
    seconds = sum(o.seconds for o in outcomes)
    lines = [
        f"\n{len(outcomes)} models: {len(cut)} cut and proven, {len(half)} of them to half of "
        f"their MACs; {len(outcomes) - len(cut)} left whole with a reason; {seconds:.0f} s",
        f"largest error of a proof: {max((o.proof or 0.0 for o in cut), default=0.0):.1e}",
    ]
    for name, found in (
        ("train", [o.trains for o in cut]),
        ("load their weights again", [o.round_trip for o in cut]),
        ("export, as their originals do", [o.exports for o in cut]),
    ):
        lines.append(f"{found.count('yes')} {name}")
    lines.append(f"wrong: {', '.join(wrong)}" if wrong else "nothing is wrong")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
