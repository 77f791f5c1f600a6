"""Methods that prune while a model trains, and those of papers as they were published."""

from tonsor.methods.gradual import Gradual
from tonsor.methods.needed import rounds_needed, steps_needed
from tonsor.methods.run import method_for, prune_while_training
from tonsor.methods.soft import Soft

__all__ = [
    "Gradual", "Soft", "method_for", "prune_while_training", "rounds_needed", "steps_needed",
]  # fmt: skip
