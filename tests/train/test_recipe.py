from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonsor.errors import RecipeError
from tonsor.train import RECIPES, Recipe, read_recipe, write_recipe
from tonsor.train.recipes import about, named
from tonsor.train.schedule import rate


@pytest.mark.parametrize("name", RECIPES)
def test_a_written_recipe_reads_back_equal(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    write_recipe(path, RECIPES[name], {"model": 'a "quoted" \x7f name', "images": [1, 2]})
    assert read_recipe(path) == RECIPES[name]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_where_it_comes_from(name: str) -> None:
    said = about(name)
    assert any(word in said for word in ("Read in the code", "Stated", "Our reading"))
    assert RECIPES[name].name == name


@pytest.mark.parametrize("system", ["spsrc", "spp", "layerprune", "lfpc", "swp"])
@pytest.mark.parametrize("kind", ["base", "finetune", "scratch"])
def test_each_system_has_its_three_recipes(system: str, kind: str) -> None:
    assert f"{system}-{kind}" in RECIPES


floats = st.floats(1e-300, 1e300)


@given(
    lr=floats,
    weight_decay=floats,
    name=st.text(),
    seed=st.integers(0, 2**62 - 1),
    pairs=st.lists(st.tuples(st.floats(0, 1e6), floats), max_size=4),
    scales=st.lists(st.tuples(st.text(), floats, floats), max_size=3),
)
def test_any_recipe_reads_back_equal(tmp_path_factory, pairs, scales, **rest) -> None:
    recipe = Recipe(steps=tuple(sorted(pairs)), scales=tuple(scales), **rest)
    path = tmp_path_factory.mktemp("recipe") / "run.toml"
    write_recipe(path, recipe)
    assert read_recipe(path) == recipe


def test_a_file_can_start_from_a_named_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "spsrc-finetune"\nepochs = 10\nlr = 1\nsteps = [[5, 0.5]]\n')
    recipe = read_recipe(path)
    assert (recipe.epochs, recipe.lr, recipe.steps) == (10, 1.0, ((5.0, 0.5),))
    assert recipe.weight_decay == RECIPES["spsrc-finetune"].weight_decay


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"lr": "0.1"}, "recipe.lr must be a number, got '0.1'"),
        ({"lr": float("nan")}, "recipe.lr must be above 0"),
        ({"batch": 0}, "recipe.batch must be at least 1, got 0"),
        ({"batch": True}, "recipe.batch must be a whole number"),
        ({"epochs": 1.5}, "recipe.epochs must be a whole number"),
        ({"schedule": "exp"}, "one of 'step', 'cosine', 'triangular'"),
        ({"steps": ((3, 0.1), (2, 0.1))}, "in the order of their epochs"),
        ({"steps": ((3,),)}, "rows of (float, float)"),
        ({"steps": ((3, 0.1),), "schedule": "cosine"}, "no meaning for schedule='cosine'"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs"),
        ({"warmup": 200.0}, "longer than the 160 epochs"),
        ({"ema": 1.0}, "at least 0 and below 1"),
    ],
)
def test_a_wrong_field_is_named(change: dict, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe().but(**change)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr = ", "is not a TOML file"),
        ("base = 'spsrc-finetun'", "did you mean 'spsrc-finetune'"),
        ("[recipe]\nlr = -1", "recipe.lr must be above 0"),
        ("recipe = 'swp'", "must be a table"),
    ],
)
def test_a_wrong_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        read_recipe(path)
    assert said in str(error.value)
    assert "run.toml" in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can't read the recipe"):
        read_recipe(tmp_path / "none.toml")


def test_recipes_can_be_compared() -> None:
    assert Recipe().differs(Recipe(lr=1.0, seed=1)) == {"lr": (0.1, 1.0), "seed": (0, 1)}


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(RecipeError, match="there are: fair-finetune, gbn"):
        named("zzz")


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().lr = 1.0  # pyright: ignore[reportAttributeAccessIssue]


# ---------------------------------------------------------------- schedules


def rates(recipe: Recipe, steps: int = 10) -> list[float]:
    return [rate(recipe, step, steps) for step in range(recipe.epochs * steps)]


@pytest.mark.parametrize(
    ("name", "by_epoch"),
    [
        ("spsrc-base", {0: 0.1, 59: 0.1, 60: 0.02, 120: 0.004, 160: 0.0008, 199: 0.0008}),
        ("spsrc-finetune", {0: 1e-3, 20: 1e-4, 40: 1e-5, 60: 2e-6, 79: 2e-6}),
        ("layerprune-finetune", {0: 1e-3, 10: 1e-4, 20: 1e-5, 29: 1e-5}),
        ("lfpc-resnet110-base", {0: 0.01, 1: 0.1, 60: 0.02}),
        ("swp-train", {79: 0.1, 80: 0.01, 120: 0.001}),
        ("spp-base", {119: 1e-3, 120: 1e-4, 130: 1e-5}),
    ],
)
def test_the_papers_rates(name: str, by_epoch: dict[int, float]) -> None:
    for epoch, wanted in by_epoch.items():
        assert rate(RECIPES[name], epoch * 7, 7) == pytest.approx(wanted)


def test_a_step_falls_on_the_first_step_of_its_epoch() -> None:
    recipe = Recipe(epochs=3, lr=1.0, steps=((1, 0.5),))
    assert rates(recipe, 4) == [1.0] * 4 + [0.5] * 8


def test_a_cosine_goes_from_the_rate_to_its_end() -> None:
    found = rates(Recipe(epochs=4, lr=1.0, lr_end=0.2, schedule="cosine"))
    assert found[0] == 1.0
    assert found[20] == pytest.approx(0.6)
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.2, abs=0.01)


def test_a_triangle_has_its_peak_in_the_middle() -> None:
    found = rates(RECIPES["gbn-finetune"], 10)
    assert found[0] == pytest.approx(1e-3)
    assert max(found) == found[200] == pytest.approx(1e-2)
    assert found[100] == pytest.approx(found[300])


def test_warm_up_is_linear_and_never_zero() -> None:
    found = rates(Recipe(epochs=4, lr=1.0, schedule="cosine", warmup=1), 4)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[4] == pytest.approx(1.0)
