"""Models written out by hand, in the plain style that people write their own."""

from . import convnets, dense_prediction, language, mobile, vision_transformers, wiring

CASES = [
    *convnets.CASES,
    *mobile.CASES,
    *dense_prediction.CASES,
    *vision_transformers.CASES,
    *language.CASES,
    *wiring.CASES,
]
