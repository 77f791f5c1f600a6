"""Scores from feature maps, and from the gradients that reach them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import Means, Place, in_all
from tonsor.criteria.gradients import gradients
from tonsor.criteria.registry import Registered
from tonsor.criteria.rows import Row
from tonsor.errors import ScoreError
from tonsor.families.channels import as_real, times
from tonsor.families.maps import Site, as_run, sites
from tonsor.families.watch import Watch


class MapGatherer:
    """Scores each minibatch where the pieces can be seen, and forgets the maps.

    The scores are averaged, each minibatch by its number of samples.
    """

    def __init__(self, anatomy: Anatomy, found: Registered) -> None:
        self._found = found
        self._backward = found.needs == "map_gradients"
        self._means = Means()
        self._samples = 0
        run = as_run(anatomy)
        self._watched = {g.name: sites(anatomy, g, found.where, run) for g in anatomy.prunable}
        self._sizes = {g.name: g.size for g in anatomy.prunable}
        self.unscored = {
            name: f"its pieces can't be seen as they are {found.where}"
            for name, seen in self._watched.items()
            if not seen
        }
        self._watch = Watch(
            anatomy,
            [s for seen in self._watched.values() for s in seen],
            self._show,
            keep=self._backward,
        )
        self._maps: list[tuple[Site, Tensor]] = []
        self._flat: set[str] = set()

    @property
    def scored(self) -> bool:
        """Whether there is any group to judge."""
        return any(self._watched.values())

    def watching(self, model: nn.Module, samples: int) -> AbstractContextManager[Any]:
        """Watch one forward pass of so many samples."""
        self._samples = samples
        self._maps.clear()
        return self._watch.over(model, samples)

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
        found = gradients(loss, [t for _, t in self._maps]) if self._maps else []
        for (site, tensor), gradient in zip(self._maps, found, strict=True):
            if gradient is None:
                for name in self._places(site):
                    self._means.miss(site.group, name, samples)
            else:
                self._count(site, tensor, gradient)
        self._maps.clear()

    @torch.no_grad()
    def _count(self, site: Site, *tensors: Tensor) -> None:
        if not all(bool(t.isfinite().all()) for t in tensors):
            message = (
                f"{site} holds NaN or infinite numbers on this data, so nothing can be told from "
                "it; repair the data or the weights"
            )
            raise ScoreError(message)
        views = [site.maps(as_real(t.detach()), self._samples) for t in tensors]
        for name, (shown, *rest) in zip(self._places(site), zip(*views, strict=True), strict=True):
            # The loss is the mean over samples; of each sample's own it is so many times less.
            values = self._found(shown, *(g * shown.shape[1] for g in rest))
            if values is NotImplemented:
                self._flat.add(site.group)
            else:
                self._means.add(site.group, name, site.side == "out", values, self._samples)

    def _places(self, site: Site) -> Iterator[str]:
        """Name the views of a site: the group may run through a tensor several times."""
        for i in range(times(site.axes[site.dim], site.group)):
            yield f"{site}, view {i}" if i else str(site)

    def rows(self) -> Mapping[str, list[Row]]:
        """Return the mean scores, and note the groups that were not met as they should be."""
        rows = self._means.rows(
            Place(name, where, site.side == "out", self._sizes[name], site.parameter)
            for name, seen in self._watched.items()
            for site in seen
            for where in self._places(site)
        )
        lost = in_all(torch.tensor([float(n in self._watch.lost) for n in self._watched]))
        for name, by in zip(self._watched, lost.tolist(), strict=True):
            if by:
                why = "another process met it in another way than when the model was inspected"
                self.unscored[name] = self._watch.lost.get(name, why)
                rows.pop(name, None)
            elif name not in rows:
                self.unscored.setdefault(name, self._why_not(name))
        return rows

    def _why_not(self, name: str) -> str:
        if name in self._flat:
            return f"'{self._found.name}' says nothing of feature maps that are no pictures"
        met = "no gradient of the loss reaches it" if self._backward else "it was not met"
        return f"{met} in any run, where its pieces can be seen as they are {self._found.where}"
