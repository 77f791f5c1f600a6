"""What a run tells while it runs: a line that moves, charts for TensorBoard, and notes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Log:
    """Progress on the terminal and scalars for TensorBoard; silent in all but the first process.

    `total` and `step` are those of the whole run, so that the time that is left is that of the
    run. Scalars of a run that goes on replace those written after the checkpoint.
    """

    def __init__(
        self, folder: Path, *, total: int, step: int, speak: bool, quiet: bool, board: bool
    ) -> None:
        self.notes: list[str] = []
        self._speak = speak and not quiet
        self._console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        self._task: Any = None
        self._total, self._step = total, step
        self._writer = self._board(folder / "tensorboard", step) if speak and board else None

    def __enter__(self) -> Log:
        if self._speak:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[said]}"),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=self._total, completed=self._step, said="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        if self._writer:
            self._writer.close()

    def steps(self, step: int, epoch: int, losses: list[float], rate: float) -> None:
        """Tell of the steps since the last call, up to `step`."""
        if self._bar:
            said = f"loss {losses[-1]:.3f}"
            self._bar.update(self._task, completed=step, description=f"epoch {epoch}", said=said)
        if self._writer:
            self._writer.add_scalar("train/loss", sum(losses) / len(losses), step)
            self._writer.add_scalar("train/rate", rate, step)

    def epoch(self, row: dict[str, Any]) -> None:
        """Tell of a whole epoch."""
        judged = f"validation {100 * row['accuracy']:.2f} %   " if row["total"] else ""
        if self._bar:
            self._bar.console.print(
                f"epoch {row['epoch']:>4}   loss {row['train_loss']:.4f}   {judged}"
                f"{row['images_per_second']:.0f} images/s"
            )
        if self._writer and judged:
            self._writer.add_scalar("validation/accuracy", row["accuracy"], row["step"])
            self._writer.add_scalar("validation/loss", row["loss"], row["step"])

    def note(self, text: str) -> None:
        """Say something once, and keep it for the result."""
        if text not in self.notes:
            self.notes.append(text)
            if self._speak:
                self._console.print(text, highlight=False)

    def _board(self, folder: Path, step: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.note("no charts: TensorBoard is missing, pip install 'tonsor[train]'")
            return None
        return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
