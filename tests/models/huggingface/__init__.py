"""Tiny transformers models with random weights; transformers itself is imported at build."""

from . import decoders, encoders, two_sided, vision

CASES = [*encoders.CASES, *decoders.CASES, *two_sided.CASES, *vision.CASES]
