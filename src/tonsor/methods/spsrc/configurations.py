"""How much SPSRC removes of each convolution: the published configurations, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.errors import PlanError, SelectionError
from tonsor.methods.spsrc.own import group_of, makers, numbered
from tonsor.train.recipe import Recipe
from tonsor.train.recipes import named
from tonsor.types import Conv
from tonsor.zoo.registry import build


@dataclass(frozen=True, slots=True)
class Configuration:
    """Which convolutions of a model lose how many filters, as published.

    Convolutions have numbers, from 1 in the order of the model; those of shortcuts have none.
    `removed` is a fraction below 1, or a count, for each that is cut. `skipped` are those that
    the authors found too sensitive. `variant` is the form of the zoo's model that they use.
    """

    name: str
    model: str
    convolutions: int
    removed: Mapping[int, float]
    skipped: tuple[int, ...]
    recipe: str
    variant: Mapping[str, Any] = field(default_factory=dict)

    def kept(self, number: int, size: int) -> int:
        """Return how many of `size` filters stay of a convolution."""
        removed = self.removed.get(number, 0.0)
        return size - int(removed) if removed >= 1 else int(size * (1 - removed))

    def ratios(self, anatomy: Anatomy) -> dict[str, int]:
        """Return how many filters to keep of each convolution that is cut, by its name.

        Raises `PlanError` where the model is not of the form that the numbers were made for; it
        may be narrower or wider.
        """
        convs = numbered(anatomy)
        if len(convs) != self.convolutions:
            message = (
                f"'{self.name}' is for {self.model}, which has {self.convolutions} convolutions "
                f"without its shortcuts; this model has {len(convs)}"
            )
            raise PlanError(message)
        return {convs[n - 1].name: self._kept_of(n, convs[n - 1], anatomy) for n in self.removed}

    def _kept_of(self, number: int, conv: Conv, anatomy: Anatomy) -> int:
        where = f"'{self.name}' cuts convolution {number}, '{conv.name}'"
        group = anatomy.by_name.get(group_of(conv))
        if group is None or not group.prunable:
            why = str(group.pins[0]) if group else "its outputs are no channels of their own"
            message = f"{where}, which can't be cut in this model: {why}"
            raise PlanError(message)
        sharing = makers(anatomy, group.name)
        if len(sharing) > 1:
            message = (
                f"{where}, whose channels belong to {len(sharing)} convolutions in this model; in "
                f"{self.model} they are its own"
            )
            raise PlanError(message)
        kept = self.kept(number, group.size)
        if kept < 1:
            message = f"{where}, and would leave none of its {group.size} filters"
            raise PlanError(message)
        return kept


def find_configuration(name: str) -> Configuration:
    """Return the configuration of this name, or say which names are close."""
    found = CONFIGURATIONS.get(name)
    if found is None:
        close = get_close_matches(str(name), CONFIGURATIONS, n=2)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has {_names()}"
        message = f"SPSRC has no configuration called '{name}'; {hint}"
        raise SelectionError(message)
    return found


def recipe_for(name: str) -> Recipe:
    """Return the recipe by which a network of this configuration is retrained.

    >>> recipe_for("resnet110-1").epochs, recipe_for("resnet110-2").epochs
    (50, 80)
    """
    return named(find_configuration(name).recipe)


def published_model(name: str, **variant: Any) -> nn.Module:
    """Build the network of a configuration in the authors' form, with random weights.

    What differs from the usual form changes what counters see: the biases before VGG's norms, and
    the last pool of the CIFAR ResNets, which is one of 8x8 here. `variant` is passed to the zoo.
    """
    found = find_configuration(name)
    model = build(found.model, **{**found.variant, **variant})
    if "shortcut" in found.variant:
        model.pool = nn.AvgPool2d(8)
    return model


def _names() -> str:
    return ", ".join(CONFIGURATIONS)


def _vgg16(number: int, filters: int) -> Configuration:
    cut = {1: 32, **dict.fromkeys(range(8, 14), filters)}
    skipped = tuple(n for n in range(1, 14) if n not in cut)
    return Configuration(
        f"vgg16-{number}", "vgg16", 13, MappingProxyType(cut), skipped, "spsrc-finetune",
        MappingProxyType({"bias": True}),
    )  # fmt: skip


def _resnet(
    model: str,
    number: int,
    blocks: Sequence[int],
    fractions: Sequence[float],
    skipped: tuple[int, ...],
    recipe: str = "spsrc-finetune",
) -> Configuration:
    """Cut the first convolution of each block: 1 is the stem, and block i begins with 2i."""
    each = [f for f, count in zip(fractions, blocks, strict=True) for _ in range(count)]
    cut = {2 * i: f for i, f in enumerate(each, 1) if f and 2 * i not in skipped}
    variant = {} if recipe == "spsrc-imagenet" else {"shortcut": "A-mean"}
    return Configuration(
        f"{model}-{number}", model, 1 + 2 * len(each), MappingProxyType(cut), skipped, recipe,
        MappingProxyType(variant),
    )  # fmt: skip


_SKIP_56 = (16, 18, 20, 34, 38, 54)
_SKIP_34 = (2, 8, 14, 16, 26, 28, 30, 32)
_SMALL, _MIDDLE, _LARGE = (9, 9, 9), (18, 18, 18), (3, 4, 6, 3)

CONFIGURATIONS: dict[str, Configuration] = {
    c.name: c
    for c in (
        _vgg16(1, 256),
        _vgg16(2, 384),
        _vgg16(3, 448),
        _resnet("resnet56", 1, _SMALL, (0.6, 0.3, 0.1), (16, 20, 38, 54)),
        _resnet("resnet56", 2, _SMALL, (0.6, 0.4, 0.6), _SKIP_56),
        _resnet("resnet56", 3, _SMALL, (0.8, 0.8, 0.8), _SKIP_56),
        _resnet("resnet110", 1, _MIDDLE, (0.5, 0.4, 0.3), (36, 38, 74), "spsrc-finetune-short"),
        _resnet("resnet110", 2, _MIDDLE, (0.7, 0.6, 0.4), (36, 38, 74)),
        _resnet("resnet34", 1, _LARGE, (0.5, 0.6, 0.4, 0.0), _SKIP_34, "spsrc-imagenet"),
        _resnet("resnet34", 2, _LARGE, (0.8, 0.8, 0.7, 0.3), _SKIP_34, "spsrc-imagenet"),
    )
}
