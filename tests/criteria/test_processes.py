"""Two processes, each with its share of the minibatches, score as one that has all of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.criteria.run import CRITERIA, everything
from tests.train.test_processes import TWO, to_the_end

Found = dict[str, Any]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What two processes have found."""
    folder = tmp_path_factory.mktemp("scores")
    to_the_end([*TWO[:-1], "tests.criteria.run"], folder)
    return [json.loads((folder / f"{rank}.json").read_text("utf-8")) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone() -> Found:
    """What one process finds that has all minibatches."""
    return everything(0, 1)


def same(a: Found, b: Found) -> None:
    assert a["values"].keys() == b["values"].keys()
    assert a["unscored"].keys() == b["unscored"].keys()
    for name, row in a["values"].items():
        np.testing.assert_allclose(row, b["values"][name], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("by", CRITERIA)
def test_together_as_alone(both: list[Found], alone: Found, by: str) -> None:
    assert both[0][by] == both[1][by]  # to the last bit, or they would cut differently
    same(both[0][by], alone[by])


def test_one_of_them_may_have_nothing(both: list[Found], alone: Found) -> None:
    assert both[0]["few"] == both[1]["few"]
    same(both[0]["few"], alone["few"])


@pytest.mark.parametrize("by", ["mean_map", "taylor_gate", "taylor_weight", "fisher"])
@pytest.mark.parametrize("which", ["apart", "one"])
def test_what_only_one_of_them_meets(both: list[Found], alone: Found, by: str, which: str) -> None:
    found = both[0][f"{which} {by}"]
    assert found == both[1][f"{which} {by}"]
    same(found, alone[f"{which} {by}"])
    met = {"a.0.weight[0]", "b.0.weight[0]"} if which == "apart" else {"a.0.weight[0]"}
    assert found["values"].keys() == met


def test_what_went_another_way_in_one_of_them_is_scored_in_none(both: list[Found]) -> None:
    for found in both:
        assert found["lost"]["values"].keys() == {"b.0.weight[0]"}
    said = {found["lost"]["unscored"]["a.0.weight[0]"][:20] for found in both}
    assert len(said) == 2  # one knows how, the other that it was another


def test_if_none_has_anything_all_say_so(both: list[Found], alone: Found) -> None:
    assert {f["empty"][:20] for f in (*both, alone)} == {"batches is empty, so"}


def test_if_one_fails_none_waits_for_it(both: list[Found]) -> None:
    assert "another process" in both[0]["failing"]
    assert "the loss is nan" in both[1]["failing"]
