"""Scores as a noun: combining places, ties, notes, files."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis.extra.numpy as hn
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

import tonsor
from tests.criteria.nets import looked_at, pictures, small
from tonsor.criteria.rows import Row, combined
from tonsor.criteria.score import Scores, score
from tonsor.errors import ScoreError, SelectionError

ROWS = [Row(np.array([1.0, 3.0]), True, "a"), Row(np.array([10.0, 0.0]), False, "b"),
        Row(np.array([4.0, 6.0]), True, "c")]  # fmt: skip


@pytest.mark.parametrize(
    ("combine", "wanted"),
    [("mean", [5, 3]), ("sum", [15, 9]), ("max", [10, 6]), ("producer", [2.5, 4.5]),
     ("normalised", [(0.5 + 2 + 0.8) / 3, (1.5 + 0 + 1.2) / 3])],
)  # fmt: skip
def test_places_become_one(combine: tonsor.criteria.rows.Combine, wanted: list[float]) -> None:
    np.testing.assert_allclose(combined(ROWS, combine), wanted)


def test_without_makers_all_places_count() -> None:
    rows = [Row(r.values, False, r.where) for r in ROWS]
    np.testing.assert_allclose(combined(rows, "producer"), combined(rows, "mean"))


def test_a_place_of_zeros_is_not_divided_by() -> None:
    rows = [Row(np.zeros(2), True, "a"), Row(np.array([1.0, 3.0]), True, "b")]
    np.testing.assert_allclose(combined(rows, "normalised"), [0.25, 0.75])


def test_no_other_way_to_combine() -> None:
    with pytest.raises(SelectionError, match="'normalised', got 'median'"):
        score(looked_at(small()), "l1", combine="median")  # type: ignore[arg-type]


# ---------------------------------------------------------------- ties and notes


def made(**values: list[float]) -> Scores:
    return Scores({n: np.array(v) for n, v in values.items()}, "test")


def test_ties() -> None:
    scores = made(a=[1, 1, 1], b=[1, 1, 2, 3, 3], c=[1, 2], d=[5])
    assert scores.tied == {"a": 3}
    assert scores.ties == {"a": 3, "b": 4}
    notes = list(scores.notes)
    assert len(notes) == 2
    assert "all pieces of 'a'" in notes[0]
    assert "4 pieces of 'b'" in notes[1]
    assert not list(made(c=[1, 2], d=[5]).notes)


def test_what_was_not_scored_is_noted() -> None:
    scores = Scores({"a": np.array([1.0, 2])}, "apoz", {"b": "of a reason", "c": "of another"})
    (note,) = scores.notes
    assert "'b' and 1 other groups" in note
    assert "of a reason" in note
    assert note in str(scores)


def test_one_group_of_ties_is_a_note_and_all_are_an_error() -> None:
    last = nn.Linear(5, 2)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), last)
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.5)
    anatomy = tonsor.inspect(net, torch.randn(1, 3))
    with pytest.raises(ScoreError, match="every piece of every group"):
        score(anatomy, "l2")
    with torch.no_grad():
        last.weight[:, 0] = 2
    scores = score(anatomy, "l2")
    assert scores.tied == {"0.weight[0]": 4}
    assert any("0.weight[0]" in n for n in scores.notes)


# ---------------------------------------------------------------- files


@given(
    values=st.dictionaries(
        st.text(max_size=5),
        hn.arrays(np.float64, st.integers(1, 5), elements=st.floats(-1e300, 1e300)),
        max_size=3,
    ),
    unscored=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)
def test_there_and_back(values: dict[str, np.ndarray], unscored: dict[str, str]) -> None:
    scores = Scores(values, "l2", unscored)
    again = Scores.from_json(json.loads(json.dumps(scores.to_json())))
    assert again.by == "l2"
    assert again.unscored == unscored
    assert again.values.keys() == values.keys()
    assert all(np.array_equal(again[n], v) for n, v in values.items())


def test_a_file(tmp_path: Path) -> None:
    scores = score(looked_at(small()), "taylor_gate", batches=pictures(1))
    scores.save(tmp_path / "scores.json")
    again = Scores.load(tmp_path / "scores.json")
    assert str(again) == str(scores)
    assert again.by == "taylor_gate"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"by": "l1"}', '{"by": "l1", "values": [1]}',
     '{"by": "l1", "values": {"a": "x"}}', '{"by": "l1", "values": {"a": [[1.0]]}}',
     '{"by": "l1", "values": {"a": [NaN]}}', '{"by": "l1", "values": {"a": [null]}}',
     '{"by": "l1", "values": {"a": 3}}', '{"by": "l1", "values": {"a": [1]}, "unscored": 3}',
     '{"by": "l1", "values": {"a": [1, [2]]}}', '{"values": {"a": [1]}}', "\x00\xff"],
)  # fmt: skip
def test_what_is_no_file_of_scores(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores.json").write_text(text, "latin-1")
    with pytest.raises(ScoreError):
        Scores.load(tmp_path / "scores.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match=r"nothing\.json"):
        Scores.load(tmp_path / "nothing.json")
