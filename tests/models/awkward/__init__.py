"""Small modules, each with one thing in it that breaks pruners."""

from . import autograd, operations, shapes, signatures, weights

CASES = [
    *autograd.CASES,
    *weights.CASES,
    *shapes.CASES,
    *signatures.CASES,
    *operations.CASES,
]
