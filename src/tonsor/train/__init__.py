"""Training a pruned model back to accuracy, and methods that prune while training."""

from tonsor.train.calibrate import calibrate
from tonsor.train.data import Batches, open_data, split
from tonsor.train.distill import distillation
from tonsor.train.ema import Ema
from tonsor.train.evaluate import Evaluation, evaluate
from tonsor.train.loop import fit
from tonsor.train.method import Method
from tonsor.train.recipe_file import read_recipe, write_recipe
from tonsor.train.recipes import RECIPES, Recipe
from tonsor.train.result import Result

__all__ = [
    "RECIPES", "Batches", "Ema", "Evaluation", "Method", "Recipe", "Result", "calibrate",
    "distillation", "evaluate", "fit", "open_data", "read_recipe", "split", "write_recipe",
]  # fmt: skip
