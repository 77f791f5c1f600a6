"""A recipe as a TOML file: one line a field, to be read, edited, and run again."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tonsor.errors import RecipeError
from tonsor.files import replacing
from tonsor.train.recipe import Recipe
from tonsor.train.recipes import named


def write_recipe(path: str | Path, recipe: Recipe, about: Mapping[str, Any] | None = None) -> None:
    """Write a recipe as the table `[recipe]`, and `about` as the table `[run]` behind it."""
    text = toml({"recipe": asdict(recipe), **({"run": about} if about else {})})
    with replacing(path) as part:
        part.write_text(text, "utf-8")


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe: the table `[recipe]`, or the whole file where there is no such table.

    With `base = "spsrc-finetune"` the fields that are not in the file come from that recipe.
    """
    try:
        data = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        message = f"can't read the recipe '{path}': {error.strerror}"
        raise RecipeError(message) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"'{path}' is not a TOML file: {error}"
        raise RecipeError(message) from error
    table = data.get("recipe", data)
    if not isinstance(table, dict):
        message = f"'{path}': 'recipe' must be a table, got {table!r}; for a start, write base ="
        raise RecipeError(message)
    try:
        base = table.pop("base", None)
        return (Recipe() if base is None else named(base)).but(**table)
    except RecipeError as error:
        message = f"'{path}': {error}"
        raise RecipeError(message) from error


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Write tables of plain values as TOML.

    >>> print(toml({"a": {"x": 1e-05, "y": (("b", 2.0),)}}), end="")
    [a]
    x = 1e-05
    y = [["b", 2.0]]
    """
    parts = (
        "\n".join([f"[{name}]", *(f"{_key(k)} = {_value(v)}" for k, v in table.items()), ""])
        for name, table in tables.items()
    )
    return "\n".join(parts)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(v) for v in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    return _text(str(value))


def _text(text: str) -> str:
    """JSON's texts are TOML's, but for one sign that TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
