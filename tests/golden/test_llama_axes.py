"""Grouped-query attention and rotary pairs, found in a Llama layer with nothing told."""

from __future__ import annotations

import pytest
import torch

from tonsor.axes.solve import has_rule, solve
from tonsor.axes.tree import axis_text
from tonsor.graph.trace import trace
from tonsor.types import Axis, Concat, Leaf, Product, Solution

ATTENTION = "model.layers.0.self_attn."
TREES = {
    "q_proj.weight[0]": "(kv:2 × rep:4) × (rot:4 ⊕ rot:4)",
    "k_proj.weight[0]": "kv:2 × (rot:4 ⊕ rot:4)",
    "v_proj.weight[0]": "kv:2 × d:8",
    "o_proj.weight[1]": "(kv:2 × rep:4) × d:8",
    "inv_freq[0]": "rot:4",
}


@pytest.fixture(scope="module")
def solution() -> Solution:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=8, num_key_value_heads=2, num_hidden_layers=1,
        intermediate_size=128, vocab_size=200, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 200, (2, 12))
    return solve(trace(model, {"input_ids": ids, "use_cache": False}, known=has_rule))


def axis_of(solution: Solution, place: str) -> Axis:
    tensor, _, dim = place.removesuffix("]").partition("[")
    prefix = "model.rotary_emb." if tensor == "inv_freq" else ATTENTION
    return solution.of(prefix + tensor)[int(dim)]


def leaf(axis: Axis) -> Leaf:
    assert isinstance(axis, Leaf)
    return axis


def product_of_two(axis: Axis) -> tuple[Axis, Axis]:
    assert isinstance(axis, Product)
    outer, inner = axis.factors
    return outer, inner


def names_by_place(solution: Solution) -> dict[str, str]:
    """Call the leaves kv, rep, rot and d after where they stand, whatever their own names."""
    kv, pair = product_of_two(axis_of(solution, "k_proj.weight[0]"))
    assert isinstance(pair, Concat)
    query_heads, _ = product_of_two(axis_of(solution, "q_proj.weight[0]"))
    _, rep = product_of_two(query_heads)
    _, d = product_of_two(axis_of(solution, "v_proj.weight[0]"))
    found = {"kv": kv, "rep": rep, "rot": pair.segments[0], "d": d}
    names = {leaf(axis).name: name for name, axis in found.items()}
    assert len(names) == 4, "two of the four are the same leaf"
    return names


@pytest.mark.parametrize("place", TREES)
def test_tree_of_a_llama_layer(solution: Solution, place: str) -> None:
    text = axis_text(axis_of(solution, place), names_by_place(solution))
    assert text == TREES[place]


def test_only_the_vocabulary_is_pinned(solution: Solution) -> None:
    names = names_by_place(solution)
    assert not names.keys() & solution.pins.keys()
