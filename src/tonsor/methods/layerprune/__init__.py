"""LayerPrune: whole layers and residual blocks go (Elkerdawy et al., ACCV 2020).

>>> from tonsor.methods.layerprune import ARCHITECTURES, published_network
>>> ARCHITECTURES["LayerPrune-5"].layers_gone
(11, 12, 13, 14, 15)
>>> sum(p.numel() for p in published_network("LayerPrune-5").parameters())
8282532

`prune_iteratively` removes blocks one by one, training in between. `architecture_plan` cuts a
trained VGG19 to one of the published networks, and `table3` counts them all.
"""

from tonsor.methods.layerprune.architectures import (
    ARCHITECTURES,
    Architecture,
    architecture_plan,
    find_architecture,
    published_network,
)
from tonsor.methods.layerprune.iterative import Step, prune_iteratively
from tonsor.methods.layerprune.table import NOTES, Row, Table3, table3

__all__ = [
    "ARCHITECTURES", "NOTES", "Architecture", "Row", "Step", "Table3", "architecture_plan",
    "find_architecture", "prune_iteratively", "published_network", "table3",
]  # fmt: skip
