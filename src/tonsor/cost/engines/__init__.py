"""What runs a model so that it can be timed; importing this fills the table of engines."""

from tonsor.cost.engines import exported, native

__all__ = ["exported", "native"]
