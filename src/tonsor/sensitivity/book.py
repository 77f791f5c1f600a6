"""The folder in which what was measured is written down at once, to go on from after an end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tonsor.errors import CheckpointError, TrainError
from tonsor.files import replacing
from tonsor.sensitivity.result import Reading, judged_from, judged_json
from tonsor.train.evaluate import Evaluation
from tonsor.train.identity import check_identity


class Book:
    """Rows that are on the disk as soon as they are known; without a folder, in memory only.

    `about.json` says what is measured, `rows.jsonl` has one line for the whole model and one for
    each row. A last line that was cut short is not counted, and written over.
    """

    def __init__(self, folder: str | Path | None, about: dict[str, Any], *, resume: bool) -> None:
        self.base: Evaluation | None = None
        self.rows: dict[tuple[str, float], Reading] = {}
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            if resume:
                message = "resume=True goes on from a folder; say which, as folder=..."
                raise TrainError(message)
            return
        self._path = self.folder / "rows.jsonl"
        identity = self.folder / "about.json"
        if identity.exists() and not resume:
            message = (
                f"'{folder}' holds a sensitivity already; resume=True goes on with it, and another "
                "folder begins anew"
            )
            raise TrainError(message)
        if identity.exists():
            check_identity(_read(identity), about, folder)
            self._read_rows()
            return
        with replacing(identity) as part:
            part.write_text(json.dumps(about, indent=1) + "\n", "utf-8")
        self._path.touch()

    def set_base(self, base: Evaluation) -> None:
        """Write down what the whole model is worth."""
        self.base = base
        self._append({"base": judged_json(base)})

    def add(self, row: Reading) -> None:
        """Write down one row."""
        self.rows[row.group, row.fraction] = row
        self._append(row.to_json())

    def _append(self, line: dict[str, Any]) -> None:
        if self.folder is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read_rows(self) -> None:
        data = self._path.read_bytes() if self._path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for number, text in enumerate(whole.splitlines(), 1):
            try:
                line = json.loads(text)
                if "base" in line:
                    self.base = judged_from(line["base"])
                else:
                    row = Reading.from_json(line)
                    self.rows[row.group, row.fraction] = row
            except (KeyError, TypeError, ValueError) as error:
                message = (
                    f"line {number} of '{self._path}' is damaged ({type(error).__name__}); remove "
                    "the line to have it measured again, or begin anew in another folder"
                )
                raise CheckpointError(message) from None
        if len(whole) < len(data):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if isinstance(found, dict):
            return found
        reason = "it holds no names"
    except (OSError, ValueError) as error:
        reason = str(error)
    message = f"'{path}' can't be read ({reason}); begin anew in another folder"
    raise CheckpointError(message)
