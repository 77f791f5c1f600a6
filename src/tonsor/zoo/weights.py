"""Weights from files: safetensors, and state dicts of torch without any code in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tonsor.errors import WeightsError

# Where training scripts put the weights beside the epoch and the optimizer.
_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")
# What DataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file by their names in the model.

    The file is a safetensors file, or what `torch.save` made of a state dict, which may lie
    deeper under `state_dict` or `model` and have `module.` before its names. Nothing is unpickled
    but tensors and plain values, so no code in a file is ever run.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "net.pt"
    >>> torch.save({"epoch": 3, "state_dict": {"module.weight": torch.ones(2)}}, path)
    >>> read_weights(path)
    {'weight': tensor([1., 1.])}
    """
    with Path(path).open("rb") as file:
        head = file.read(9)
    pickled = head[:2] == b"PK" or head[:1] == b"\x80"
    if pickled and head[8:] != b"{":  # the header of safetensors, behind its length
        return _plain(_flat(_unpickled(path), path))
    try:
        with safe_open(path, framework="pt") as file:
            if "tonsor" in (file.metadata() or {}):
                message = (
                    f"'{path}' is a slim model with its plan, not weights of a whole one: "
                    "tonsor.load(path, model) makes it from the original model"
                )
                raise WeightsError(message)
            return _plain({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except SafetensorError as error:
        message = (
            f"'{path}' is neither a safetensors file nor one that torch.save has written, or it "
            f"is damaged: it begins with {head!r} ({error})"
        )
        raise WeightsError(message) from error


def _unpickled(path: str | Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            first = " ".join(str(error).split())[:200] or type(error).__name__
            message = f"'{path}' can't be read, it may be damaged: {first}"
        else:
            message = (
                f"'{path}' holds more than tensors: it asks for '{found[1]}', and to make that, "
                "code would have to run. If you trust the file, load it yourself and save "
                "its state dict alone."
            )
        raise WeightsError(message) from error


def _flat(content: Any, path: str | Path) -> Mapping[str, Tensor]:
    """Find the state dict in what a training script has saved."""
    while isinstance(content, Mapping):
        inner = next((k for k in _NESTED if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = content[inner]
    if not isinstance(content, Mapping) or not content:
        what = "nothing" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        message = f"'{path}' holds {what} where a state dict was expected"
        raise WeightsError(message)
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            message = (
                f"'{path}' holds no state dict: '{name}' in it is a {type(value).__name__}, not a "
                f"tensor. Looked for the weights under {', '.join(_NESTED)}, and at the top."
            )
            raise WeightsError(message)
    return content


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take away what wrappers put before every name."""
    plain = dict(weights)
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in plain)), None):
        if not plain:
            break
        plain = {name.removeprefix(prefix): tensor for name, tensor in plain.items()}
    return plain
