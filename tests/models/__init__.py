"""Every model case that tests and benchmarks run over."""

from . import awkward, hand_written, huggingface
from .case import Case

HAND_WRITTEN: list[Case] = hand_written.CASES
HUGGINGFACE: list[Case] = huggingface.CASES
AWKWARD: list[Case] = awkward.CASES
ALL: list[Case] = [*HAND_WRITTEN, *HUGGINGFACE, *AWKWARD]
