"""Parts of a model that cost the same: what they are called with, and what they are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.errors import SelectionError
from tonsor.graph.clone import clone
from tonsor.graph.inputs import Inputs, as_inputs

_PLAIN = (int, float, str, bool, type(None))
_PLACES = ("training", "layer_idx", "layer_id", "layer_index")  # where a layer stands is no cost


def signature(modules: Iterable[nn.Module], args: Any) -> str:
    """Name what modules cost on such inputs; equal ones do the same work on tensors alike.

    It tells apart classes, settings, the shapes and types of tensors, and where they are, but
    not their values.

    >>> relu, x = torch.nn.ReLU(), torch.zeros(1, 8)
    >>> signature([relu], x) == signature([torch.nn.ReLU()], x + 1)
    True
    """
    modules = list(modules)
    lines = [line for i, module in enumerate(modules) for line in _module_lines(i, module)]
    lines += [f"input {name}: {_tensor_text(t)}" for name, t in as_inputs(args).tensors()]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:20]
    return f"{'+'.join(type(m).__name__ for m in modules)}-{digest}"


def _module_lines(number: int, whole: nn.Module) -> Iterator[str]:
    for path, module in whole.named_modules():
        settings = {
            k: v
            for k, v in vars(module).items()
            if _is_plain(v) and not k.startswith("_") and k not in _PLACES
        }
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        yield f"{number} {path}: {kind} {sorted(settings.items())}"
    for name, tensor in [*whole.named_parameters(), *whole.named_buffers()]:
        yield f"{number} {name}: {_tensor_text(tensor)}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(v) for v in value)
    return isinstance(value, _PLAIN)


def _tensor_text(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.stride()} {tensor.dtype} {tensor.device}"


@torch.no_grad()
def capture(model: nn.Module, inputs: Any, modules: Sequence[str]) -> dict[str, Inputs]:
    """Run the model once in eval mode, and keep what each of these modules is called with.

    Of a module that is called more than once it is the first call. Caches of keys and values are
    switched off, or a layer that is timed alone would fill them further with every run.
    """
    found: dict[str, Inputs] = {}
    known = dict(model.named_modules())
    unknown = [name for name in modules if name not in known]
    if unknown:
        message = f"the model has no module called '{unknown[0]}'"
        raise SelectionError(message)
    copy = clone(model, lambda _, t: t if isinstance(t, nn.Parameter) else t.detach().clone())
    inside = dict(copy.eval().named_modules())
    for module in inside.values():
        config = getattr(module, "config", None)
        if getattr(config, "use_cache", False) is True:
            setattr(config, "use_cache", False)  # noqa: B010  of a class that is not known here

    def keep(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name not in found:
            found[name] = Inputs(*args, **kwargs).map(lambda t: t.detach().clone())

    with ExitStack() as stack:
        for name in modules:
            hook = inside[name].register_forward_pre_hook(partial(keep, name), with_kwargs=True)
            stack.callback(hook.remove)
        as_inputs(inputs).call(copy)
    missed = [name for name in modules if name not in found]
    if missed:
        message = f"'{missed[0]}' is never called on this input, so there is nothing to time"
        raise SelectionError(message)
    return found
