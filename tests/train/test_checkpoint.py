from __future__ import annotations

import json
import math
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tonsor.errors import CheckpointError
from tonsor.train.checkpoint import (
    checkpoints,
    load_checkpoint,
    read_state,
    save_checkpoint,
    write_state,
)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def state() -> dict[str, Any]:
    shared = torch.arange(6.0)
    return {
        "tensors": [torch.randn(3, 2), torch.zeros(0), torch.tensor(5), torch.ones(2).bfloat16()],
        "tied": {"a": shared, "b": shared, "view": shared[2:4], "turned": shared.view(2, 3).t()},
        "numbers": (1, 0.1 + 0.2, math.inf, math.nan, -0.0, True, None, 2**70),
        "deep": {0: {"momentum": torch.eye(2)}, "text": 'ü"\n'},
        "empty": [{}, [], ()],
    }


def test_a_state_reads_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    written = state()
    write_state(path, written)
    assert equal(read_state(path), written)


def test_the_newest_is_read_and_the_one_before_is_kept(tmp_path: Path) -> None:
    for step in (5, 20, 100):
        save_checkpoint(tmp_path, step, {"step": step})
    assert [p.name for p in checkpoints(tmp_path)] == [
        "checkpoint-000000020.safetensors",
        "checkpoint-000000100.safetensors",
    ]
    assert load_checkpoint(tmp_path, pytest.fail) == {"step": 100}


def flip_a_bit(path: Path, where: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 16
    path.write_bytes(bytes(data))


def cut_short(path: Path, where: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * where)])


@pytest.mark.parametrize("harm", [flip_a_bit, cut_short])
@pytest.mark.parametrize("where", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_a_damaged_one_is_put_aside_for_the_one_before(tmp_path: Path, harm, where) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1})
    newest = save_checkpoint(tmp_path, 2, {"step": 2, "w": torch.randn(100)})
    harm(newest, where)
    notes: list[str] = []
    assert load_checkpoint(tmp_path, notes.append) == {"step": 1}
    assert "is damaged" in notes[0]
    assert "checkpoint-000000002.damaged" in notes[0]
    assert (tmp_path / "checkpoint-000000002.damaged").exists()


def test_when_all_are_damaged_it_says_so(tmp_path: Path) -> None:
    cut_short(save_checkpoint(tmp_path, 1, {"step": 1}), 0.5)
    with pytest.raises(CheckpointError, match="all are damaged"):
        load_checkpoint(tmp_path, lambda _: None)


def test_a_full_disk_leaves_the_one_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a write beyond fails for real
    try:
        with pytest.raises(CheckpointError) as error:
            save_checkpoint(tmp_path, 2, {"w": torch.randn(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "could not be written" in str(error.value)
    assert "MiB are free" in str(error.value)
    assert load_checkpoint(tmp_path, pytest.fail) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-000000001.safetensors"]


def test_another_version_is_refused_and_stays(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"step": 1})
    metadata = {"tonsor_checkpoint": "99", "tree": json.dumps(None), "digest": ""}
    save_file({"w": torch.zeros(1)}, path, metadata)
    with pytest.raises(CheckpointError, match="version 99, and version 1 can be read"):
        load_checkpoint(tmp_path, pytest.fail)
    assert path.exists()


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-000000001.safetensors"
    save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no checkpoint of tonsor"):
        load_checkpoint(tmp_path, pytest.fail)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-000000001.safetensors"
    torch.save({"step": 1}, path)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path, lambda _: None)


def test_what_no_checkpoint_can_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"method.masks\[1\] is a set"):
        write_state(tmp_path / "x.safetensors", {"method": {"masks": [1, {2}]}})
