"""Weights into models of the zoo; where they don't fit, what does not, and what would."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin

import torch
from torch import Tensor, nn

from tonsor.errors import WeightsError
from tonsor.zoo.registry import ZOO, build, entry
from tonsor.zoo.weights import read_weights

Shapes: TypeAlias = dict[str, tuple[int, ...]]

_SHOWN = 4


def load(
    name: str,
    weights: str | Path | None = None,
    *,
    classes: int | None = None,
    width: float = 1.0,
    **variant: Any,
) -> nn.Module:
    """Make a model of the zoo, read its weights, and set it to evaluation.

    The keywords are those of `build`, the files those of `read_weights`.

    >>> load("resnet20").training
    False
    """
    model = build(name, classes=classes, width=width, **variant)
    if weights is not None:
        fill(model, name, weights)
    return model.eval()


def fill(model: nn.Module, name: str, path: str | Path) -> None:
    """Copy the weights of a file into a model that was built under a name.

    Every tensor has to be there and to fit; only the counters of batch norm may be missing, which
    older files do not have.
    """
    found = read_weights(path)
    complaints = list(_complaints(_shapes(model.state_dict()), _shapes(found)))
    if complaints:
        fits = _fitting(name, found)
        way_out = f"it fits {fits}" if fits else "nothing in the zoo has these names and shapes"
        lines = [f"'{path}' does not fit this '{name}':", *complaints, way_out]
        raise WeightsError("\n  ".join(lines))
    model.load_state_dict(found, strict=False)  # strict would miss the counters


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {n: tuple(t.shape) for n, t in state.items() if not n.endswith("num_batches_tracked")}


def _complaints(wanted: Shapes, found: Shapes) -> Iterator[str]:
    missing = [f"{n} {wanted[n]}" for n in wanted if n not in found]
    unknown = [f"{n} {found[n]}" for n in found if n not in wanted]
    other = [
        f"{n} should be {wanted[n]} and is {found[n]}"
        for n in wanted
        if n in found and wanted[n] != found[n]
    ]
    for what, which in (("missing", missing), ("unknown", unknown), ("of another shape", other)):
        if which:
            more = f", and {len(which) - _SHOWN} more" if len(which) > _SHOWN else ""
            yield f"{what}: {', '.join(which[:_SHOWN])}{more}"


def _fitting(name: str, found: Mapping[str, Tensor]) -> str | None:
    """Describe the model of the zoo that has just these weights, near ones first."""
    shapes = _shapes(found)
    for other in (name, *(n for n in ZOO if n != name)):
        for variant in _forms(other):
            usual = _dry(other, variant)
            sizes = _sizes(usual, found)
            if sizes is not None and _shapes(_dry(other, variant | sizes).state_dict()) == shapes:
                words = [f"{k}={v!r}" for k, v in (sizes | variant).items()]
                return f"'{other}'" + (f" with {', '.join(words)}" if words else "")
    return None


def _forms(name: str) -> Iterable[dict[str, Any]]:
    """Go through the forms of a model that may have other tensors, the usual one first."""
    choices = {
        key: get_args(hint) if get_origin(hint) is Literal else (False, True)
        for key, hint in entry(name).variants.items()
        if hint is bool or get_origin(hint) is Literal
    }
    for values in product(*choices.values()):
        form = dict(zip(choices, values, strict=True))
        yield {key: value for key, value in form.items() if value != choices[key][0]}


def _dry(name: str, keywords: Mapping[str, Any]) -> nn.Module:
    with torch.device("meta"):
        return build(name, **keywords)


def _sizes(model: nn.Module, found: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Read the sizes off the first and the last tensors; None where these are not there."""
    state = dict(model.named_parameters())
    first, last = next(iter(state)), list(state)[-1]
    if first not in found or last not in found or found[first].dim() != 4:
        return None
    sizes: dict[str, Any] = {}
    if found[last].shape != state[last].shape:
        sizes["classes"] = found[last].shape[0]
    if found[first].shape[0] != state[first].shape[0]:
        sizes["width"] = found[first].shape[0] / state[first].shape[0]
    if found[first].shape[1] != state[first].shape[1]:
        sizes["channels"] = found[first].shape[1]
    return sizes
