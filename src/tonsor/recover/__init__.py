"""Making up for what a cut took, without labels and without training."""

from tonsor.recover.compensate import compensate
from tonsor.recover.distance import Distance
from tonsor.recover.recalibrate import recalibrate
from tonsor.recover.recover import recover
from tonsor.recover.results import Recalibrated, Recovered, Recovery

__all__ = [
    "Distance", "Recalibrated", "Recovered", "Recovery", "compensate", "recalibrate", "recover",
]  # fmt: skip
