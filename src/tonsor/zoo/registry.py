"""The models of the zoo by name: which there are, and how to make one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from inspect import signature
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn

from tonsor.errors import SelectionError
from tonsor.zoo.cifar_resnet import CifarResNet
from tonsor.zoo.convnet import ConvNet
from tonsor.zoo.imagenet_resnet import ImageNetResNet
from tonsor.zoo.vgg import Vgg


@dataclass(frozen=True, slots=True)
class Entry:
    """One model: its class, the arguments that its name stands for, and the side of its images."""

    kind: type[nn.Module]
    given: tuple[int, ...]
    side: int
    about: str

    @property
    def variants(self) -> Mapping[str, Any]:
        """The keywords that make other forms of it, each with its type."""
        hints = get_type_hints(self.kind.__init__)
        keywords = signature(self.kind).parameters.values()
        return {k.name: hints[k.name] for k in keywords if k.kind is k.KEYWORD_ONLY}


ZOO: dict[str, Entry] = {
    "convnet": Entry(ConvNet, (), 32, "three 5x5 convolutions: the ConvNet of SPP"),
    **{
        f"vgg{depth}": Entry(Vgg, (depth,), 32, f"VGG{depth} with batch norm for CIFAR")
        for depth in (16, 19)
    },
    **{
        f"resnet{depth}": Entry(CifarResNet, (depth,), 32, f"ResNet{depth} for CIFAR")
        for depth in (20, 32, 44, 56, 110)
    },
    **{
        f"resnet{depth}": Entry(ImageNetResNet, (depth,), 224, f"ResNet{depth} for ImageNet")
        for depth in (18, 34, 50)
    },
}


def names() -> tuple[str, ...]:
    """Name the models of the zoo.

    >>> names()[:3]
    ('convnet', 'vgg16', 'vgg19')
    """
    return tuple(ZOO)


def entry(name: str) -> Entry:
    """Return what is known of a model, or say which names are close."""
    found = ZOO.get(name)
    if found is not None:
        return found
    plain = name.lower().replace("-", "").replace("_", "").removeprefix("cifar10")
    close = get_close_matches(plain, ZOO, n=3, cutoff=0.7)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    message = f"the zoo has no model called '{name}'.{hint} It has {', '.join(ZOO)}."
    raise SelectionError(message)


def input_shape(name: str, **variant: Any) -> tuple[int, int, int]:
    """Say what one image for a model is like: channels, height, width.

    >>> input_shape("resnet50"), input_shape("resnet20", channels=1)
    ((3, 224, 224), (1, 32, 32))
    """
    found = entry(name)
    _check(name, found, variant)
    side = variant.get("size", found.side)
    return variant.get("channels", 3), side, side


def build(
    name: str, *, classes: int | None = None, width: float = 1.0, **variant: Any
) -> nn.Module:
    """Make a model of the zoo with random weights.

    `width` multiplies the number of channels everywhere. What else there is to choose depends
    on the model, and so does the usual number of classes: `shortcut` of the CIFAR ResNets, `bias`,
    `head` and `ending` of VGG, `size` and `init` of the ConvNet, `channels` of all images.

    >>> build("resnet20", classes=100, shortcut="B").linear.out_features
    100
    """
    found = entry(name)
    if classes is not None:
        variant["classes"] = classes
    variant["width"] = width
    _check(name, found, variant)
    return found.kind(*found.given, **variant)


def maker(name: str) -> Callable[..., nn.Module]:
    """Return the function that builds one model, which takes the keywords of `build`."""
    entry(name)
    return partial(build, name)


def _check(name: str, found: Entry, given: Mapping[str, Any]) -> None:
    """Raise unless this model has such keywords, and the values are some for them."""
    variants = found.variants
    for key, value in given.items():
        if key not in variants:
            close = get_close_matches(key, variants, n=1)
            hint = f" Did you mean {close[0]}=?" if close else ""
            message = f"'{name}' takes no '{key}'.{hint} It takes {', '.join(variants)}."
            raise SelectionError(message)
        right, wanted = _fits(value, variants[key])
        if not right:
            message = f"{key}= of '{name}' must be {wanted}, got {value!r}"
            raise SelectionError(message)


def _fits(value: Any, kind: Any) -> tuple[bool, str]:
    """Say whether a value is of a kind, and what would be."""
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return value in choices, " or ".join(map(repr, choices))
    if kind is bool:
        return isinstance(value, bool), "True or False"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float:
        return number and 0 < value < math.inf, "a number above 0"
    return number and isinstance(value, int) and value > 0, "a whole number above 0"
