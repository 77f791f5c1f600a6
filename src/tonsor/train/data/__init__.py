"""Labelled images: opening, splitting, and batches that are augmented all at once."""

from tonsor.train.data.augment import Augment
from tonsor.train.data.batches import Batches
from tonsor.train.data.open import open_data
from tonsor.train.data.source import Data, Memory, Source, Subset
from tonsor.train.data.split import Splits, split

__all__ = [
    "Augment", "Batches", "Data", "Memory", "Source", "Splits", "Subset", "open_data", "split",
]  # fmt: skip
