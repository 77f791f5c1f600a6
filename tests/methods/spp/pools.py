"""Pools of pieces for the tests, and scores to drive them by."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tonsor.methods.spp.chances import Chances
from tonsor.methods.spp.increment import Increment

SEED = st.integers(0, 2**31)
SETTINGS = st.fixed_dictionaries(
    {
        "alpha": st.sampled_from(["constant", "adaptive"]),
        "scores": st.sampled_from(["rank", "size"]),
        "history": st.sampled_from([0.0, 0.9]),
        "increment": st.builds(
            Increment, most=st.floats(0.02, 0.5), centre=st.floats(0.1, 0.6),
            shape=st.sampled_from(["exponential", "linear"]), recovery=st.booleans(),
        ),
    }
)  # fmt: skip


def whole(*sizes: int) -> dict[str, Tensor]:
    """Pools with all their pieces."""
    return {f"pool {i}": torch.ones(size, dtype=torch.bool) for i, size in enumerate(sizes)}


def made(sizes: list[int], ratio: float, **options: Any) -> Chances:
    there = whole(*sizes)
    options = {"increment": Increment(), **options}
    return Chances(dict.fromkeys(there, ratio), there, **options)


def noise(chances: Chances, generator: torch.Generator) -> list[Tensor]:
    return [torch.randn(pool.size, generator=generator) for pool in chances.pools]


def driven(chances: Chances, seed: int = 0, updates: int = 100_000) -> Chances:
    """Update by noise until all is over, or as often as told."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        if chances.over:
            break
        chances.update(noise(chances, generator))
    return chances
