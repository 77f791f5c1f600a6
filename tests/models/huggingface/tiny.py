"""How a tiny, random transformers model becomes a case; nothing is ever downloaded."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..case import Case, Cut, case, image, tokens

# Widths, heads and depth that every text model shares; "hidden" is what most of them call it.
VOCAB = 53
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENCODER = {**TEXT, "num_labels": 3}
VISION = {
    "image_size": 20,
    "patch_size": 5,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_labels": 11,
}


def tiny(
    name: str,
    model: str,
    config: dict[str, Any],
    inputs: Callable[[], dict[str, Any]],
    *,
    family: str,
    cut: Cut = "free",
    note: str = "",
) -> Case:
    """A case for the transformers class called `model`, built from scratch out of `config`."""

    def make() -> nn.Module:
        import transformers

        chosen = getattr(transformers, model)
        return chosen(chosen.config_class(**config))

    return case(name, make, tuple, inputs, family=family, cut=cut, note=note)


def ids(**more: Any) -> Callable[[], dict[str, Any]]:
    """Keyword arguments for a text model: 7 token ids, and whatever else is fixed."""
    return lambda: {"input_ids": tokens(7, VOCAB), **more}


def ids_and_mask() -> dict[str, Tensor]:
    """Token ids whose second sequence is two tokens shorter."""
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": tokens(7, VOCAB), "attention_mask": mask}


def ids_both_sides() -> dict[str, Any]:
    """Token ids for an encoder and for its decoder."""
    return {
        "input_ids": tokens(9, VOCAB),
        "decoder_input_ids": tokens(7, VOCAB),
        "use_cache": False,
    }


def pixels(size: int = 20) -> Callable[[], dict[str, Any]]:
    """Keyword arguments for an image model."""
    return lambda: {"pixel_values": image(size)}
