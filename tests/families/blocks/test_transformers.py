"""Layers of transformers, with their numbers and caches, and what they export to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import tonsor
from tests.models.huggingface.decoders import GPT2, GROUPED
from tests.models.huggingface.tiny import ENCODER, VISION
from tonsor.errors import ProofError
from tonsor.families.blocks.find import Level
from tonsor.select.drop import drop_plan, with_numbers_that_hold

from .check import found, going, ready, same, without, zeroed
from .odd import Block

transformers = pytest.importorskip("transformers")

DEEP = {"num_hidden_layers": 4}
IDS = torch.tensor([[5, 17, 9, 30, 22, 11, 4], [8, 8, 41, 12, 6, 19, 50]])


def build(name: str, config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    return ready(kind(kind.config_class(**config)))


def llama() -> tuple[Any, tonsor.Inputs]:
    model = build("LlamaForCausalLM", {**GROUPED, **DEEP})
    return model, tonsor.Inputs(input_ids=IDS, use_cache=False)


def gpt2(**more: Any) -> tuple[Any, tonsor.Inputs]:
    model = build("GPT2LMHeadModel", {**GPT2, "n_layer": 4, **more})
    return model, tonsor.Inputs(input_ids=IDS, use_cache=False)


def bert() -> tuple[Any, tonsor.Inputs]:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    return build("BertModel", {**ENCODER, **DEEP}), tonsor.Inputs(
        input_ids=IDS, attention_mask=mask
    )


def vit() -> tuple[Any, tonsor.Inputs]:
    x = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    return build("ViTForImageClassification", {**VISION, **DEEP}), tonsor.Inputs(x)


def convnext() -> tuple[Any, tonsor.Inputs]:
    config = {"hidden_sizes": [6, 8, 10], "depths": [2, 3, 1], "num_stages": 3, "num_labels": 5}
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return build("ConvNextForImageClassification", config), tonsor.Inputs(x)


MODELS = {
    # what is zero in the original where the block is gone in the slim model
    "llama": (llama, "model.layers.{}", ("self_attn.o_proj", "mlp.down_proj")),
    "gpt2": (gpt2, "transformer.h.{}", ("attn.c_proj", "mlp.c_proj")),
    "bert": (bert, "encoder.layer.{}", ("attention.output.dense", "output.dense")),
    "vit": (vit, "vit.layers.{}", ("attention.o_proj", "mlp.fc2")),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_layer_goes_as_if_its_last_weights_were_zero(name: str) -> None:
    make, path, ends = MODELS[name]
    net, x = make()
    anatomy, blocks = found(net, x)
    layers = [path.format(i) for i in range(4)]
    assert [n for n in going(blocks) if n in layers] == layers
    for gone in ([0], [3], [1, 2], [0, 1, 2, 3]):
        names = [path.format(i) for i in gone]
        _, slim = without(anatomy, blocks, names)
        assert same(slim, zeroed(net, [f"{n}.{e}" for n in names for e in ends]), x)


@pytest.mark.parametrize("name", ["llama", "gpt2", "vit"])
def test_a_branch_goes_as_if_its_last_weight_was_zero(name: str) -> None:
    make, path, ends = MODELS[name]
    net, x = make()
    anatomy, blocks = found(net, x, "branch")
    parts = [f"{path.format(i)}.{e.rpartition('.')[0]}" for i in range(4) for e in ends]
    assert [n for n in going(blocks) if n in parts] == parts
    for gone in ([0], [1, 4, 5], list(range(8))):
        lost = [f"{path.format(i // 2)}.{ends[i % 2]}" for i in gone]
        _, slim = without(anatomy, blocks, [parts[i] for i in gone])
        assert same(slim, zeroed(net, lost), x)


def test_a_block_of_convnext_goes_as_if_its_scale_was_zero() -> None:
    net, x = convnext()
    anatomy, blocks = found(net, x)
    names = [n for n in going(blocks) if ".layers." in n]
    assert len(names) == 6
    _, slim = without(anatomy, blocks, names[::2])
    for name in names[::2]:
        block: Any = net.get_submodule(name)
        nn.init.zeros_(block.layer_scale_parameter)
    assert same(slim, net, x)


def attended(slim: Any) -> list[int]:
    """The numbers by which the attention that is left fills its cache."""
    return [
        m.layer_idx for n, m in slim.named_modules()
        if n.endswith((".self_attn", ".attn")) and any(True for _ in m.parameters())
    ]  # fmt: skip


GONE = [[0], [0, 2], [3], [1, 2]]


@pytest.mark.parametrize("level", ["block", "branch"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_generating_with_a_cache_is_generating_without(name: str, level: Level) -> None:
    net, x = MODELS[name][0]()
    anatomy, blocks = found(net, x, level)
    names = [n for n in going(blocks) if level == "block" or n.endswith("attn")]
    for gone in GONE:
        plan = drop_plan(anatomy, blocks, [names[i] for i in gone])
        slim: Any = plan.apply(net)
        assert attended(slim) == list(range(4 - len(gone)))
        said = [
            slim.generate(
                input_ids=IDS, max_new_tokens=8, do_sample=False, use_cache=cached,
                pad_token_id=0, eos_token_id=None,
            )
            for cached in (True, False)
        ]  # fmt: skip
        assert torch.equal(*said)
        kept = replace(plan, drops=tuple(replace(d, renumber=False) for d in plan.drops))
        after = attended(kept.apply(net))
        assert after == [i for i in range(4) if i not in gone]


class Numbered(Block):
    """A layer that computes with its number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x) / (self.number + 1)


def test_numbers_that_a_layer_computes_with_stay() -> None:
    net: Any = ready(nn.Sequential(*(Numbered(i) for i in range(4))))
    anatomy, blocks = found(net, torch.randn(2, 5, 6))
    closing = drop_plan(anatomy, blocks, ["0", "1"])
    closed: Any = closing.apply(net, verify=False)
    assert [m.number for m in closed] == [0, 1, 0, 1]
    with pytest.raises(ProofError):
        closing.apply(net)
    plan = with_numbers_that_hold(anatomy, closing)
    left: Any = plan.apply(net)
    assert [m.number for m in left] == [0, 1, 2, 3]
    last = drop_plan(anatomy, blocks, ["3"])  # nothing comes after it, so nothing closes up
    assert with_numbers_that_hold(anatomy, last) == last


def test_the_numbers_of_a_scaled_gpt2_hold() -> None:
    net, x = gpt2(scale_attn_by_inverse_layer_idx=True)
    anatomy, blocks = found(net, x)
    plan = with_numbers_that_hold(anatomy, drop_plan(anatomy, blocks, going(blocks)[:2]))
    names = [f"transformer.h.{i}.{n}" for i in (0, 1) for n in ("attn.c_proj", "mlp.c_proj")]
    assert same(plan.apply(net), zeroed(net, names), x)


class Sizes(nn.Module):
    """Widths, dilations, paddings and groups that happen to count up over a list."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, 6, 1)
        self.same = nn.ModuleList([
            nn.Conv1d(6, 6, 3, dilation=i, padding=i, groups=i) for i in (1, 2, 3)
        ])  # fmt: skip
        self.wider = nn.ModuleList([nn.Conv1d(i, i + 1, 1) for i in (6, 7, 8)])
        self.last = nn.Conv1d(9, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        for layer in (*self.same, *self.wider):
            x = layer(x).relu()
        return self.last(x)


def test_sizes_that_count_up_are_no_numbers_of_layers() -> None:
    net: Any = ready(Sizes())
    anatomy, blocks = found(net, torch.randn(2, 3, 9))
    assert {"same.0", "same.1", "same.2"} < {*going(blocks)}
    for name in going(blocks):
        without(anatomy, blocks, [name])
    _, slim = without(anatomy, blocks, ["same.0"])
    left: Any = slim
    assert [(m.dilation, m.groups) for m in left.same[1:]] == [((2,), 2), ((3,), 3)]
    assert [m.out_channels for m in left.wider] == [7, 8, 9]


@pytest.mark.parametrize("name", ["llama", "vit"])
def test_what_is_left_is_exported(name: str) -> None:
    net, x = MODELS[name][0]()
    anatomy, blocks = found(net, x)
    _, slim = without(anatomy, blocks, [MODELS[name][1].format(1)])
    program = torch.export.export(slim, x.args, dict(x.kwargs))
    with torch.no_grad():
        again: Any = program.module()
        given = again(*x.args, **x.kwargs).logits
        assert torch.allclose(given, slim(*x.args, **x.kwargs).logits, atol=1e-5)
