"""The demo's page: one HTML file with the table, two charts, and how to go on."""

from __future__ import annotations

from collections.abc import Mapping

from tonsor.demo.story import HEADER, MODEL, Outcome, Row, lines
from tonsor.report.figures import Point, curves, widths
from tonsor.report.page import Code, Figure, Section, Table, Text, render

YOURS = """import tonsor

anatomy = tonsor.inspect(model, x)            # x: an example input
print(anatomy.explain("layer2.0.conv2"))      # what is tied to what, and why

slim, report = tonsor.prune(model, x, budget="macs=50%", by="l1")
print(report)                                 # proven equal to the masked original
# ... train `slim` on for a while, as you trained `model` ...
tonsor.save("slim.tonsor", slim, report.plan)"""

SHELL = """tonsor inspect  my_models.py:Net --input 1,3,32,32
tonsor prune    my_models.py:Net --input 1,3,32,32 --weights net.safetensors \\
                --macs 50% --by l1 --out slim.tonsor
tonsor finetune my_models.py:Net --weights slim.tonsor --data cifar10:PATH --out runs/tuned"""


def page(outcome: Outcome) -> str:
    """Return the whole page."""
    best = max(outcome.rows, key=lambda r: (-r.share, r.tuned.accuracy))
    found = Section(
        "What came of it",
        [
            Table(
                HEADER,
                list(lines(outcome)),
                caption="cut: accuracy after cutting, with no training but the statistics of batch "
                "norm; tuned: after fine-tuning, ± one standard "
                "error; proof: the largest relative difference between the cut network and the "
                "masked original in float64.",
                numbers=len(HEADER) - 1,
            ),
            Figure(
                _curve(outcome),
                "Accuracy against what is left of the multiply-accumulates. `random` is the "
                "baseline that any criterion has to beat.",
            ),
            Figure(
                _widths(best),
                f"The width of each layer's output before and after `{best.by}` kept "
                f"{best.kept:.0%} of the multiply-accumulates. Layers that are added up lose the "
                "same channels and are shown once.",
            ),
        ],
    )
    tied = Section(
        "Why a layer can't be cut alone",
        [
            Text(["What `anatomy.explain` says of one layer, found by running the network once:"]),
            Code(outcome.explained),
        ],
    )
    yours = Section(
        "The same for your own model",
        [
            Text(["In Python, with any `torch.nn.Module`:"]),
            Code(YOURS),
            Text(["Or from the shell, with a class or function that makes the model:"]),
            Code(SHELL),
        ],
    )
    lead = (
        f"A {MODEL} learned to read handwritten digits, was cut to a half and to a quarter of its "
        "multiply-accumulates, proven to compute what it should, and trained on for a moment."
    )
    return render("tonsor demo", lead, [found, tied, yours], outcome.conditions)


def _curve(outcome: Outcome) -> str:
    series: dict[str, list[Point]] = {}
    for row in outcome.rows:
        point = Point(row.kept, row.tuned.accuracy, row.tuned.standard_error)
        series.setdefault(row.by, []).append(point)
    whole = Point(1.0, outcome.whole.accuracy, outcome.whole.standard_error)
    return curves(
        series, x="multiply-accumulates kept, %", y="accuracy after fine-tuning, %",
        reference=("unpruned", whole),
    )  # fmt: skip


def _widths(row: Row) -> str:
    before: dict[str, int] = {}
    after: Mapping[str, int] = row.report.plan.counts
    for group in row.report.anatomy.prunable:
        before[group.name] = group.size
    return widths(before, after)
