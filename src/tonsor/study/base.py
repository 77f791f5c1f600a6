"""What the trials of a study share: a trained network, images, and how a cut one is trained on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tonsor import zoo
from tonsor.anatomy import Anatomy, inspect
from tonsor.plans import Plan
from tonsor.study.paired import answers, packed
from tonsor.train.calibrate import calibrate
from tonsor.train.data import Batches, Source, Splits, open_data, split
from tonsor.train.loop import fit
from tonsor.train.method import Method
from tonsor.train.recipe import Recipe

TUNE = Recipe(
    name="study", epochs=1, batch=128, lr=0.01, weight_decay=5e-4, nesterov=True,
    schedule="cosine", choose="last", precision="bf16", channels_last=True,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Base:
    """A trained network of the zoo, and the images that everything is measured on.

    `images` are drawn from the training split by the seed of a trial, and are the only ones that
    anything is learned from; the test images are looked at to judge, and decide nothing. A study
    that has to decide between results looks at so many other training images as `validation` says.
    """

    network: str
    weights: str
    data: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    images: int = 10_000
    recipe: Recipe = TUNE
    calibrate: int = 50
    score_batches: int = 8
    batch: int = 128
    validation: int = 0

    def splits(self, seed: int) -> Splits:
        """The training images of a seed, and the test images."""
        return _splits(self.data, self.images, seed, self.mean, self.std, self.validation)

    def model(self) -> nn.Module:
        """The trained network."""
        given = self.splits(0)
        return zoo.load(
            self.network, self.weights, classes=len(given.classes), channels=given.shape[0]
        )

    def anatomy(self, model: nn.Module) -> Anatomy:
        """Inspect the network on an input of the size of the images."""
        return inspect(model, torch.zeros(2, *self.splits(0).shape))

    def score_on(self, seed: int) -> Batches:
        """Training images to score by, as they are, in an order of the seed."""
        given = self.splits(seed)
        return _batches(given, given.train, self.batch, shuffle=True, seed=seed)

    def calibrate_on(self, seed: int) -> Batches:
        """Training images to take the statistics of BatchNorm from."""
        given = self.splits(seed)
        return _batches(given, given.train, 200, shuffle=True, seed=seed)

    def judge_on(self) -> Batches:
        """The test images, in order."""
        given = self.splits(0)
        return _batches(given, given.test, 250, shuffle=False, seed=0)

    def validate(self, model: nn.Module, seed: int) -> float:
        """How many of the validation images of a seed a network gets right, as a part of them."""
        given = self.splits(seed)
        shown = _batches(given, given.validation, 250, shuffle=False, seed=0)
        return float(answers(model, shown).mean())

    def judge(self, model: nn.Module) -> str:
        """Which test images a network gets right, as text."""
        return packed(answers(model, self.judge_on()))

    def conditions(self, seeds: int) -> list[str]:
        """Under which conditions numbers of this base are taken, to stand beside them."""
        given, recipe = self.splits(0), self.recipe
        return [
            f"Network: {self.network} with the weights of `{Path(self.weights).name}`; data: "
            f"{given.name}. Judged on {len(given.test):,} test images, the same for every row; "
            "nothing was chosen by looking at them.",
            f"Learned from: {len(given.train):,} training images, drawn by "
            f"{f'each of {seeds} seeds' if seeds > 1 else 'one seed'} (scores, statistics and "
            "fine-tuning take no others).",
            f"Fine-tuning: {recipe.epochs} pass{'es' if recipe.epochs > 1 else ''} over them, SGD "
            f"with Nesterov momentum {recipe.momentum:g}, rate {recipe.lr:g} by a cosine to 0, "
            f"decay {recipe.weight_decay:g}, batch {recipe.batch}, crops and flips, precision "
            f"{recipe.precision}; the last weights are judged.",
            f"Criteria that look at data see {self.score_batches} batches of {self.batch} images.",
            f"Statistics of batch norm are taken anew from {self.calibrate} batches of 200.",
            "± is one standard error over the images (of the mean over the seeds); differences are "
            "paired, image by image. The chance of drawing and training is not in it: that is what "
            "seeds differ by. Of twenty comparisons, one is beyond two errors by chance alone.",
        ]


def after_cut(
    base: Base, model: nn.Module, plan: Plan, seed: int, folder: Path
) -> tuple[dict[str, str], nn.Module]:
    """Cut, take statistics anew, train on; return which images are right after each of them."""
    slim = plan.apply(model, verify=False)
    told = {"cut": base.judge(slim)}
    calibrate(slim, base.calibrate_on(seed), base.calibrate)
    told["recalibrated"] = base.judge(slim)
    tune(base, slim, seed, folder)
    told["tuned"] = base.judge(slim)
    return told, slim


def tune(
    base: Base, model: nn.Module, seed: int, folder: Path, method: Method | None = None
) -> Plan | None:
    """Train by the recipe of the study, going on where an earlier process has stopped."""
    where = folder / "tune"
    started = (where / "run.toml").exists()
    splits = replace(base.splits(seed), test=base.splits(seed).test)
    found = fit(
        model, splits, base.recipe.but(seed=seed), folder=where, resume=started, method=method,
        board=False, quiet=True, device="cpu" if not torch.cuda.is_available() else None,
    )  # fmt: skip
    shutil.rmtree(where)  # the result is what counts; checkpoints of all trials would fill the disk
    return found.plan


def costs(anatomy: Anatomy, plan: Plan) -> Mapping[str, Any]:
    """What a plan costs, beside the whole."""
    return {
        "macs": [anatomy.cost.macs(), anatomy.cost.macs(plan.counts)],
        "params": [anatomy.cost.params(), anatomy.cost.params(plan.counts)],
    }


@lru_cache(maxsize=4)
def _splits(
    data: str,
    images: int,
    seed: int,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    validation: int,
) -> Splits:
    found = split(_opened(data), validation=validation, limit=images, seed=seed)
    return replace(found, mean=mean or found.mean, std=std or found.std)


@lru_cache(maxsize=1)
def _opened(data: str) -> Any:
    return open_data(data)


def _batches(splits: Splits, source: Source, size: int, *, shuffle: bool, seed: int) -> Batches:
    return Batches(source, size=size, mean=splits.mean, std=splits.std, shuffle=shuffle, seed=seed)
