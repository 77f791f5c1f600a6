"""Opening a data set by its name."""

from __future__ import annotations

from pathlib import Path

from tonsor.errors import DataError
from tonsor.train.data.cifar import cifar_binary
from tonsor.train.data.digits import digits
from tonsor.train.data.source import Data


def open_data(spec: str | Path, *, strict: bool = False, size: int | None = None) -> Data:
    """Open a data set: "digits", or "cifar10:FOLDER".

    >>> open_data("digits").name
    'digits'
    """
    kind, _, place = str(spec).partition(":")
    if kind == "digits":
        return digits()
    if kind in ("cifar10", "cifar100"):
        return cifar_binary(Path(place), kind, strict=strict)
    message = f"'{spec}' is no data set"
    raise DataError(message)
