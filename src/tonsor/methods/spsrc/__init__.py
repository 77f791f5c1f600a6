"""SPSRC: norms of convolutions written as matrices, at hand-made ratios (Sun and Shi, WACV 2024).

>>> import torch, tonsor
>>> from tonsor import zoo
>>> from tonsor.methods.spsrc import spsrc_plan
>>> anatomy = tonsor.inspect(zoo.build("resnet56"), torch.randn(1, 3, 32, 32))
>>> plan = spsrc_plan(anatomy, "resnet56-2", by="l1")
>>> anatomy.cost.params(plan.counts)
465078

The scores are those of the criteria `spectral`, `nuclear` and `frobenius`, or any other. The
retraining that belongs to a configuration is `recipe_for("resnet56-2")`.
"""

from tonsor.methods.spsrc.configurations import (
    CONFIGURATIONS,
    Configuration,
    find_configuration,
    published_model,
    recipe_for,
)
from tonsor.methods.spsrc.figures import (
    LayerNorms,
    Structures,
    norm_figure,
    structure_data,
    threshold_plan,
)
from tonsor.methods.spsrc.make import spsrc_plan
from tonsor.methods.spsrc.own import numbered
from tonsor.methods.spsrc.table import NOTES, PUBLISHED, Published, Row, Table1, table1

__all__ = [
    "CONFIGURATIONS", "NOTES", "PUBLISHED", "Configuration", "LayerNorms", "Published", "Row",
    "Structures", "Table1", "find_configuration", "norm_figure", "numbered", "published_model",
    "recipe_for", "spsrc_plan", "structure_data", "table1", "threshold_plan",
]  # fmt: skip
