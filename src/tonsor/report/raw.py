"""A figure as a file, with the numbers that it shows beside it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tonsor.files import replacing


def save_figure(path: str | Path, svg: str, data: object) -> Path:
    """Write a figure and its raw numbers, as JSON of the same name; return the path of the JSON.

    `data` is anything made of mappings, sequences, arrays, dataclasses, numbers and text. What
    is no finite number is written as null. Either both files are written or neither is touched.
    """
    path = Path(path)
    if path.suffix != ".svg":
        message = f"a figure is written to a file that ends in .svg, got '{path.name}'"
        raise ValueError(message)
    numbers = path.with_suffix(".json")
    text = json.dumps(plain(data), indent=1, allow_nan=False)
    with replacing(numbers) as json_part, replacing(path) as svg_part:
        json_part.write_text(text + "\n", "utf-8")
        svg_part.write_text(svg, "utf-8")
    return numbers


def plain(data: object) -> Any:
    """Turn arrays and dataclasses into what JSON can hold."""
    if isinstance(data, np.ndarray):
        return plain(data.tolist())
    if isinstance(data, np.generic):
        return plain(data.item())
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if data is None or isinstance(data, (str, int)):
        return data
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {f.name: plain(getattr(data, f.name)) for f in dataclasses.fields(data)}
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, (Sequence, set, frozenset)) and not isinstance(data, bytes):
        items = sorted(data, key=str) if isinstance(data, (set, frozenset)) else data
        return [plain(item) for item in items]
    message = f"a {type(data).__name__} can't be written beside a figure; give plain numbers"
    raise ValueError(message)
