"""Checkpoints: whole or not there, checked when read, and never a pickle.

A checkpoint is one safetensors file. The tree of dicts, lists and numbers around the tensors is
JSON in its metadata, beside a digest of everything. It is written under another name, forced to
the disk, and then renamed; the one before is kept until the next is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tonsor.errors import CheckpointError
from tonsor.files import replacing
from tonsor.train.tree import flatten, unflatten

VERSION = "1"
KEPT = 2


def save_checkpoint(folder: str | Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state after so many steps, and only then remove all but the one before it."""
    folder = Path(folder)
    path = folder / f"checkpoint-{step:09d}.safetensors"
    write_state(path, state)
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: str | Path, note: Callable[[str], None]) -> dict[str, Any] | None:
    """Read the newest checkpoint that is sound, or return None where there never was one.

    A damaged one is put aside, told to `note`, and the one before is read.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            return read_state(path)
        except _DamagedError as error:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            note(f"{error}; it is now '{aside.name}', and the checkpoint before it is used")
    if found:
        message = (
            f"none of the {len(found)} checkpoints in '{folder}' can be read; all are damaged. "
            "Begin again in another folder."
        )
        raise CheckpointError(message)
    return None


def checkpoints(folder: str | Path) -> list[Path]:
    """List the checkpoints in a folder, the newest last."""
    return sorted(Path(folder).glob("checkpoint-*.safetensors"))


def write_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write a tree of plain values and tensors as one file, whole or not at all."""
    path = Path(path)
    tree, tensors = flatten(state)
    text = json.dumps(tree, separators=(",", ":"))
    metadata = {"tonsor_checkpoint": VERSION, "tree": text, "digest": _digest(text, tensors)}
    try:
        with replacing(path) as part:
            save_file(tensors, part, metadata)
            _force(part)
        _force(path.parent)
    except (OSError, SafetensorError) as error:
        message = (
            f"'{path}' could not be written ({error}); {_space(path.parent)}. "
            "The checkpoint before it is as it was: make room and go on with resume=True."
        )
        raise CheckpointError(message) from error


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a tree that `write_state` wrote, and compare its digest."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        message = f"'{path}' is damaged ({error})"
        raise _DamagedError(message) from error
    version = metadata.get("tonsor_checkpoint")
    if version is None:
        message = f"'{path}' is no checkpoint of tonsor, but another safetensors file"
        raise CheckpointError(message)
    if version != VERSION:
        message = (
            f"'{path}' is a checkpoint of version {version}, and version {VERSION} can be read; "
            "go on with the tonsor that wrote it"
        )
        raise CheckpointError(message)
    text = metadata.get("tree", "")
    if metadata.get("digest") != _digest(text, tensors):
        message = f"'{path}' is damaged (its digest differs)"
        raise _DamagedError(message)
    return unflatten(json.loads(text), tensors)


class _DamagedError(CheckpointError):
    """The file is not what was written."""


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tensors[name].dtype}{tuple(tensors[name].shape)}".encode())
        digest.update(bytes_of(tensors[name]))
    return digest.hexdigest()


def digest_of(named: Iterable[tuple[str, Tensor]]) -> str:
    """Return a short digest of the names and values of tensors, to tell them apart later."""
    digest = hashlib.sha256()
    for name, tensor in named:
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(bytes_of(tensor.detach().cpu()))
    return digest.hexdigest()[:16]


def bytes_of(tensor: Tensor) -> memoryview:
    """Look at a tensor on the CPU as bytes, whatever its dtype."""
    flat: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def _force(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _space(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB are free there"
    except OSError:
        return "the folder can't be reached"
