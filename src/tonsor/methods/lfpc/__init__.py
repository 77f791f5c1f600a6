"""LFPC, learned criteria: which criterion prunes a layer, and how far, is learned by validation."""

from tonsor.methods.lfpc.lfpc import LearnedCriteria
from tonsor.methods.lfpc.run import prune_by_learned_criteria, search_criteria
from tonsor.methods.lfpc.search import Search

__all__ = ["LearnedCriteria", "Search", "prune_by_learned_criteria", "search_criteria"]
