"""How much each group matters, found by cutting one group at a time."""

from tonsor.sensitivity.judge import Judge, top_one
from tonsor.sensitivity.result import Reading, Sensitivity
from tonsor.sensitivity.run import FRACTIONS, sensitivity

__all__ = ["FRACTIONS", "Judge", "Reading", "Sensitivity", "sensitivity", "top_one"]
