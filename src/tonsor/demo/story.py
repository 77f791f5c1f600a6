"""What tonsor does, from training to a smaller, faster network, on digits that come with it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from tonsor import zoo
from tonsor.anatomy import inspect
from tonsor.api import Report, prune
from tonsor.cost.latency import Latency, measure
from tonsor.train.calibrate import calibrate
from tonsor.train.data import Batches, Source, Splits, open_data, split
from tonsor.train.evaluate import Evaluation, evaluate
from tonsor.train.loop import fit
from tonsor.train.recipe import Recipe

MODEL = "resnet20"
WIDTH = 1.5
EXPLAINED = "layer2.0.conv2"
LATENCY_BATCH = 64
CALIBRATE = 10
WHOLE = "unpruned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the demo does; the default takes about a minute on two cores."""

    epochs: int = 12
    tune_epochs: int = 3
    shares: tuple[float, ...] = (0.5, 0.25)
    criteria: tuple[str, ...] = ("l1", "l2", "random")
    rounds: int = 15
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One cut network: how it was asked for, and what was measured."""

    name: str
    by: str
    share: float
    report: Report
    raw: Evaluation
    tuned: Evaluation

    @property
    def kept(self) -> float:
        """The fraction of multiply-accumulates that is left."""
        before, after = self.report.macs
        return after / before


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the demo found."""

    settings: Settings
    splits: Splits
    whole: Evaluation
    rows: tuple[Row, ...]
    latency: Latency
    explained: str
    threads: int
    seconds: float
    models: Mapping[str, nn.Module] = field(repr=False)

    @property
    def conditions(self) -> tuple[str, ...]:
        """How the numbers came about, to stand beside them."""
        splits, settings = self.splits, self.settings
        return (
            f"Data: UCI handwritten digits (E. Alpaydin and C. Kaynak, CC BY 4.0), "
            f"{len(splits.train)} images to learn from, {len(splits.validation)} to decide by, "
            f"{len(splits.test)} to be judged by, which nothing else has seen.",
            f"Accuracy is on those {len(splits.test)} images; ± is one standard error, and "
            "differences of less than two of them mean little.",
            f"Each layer loses the same share of its channels. After the cut, batch norm takes its "
            f"statistics anew from {CALIBRATE} batches; nothing else is learned before `cut, %`.",
            f"{MODEL}, {WIDTH} times as wide, was trained for {settings.epochs} epochs, each cut "
            f"network for {settings.tune_epochs} more; seed {settings.seed}; one run each.",
            f"Latency: {self.latency.conditions}; torch {torch.__version__}.",
            "MACs are multiply-accumulates of convolutions and linear layers for one image.",
        )


def network(classes: int = 10, channels: int = 1) -> nn.Module:
    """Make the network of the demo, with random weights."""
    return zoo.build(MODEL, classes=classes, width=WIDTH, channels=channels, shortcut="B")


def tell(folder: Path, out: Console, settings: Settings) -> Outcome:
    """Train, prune in several ways, fine-tune, prove and measure; leave everything in a folder."""
    started = time.perf_counter()
    splits = split(open_data("digits"), validation=0.1, seed=settings.seed)
    torch.manual_seed(settings.seed)
    model = network(len(splits.classes), splits.shape[0])
    _title(out, f"1. Train {MODEL} on {len(splits.train)} handwritten digits")
    networks = folder / "networks"
    shutil.rmtree(networks, ignore_errors=True)  # of an earlier demo
    whole = fit(model, splits, _base(settings), folder=networks / WHOLE, board=False).final
    out.print(f"{WHOLE}: {whole}")

    x = next(_batches(splits.train, splits, LATENCY_BATCH).epoch(0))[0]
    _title(out, f"2. What is tied to what: anatomy.explain('{EXPLAINED}')")
    explained = str(inspect(model, x[:2]).explain(EXPLAINED))
    out.print(explained)

    _title(out, "3. Cut, prove, and fine-tune")
    models: dict[str, nn.Module] = {WHOLE: model}
    rows = tuple(_rows(model, splits, x[:2], networks, out, settings, models))

    _title(out, "4. Measure on this machine")
    latency = measure(models, x, rounds=settings.rounds)
    seconds = time.perf_counter() - started
    return Outcome(
        settings, splits, whole, rows, latency, explained, torch.get_num_threads(), seconds, models
    )


def _rows(
    model: nn.Module,
    splits: Splits,
    x: Tensor,
    folder: Path,
    out: Console,
    settings: Settings,
    models: dict[str, nn.Module],
) -> Iterator[Row]:
    for share in settings.shares:
        for by in settings.criteria:
            name = f"{by}-{share:.0%}".replace("%", "")
            slim, report = prune(
                model, x, budget=f"macs={share}", by=by, rank="per_group", round_to=4,
                seed=settings.seed,
            )  # fmt: skip
            calibrate(slim, _batches(splits.train, splits, 64), CALIBRATE)
            raw = evaluate(slim, _batches(splits.test, splits, 256))
            tuned = fit(
                slim, splits, _tune(settings), folder=folder / name, plan=report.plan, board=False,
                quiet=True,
            ).final  # fmt: skip
            row = Row(name, by, share, report, raw, tuned)
            out.print(
                f"{by:<7} {row.kept:>6.1%} of MACs: {raw.accuracy:.1%} after the cut, "
                f"{tuned.accuracy:.1%} after fine-tuning; {report.proof}"
            )
            models[name] = slim
            yield row


def table(outcome: Outcome) -> Table:
    """Everything that was measured, one network a line."""
    shown = Table(title="What came of it", title_justify="left", title_style="bold")
    shown.add_column("network")
    for column in HEADER[1:]:
        shown.add_column(column, justify="right")
    for line in lines(outcome):
        shown.add_row(*line)
    return shown


HEADER = (
    "network", "MACs", "parameters", "cut, %", "tuned, %", "ms", "faster", "proof",
)  # fmt: skip


def lines(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table as text, the unpruned network first."""
    first = outcome.rows[0].report
    base = outcome.latency[WHOLE].median_ms
    yield (
        WHOLE, f"{first.macs[0]:,}", f"{first.params[0]:,}", "", _percent(outcome.whole),
        f"{base:.1f}", "", "",
    )  # fmt: skip
    for row in outcome.rows:
        ms = outcome.latency[row.name].median_ms
        proof = row.report.proof
        yield (
            f"{row.by}, {row.kept:.0%} of MACs",
            f"{row.report.macs[1]:,}",
            f"{row.report.params[1]:,}",
            f"{100 * row.raw.accuracy:.1f}",
            _percent(row.tuned),
            f"{ms:.1f}",
            f"{base / ms:.2f}×",
            f"{proof.error:.0e}" if proof is not None else "none",
        )


def _percent(judged: Evaluation) -> str:
    return f"{100 * judged.accuracy:.1f} ± {100 * judged.standard_error:.1f}"


def _title(out: Console, text: str) -> None:
    out.print()
    out.print(text, style="bold cyan")


def _batches(source: Source, splits: Splits, size: int) -> Batches:
    return Batches(source, size=size, mean=splits.mean, std=splits.std, shuffle=False, seed=0)


def _base(settings: Settings) -> Recipe:
    return Recipe(
        name="demo", epochs=settings.epochs, batch=64, lr=0.1, nesterov=True, schedule="cosine",
        warmup=min(2, settings.epochs), seed=settings.seed, choose="last",
    )  # fmt: skip


def _tune(settings: Settings) -> Recipe:
    return _base(settings).but(name="demo-tune", epochs=settings.tune_epochs, lr=0.03, warmup=0)
