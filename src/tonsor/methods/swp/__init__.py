"""SWP, "Pruning filter in filter": learn which stripes of each filter are of use."""

from tonsor.methods.swp.lasso import StripeLasso
from tonsor.methods.swp.run import prune_stripes_while_training, stripe_method
from tonsor.methods.swp.skeleton import Skeleton
from tonsor.methods.swp.swp import FilterSkeleton

__all__ = [
    "FilterSkeleton", "Skeleton", "StripeLasso", "prune_stripes_while_training", "stripe_method",
]  # fmt: skip
