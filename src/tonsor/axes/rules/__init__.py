"""One rule for each operator, in files by family; importing this fills the table."""

from tonsor.axes.rules import (
    attention,
    conv,
    create,
    index,
    matmul,
    norm,
    recurrent,
    reduce,
    shape,
    spatial,
)
from tonsor.axes.rules.pointwise import pointwise

__all__ = [
    "attention", "conv", "create", "index", "matmul", "norm", "pointwise", "recurrent",
    "reduce", "shape", "spatial",
]  # fmt: skip
