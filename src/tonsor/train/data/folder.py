"""Images that are decoded when they are wanted, by threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import torch
from torch import Tensor

from tonsor.errors import DataError
from tonsor.train.data.decode import UnreadableError, read
from tonsor.train.data.source import checked_labels
from tonsor.train.data.tree import Tree


class Folder:
    """Image files of a folder or an archive, brought to one size as they are read."""

    in_memory = False

    def __init__(
        self,
        tree: Tree,
        names: tuple[str, ...],
        labels: Tensor,
        classes: tuple[str, ...],
        shape: tuple[int, int, int],
    ) -> None:
        self.tree = tree
        self.names = names
        self.labels = checked_labels(labels, classes, str(tree.place))
        self.classes = classes
        self.shape = shape

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Tensor) -> Tensor:
        """The images at these indices: uint8, [B, C, H, W]."""
        images = torch.empty(len(indices), *self.shape, dtype=torch.uint8)

        def put(place: int, index: int) -> None:
            name = self.names[index]
            try:
                images[place] = read(self.tree, name, self.shape)
            except UnreadableError as error:
                message = f"'{self.tree.place}': can't read '{name}': {error}"
                raise DataError(message) from error

        # Decoding releases the interpreter, so that threads are enough.
        list(self._threads.map(put, range(len(indices)), indices.tolist()))
        return images

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(os.cpu_count())
