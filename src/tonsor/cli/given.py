"""From words on a command line to images, recipes, and a model that suits them."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tonsor.cli.learn_options import Images
from tonsor.cli.model import ZOO_PLACE
from tonsor.cli.show import show, step
from tonsor.errors import DataError, RecipeError
from tonsor.train.data import Batches, Splits, open_data, split
from tonsor.train.recipe_file import read_recipe
from tonsor.train.recipes import RECIPES, Recipe, named
from tonsor.zoo.registry import entry


def read_splits(images: Images) -> Splits:
    """Open the images that are named, and split them."""
    if images.data is None:
        message = "this needs images: --data cifar10:FOLDER, or another of `tonsor train --help`"
        raise DataError(message)
    with step(f"opening {images.data}"):
        data = open_data(images.data, strict=images.strict, size=images.size)
        part = images.validation
        splits = split(
            data, validation=part if part < 1 else int(part), seed=images.split_seed,
            limit=images.limit,
        )  # fmt: skip
    for note in data.notes if speaks() else ():
        show(f"note: {note}", "yellow")
    for name in ("mean", "std"):
        given = getattr(images, name)
        if given is None:
            continue
        if len(given) != splits.shape[0]:
            message = (
                f"--{name} has {len(given)} numbers, the images have {splits.shape[0]} channels"
            )
            raise DataError(message)
        splits = replace(splits, **{name: tuple(given)})
    return splits


def suited(spec: str, args: str, splits: Splits) -> str:
    """Make a model of the zoo suit the images, where nothing else is asked for."""
    place, _, name = spec.rpartition(":")
    if place != ZOO_PLACE:
        return args
    suits = {"classes": len(splits.classes), "channels": splits.shape[0]}
    given = json.loads(args) if args else {}
    known = entry(name).variants
    return json.dumps({k: v for k, v in suits.items() if k in known} | given)


def shown_to_criteria(splits: Splits, size: int, seed: int) -> Batches:
    """Training images as they are, in an order of the seed, for criteria that look at data."""
    return Batches(
        splits.train, size=size, mean=splits.mean, std=splits.std, shuffle=True, seed=seed
    )


def held_out(
    splits: Splits, on: Literal["validation", "test"] = "validation", size: int = 256
) -> Batches | None:
    """Images that nothing is learned from, in order; None where there are none."""
    source = splits.validation if on == "validation" else splits.test
    if not len(source):
        return None
    return Batches(source, size=size, mean=splits.mean, std=splits.std, shuffle=False, seed=0)


def read_recipe_named(recipe: str | None, usual: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Take the recipe that is named, and change in it what the command line says."""
    found = usual
    if recipe is not None:
        is_file = recipe not in RECIPES and Path(recipe).suffix == ".toml"
        found = read_recipe(recipe) if is_file else named(recipe)
    given = {n: v for n, v in changes.items() if v is not None}
    if found is usual and "epochs" in given:  # our own recipe fits itself to its length
        given.setdefault("warmup", usual.warmup * given["epochs"] / usual.epochs)
    return found.but(**given)


def fields_set(items: Iterable[str]) -> dict[str, Any]:
    """Read `FIELD=VALUE` with values as in TOML."""
    found = {}
    for item in items:
        name, _, text = item.partition("=")
        found[name.strip()] = _toml(item, text)
    return found


def speaks() -> bool:
    """Whether this is the only process, or the first of those that a launcher has started."""
    return os.environ.get("RANK", "0") == "0"


def _toml(item: str, text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if text.strip().replace("_", "").replace("-", "").isalnum():
            return text.strip()  # a word needs no quotation marks here
        message = f"--set '{item}' is not FIELD=VALUE with a value as in TOML, such as ema=0.999"
        raise RecipeError(message) from None
