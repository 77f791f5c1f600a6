"""Small sets whose images can be told apart, and writers of the layouts that are read."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tonsor.train.data import Memory

PIXELS = 3072


def numbered(
    count: int, shape: tuple[int, int, int] = (1, 4, 4), classes: int = 3, seed: int = 0
) -> Memory:
    """Random images; the label and the first pixels together tell which one it is."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    images[:, 0, 0, 0] = torch.arange(count) // 256
    images[:, 0, 0, 1] = torch.arange(count) % 256
    return Memory(images, torch.arange(count) % classes, tuple(map(str, range(classes))))


def which(images: torch.Tensor) -> list[int]:
    """Which images these are, if nothing but a multiplication by 1/255 has happened to them."""
    first = (images[:, 0, 0, :2] * 255).round().long()
    return (first[:, 0] * 256 + first[:, 1]).tolist()


def records(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of CIFAR pixels, and labels among which is every class."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (count, PIXELS), dtype=np.uint8)
    return rows, (np.arange(count) % classes).astype(np.uint8)


def write_binary(path: Path, rows: np.ndarray, *labels: np.ndarray) -> None:
    np.concatenate([*(part[:, None] for part in labels), rows], 1).astype(np.uint8).tofile(path)


def cifar10_binary(folder: Path, per_file: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """A small CIFAR-10 in the binary layout, and all its training images."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [records(per_file, 10, seed) for seed in range(6)]
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    for part, name in zip(parts, names, strict=True):
        write_binary(folder / f"{name}.bin", *part)
    return np.concatenate([p[0] for p in parts[:5]]), np.concatenate([p[1] for p in parts[:5]])


def write_pickle(path: Path, value: Any, protocol: int = 2) -> None:
    path.write_bytes(pickle.dumps(value, protocol))


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    raw = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
