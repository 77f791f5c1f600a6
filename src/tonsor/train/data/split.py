"""Taking the validation set out of the training set, by seed and in proportion to the classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tonsor.errors import DataError
from tonsor.train.data.augment import Augment
from tonsor.train.data.source import Data, Source, Subset


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What to learn from, what to decide by, and what to be judged by, once, at the end."""

    name: str
    train: Source
    validation: Source
    test: Source
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return self.train.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.train.shape


def split(
    data: Data, *, validation: float | int = 0.1, seed: int = 0, limit: int | None = None
) -> Splits:
    """Split the training images in two; the test images are handed through untouched.

    >>> from tonsor.train.data import open_data
    >>> splits = split(open_data("digits"), validation=0.2)
    >>> len(splits.train), len(splits.validation), len(splits.test)
    (1150, 287, 360)

    `validation` is a fraction or a number of images. Each class gives its share of them, and
    keeps at least one image to learn from. A data set that brings its own validation set keeps
    it, and gives nothing of its training set. `limit` keeps only that many training images, in
    the same proportions, for short studies; the validation set does not depend on it.
    """
    labels = data.train.labels
    rows = torch.arange(len(labels))
    if data.validation is not None:
        held: Source = data.validation
    else:
        count = _count(validation, len(labels))
        out = stratified(labels, count, seed)
        held = Subset(data.train, out)
        rows = _without(rows, out)
    if limit is not None:
        if limit < 1:
            message = f"limit={limit} leaves nothing to learn from"
            raise DataError(message)
        if limit < len(rows):
            rows = rows[stratified(labels[rows], limit, seed + 1, leave=0)]
    return Splits(
        name=data.name,
        train=Subset(data.train, rows),
        validation=held,
        test=data.test,
        mean=data.mean,
        std=data.std,
        augment=data.augment,
    )


def hold_out(source: Source, place: str) -> tuple[Subset, Subset, str]:
    """Keep a fifth for testing where a set brings no test images, always the same; with a note."""
    sizes = torch.bincount(source.labels)
    if alone := int((sizes == 1).sum()):
        message = (
            f"'{place}' has no test images, and {alone} of {len(source.classes)} classes have "
            f"but one image, of which none can be kept for testing"
        )
        raise DataError(message)
    count = round(len(source) / 5)
    test = stratified(source.labels, count, 0)
    rest = _without(torch.arange(len(source)), test)
    note = f"there are no test images, so {count:,} of {len(source):,} are kept for testing"
    return Subset(source, rest), Subset(source, test), note


def stratified(labels: Tensor, count: int, seed: int, leave: int = 1) -> Tensor:
    """The sorted indices of exactly `count` images, drawn so that classes keep their proportions.

    Every class keeps at least `leave` images that are not drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    sizes = torch.bincount(labels) if len(labels) else torch.zeros(0, dtype=torch.int64)
    wanted = _shares(sizes, count, (sizes - leave).clamp(min=0))
    by_class = order[labels[order].argsort(stable=True)]
    drawn = [
        rows[:share]
        for rows, share in zip(by_class.split(sizes.tolist()), wanted.tolist(), strict=True)
    ]
    return torch.cat(drawn).sort().values if drawn else order


def _shares(sizes: Tensor, count: int, most: Tensor) -> Tensor:
    """How many each class gives: the nearest to its share, with the largest rests rounded up."""
    if count > int(most.sum()):
        message = (
            f"{count} images were asked for, but at most {int(most.sum())} of "
            f"{int(sizes.sum())} can be taken with something of each class left"
        )
        raise DataError(message)
    exact = sizes.double() * count / max(1, int(sizes.sum()))
    shares = torch.minimum(exact.floor().long(), most)
    while (missing := count - int(shares.sum())) > 0:
        lag = torch.where(shares < most, exact - shares, -torch.inf)
        chosen = lag.argsort(descending=True, stable=True)[:missing]
        shares[chosen[shares[chosen] < most[chosen]]] += 1
    return shares


def _count(validation: float | int, total: int) -> int:
    if isinstance(validation, bool) or not validation >= 0:
        message = f"validation={validation!r} has to be a fraction below 1 or a number of images"
        raise DataError(message)
    if isinstance(validation, int):
        return validation
    if validation >= 1:
        message = f"validation={validation} is no fraction; write {int(validation)} for images"
        raise DataError(message)
    return round(validation * total)


def _without(rows: Tensor, out: Tensor) -> Tensor:
    kept = torch.ones(len(rows), dtype=torch.bool)
    kept[out] = False
    return rows[kept]
