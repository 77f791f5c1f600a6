"""Scores from feature maps, and from the gradients that reach them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import Means
from tonsor.criteria.registry import Registered
from tonsor.criteria.rows import Row
from tonsor.families.maps import Site, Watch, sites


class MapGatherer:
    """Scores each minibatch where the pieces can be seen, and forgets the maps."""

    def __init__(self, anatomy: Anatomy, found: Registered) -> None:
        self._found = found
        self._backward = found.needs == "map_gradients"
        self._means = Means()
        self._samples = 0
        watched = {g.name: sites(anatomy, g, found.where) for g in anatomy.prunable}
        self.unscored = {
            name: f"its pieces can't be seen as they are {found.where}"
            for name, seen in watched.items()
            if not seen
        }
        self._watch = Watch(
            anatomy.parameters, [s for seen in watched.values() for s in seen], self._show
        )
        self._watched = watched
        self._maps: list[tuple[Site, Tensor]] = []

    @contextmanager
    def watching(self, samples: int) -> Iterator[None]:
        """Watch one forward pass of so many samples."""
        self._samples = samples
        self._maps.clear()
        with self._watch:
            yield

    def _show(self, site: Site, tensor: Tensor) -> None:
        if self._backward:
            self._maps.append((site, tensor))
        else:
            self._count(site, tensor)

    def see(self, loss: Tensor | None, samples: int) -> None:
        """Take in a minibatch that was run."""
        if not self._backward:
            return
        assert loss is not None
        # The loss is the mean over the samples; of each sample's own loss it is so many times less.
        found = torch.autograd.grad(loss * samples, [t for _, t in self._maps], allow_unused=True)
        for (site, tensor), gradient in zip(self._maps, found, strict=True):
            if gradient is not None:
                self._count(site, tensor.detach(), gradient)
        self._maps.clear()

    def _count(self, site: Site, *tensors: Tensor) -> None:
        views = [site.maps(t.detach(), self._samples) for t in tensors]
        for place, shown in enumerate(zip(*views, strict=True)):
            values = self._found(*shown)
            if values is not NotImplemented:
                where = f"{site}, view {place}" if place else str(site)
                self._means.add(site.group, where, site.side == "out", values, self._samples)

    def rows(self) -> Mapping[str, list[Row]]:
        """Return the mean scores, and note the groups that were never met."""
        rows = self._means.rows()
        for name in self._watched:
            if name not in rows:
                self.unscored.setdefault(name, "its feature maps were not met in the run")
        return rows
