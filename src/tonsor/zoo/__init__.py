"""The networks that papers on pruning compare on, by name.

>>> from tonsor import zoo
>>> net = zoo.build("resnet56", classes=100, width=0.5)
>>> zoo.input_shape("resnet56")
(3, 32, 32)

Their counts of parameters and multiply-accumulates are those of the papers, to the unit.
`zoo.load("resnet20", "weights.safetensors")` reads weights, `zoo.names()` says what there is.
"""

from tonsor.zoo.loading import load
from tonsor.zoo.registry import build, input_shape, names
from tonsor.zoo.weights import read_weights

__all__ = ["build", "input_shape", "load", "names", "read_weights"]
