"""SPP, structured probabilistic pruning: pieces go by a chance that rises and falls."""

from tonsor.methods.spp.increment import Increment
from tonsor.methods.spp.run import prune_by_chance_while_training
from tonsor.methods.spp.spp import ByChance

__all__ = ["ByChance", "Increment", "prune_by_chance_while_training"]
