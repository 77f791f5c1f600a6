"""Real architectures with random weights, at their real sizes: what the benchmarks run on.

Networks of convolutions are written out here, in the usual structure, because torchvision is
no dependency; transformers come from Hugging Face, by their configurations alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Built = tuple[nn.Module, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """A model by name: `build` gives it in eval mode with example inputs, always the same."""

    name: str
    title: str
    construct: Callable[[], Built]
    head: str  # the classifier, which other tools must be told to leave alone

    def build(self) -> Built:
        torch.manual_seed(0)
        model, inputs = self.construct()
        return model.eval(), inputs


# ---------------------------------------------------------------- residual networks


def _conv_norm(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inside, outside, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside))


class Bottleneck(nn.Module):
    """Narrow, filter, widen by four, and add."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.narrow = _conv_norm(inside, width, 1)
        self.filter = _conv_norm(width, width, 3, stride)
        self.widen = _conv_norm(width, 4 * width, 1)
        same = stride == 1 and inside == 4 * width
        self.shortcut = nn.Identity() if same else _conv_norm(inside, 4 * width, 1, stride)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.filter(self.act(self.narrow(x))))
        return self.act(self.widen(out) + self.shortcut(x))


class ResNet(nn.Module):
    """He et al., 2016, with bottlenecks."""

    def __init__(self, depths: tuple[int, ...], width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        self.stem = _conv_norm(3, width, 7, 2)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        stages: list[nn.Module] = []
        inside = width
        for stage, depth in enumerate(depths):
            blocks = []
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Bottleneck(inside, width << stage, stride))
                inside = 4 * (width << stage)
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(inside, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.pool(self.act(self.stem(x))))
        return self.fc(x.mean((2, 3)))


# ---------------------------------------------------------------- dense and plain networks


class DenseLayer(nn.Module):
    """Read everything before it, add `growth` channels."""

    def __init__(self, inside: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        out = self.conv1(self.norm1(torch.cat(features, 1)).relu_())
        return self.conv2(self.norm2(out).relu_())


class DenseBlock(nn.Module):
    """Layers that each read all features before them, from a list as torchvision does."""

    def __init__(self, inside: int, growth: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(inside + i * growth, growth) for i in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    """Huang et al., 2017."""

    def __init__(self, depths: tuple[int, ...], growth: int = 32, classes: int = 1000) -> None:
        super().__init__()
        width = 2 * growth
        parts: list[nn.Module] = [_conv_norm(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        for i, depth in enumerate(depths):
            parts.append(DenseBlock(width, growth, depth))
            width += growth * depth
            if i < len(depths) - 1:
                parts += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1)]
                parts.append(nn.AvgPool2d(2))
                width //= 2
        self.features = nn.Sequential(*parts, nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def _vgg16() -> nn.Module:
    """Make Simonyan and Zisserman's network of 2015, with batch norm."""
    layers: list[nn.Module] = []
    inside = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            conv = nn.Conv2d(inside, width, 3, padding=1)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            inside = width
        layers.append(nn.MaxPool2d(2))
    hidden = [nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten(), *hidden, nn.Dropout())
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(*layers))
    net.add_module("hidden", head)
    net.add_module("classifier", nn.Linear(4096, 1000))
    return net


# ---------------------------------------------------------------- transformers


def _image() -> Tensor:
    return torch.randn(1, 3, 224, 224)


def _vit(width: int, layers: int, heads: int) -> Built:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width,
    )  # fmt: skip
    config.num_labels = 1000
    return ViTForImageClassification(config), _image()


def _swin_tiny() -> Built:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig()
    config.num_labels = 1000
    return SwinForImageClassification(config), _image()


def _bert_large() -> Built:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    return BertForSequenceClassification(config), torch.randint(0, config.vocab_size, (1, 16))


def _llama() -> Built:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=512, num_hidden_layers=32, num_attention_heads=8, intermediate_size=1376,
        use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config), torch.randint(0, config.vocab_size, (1, 16))


def _gpt2() -> Built:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(use_cache=False)
    return GPT2LMHeadModel(config), torch.randint(0, config.vocab_size, (1, 16))


_ALL = (
    Model("resnet50", "ResNet-50", lambda: (ResNet((3, 4, 6, 3)), _image()), "fc"),
    Model("resnet152", "ResNet-152", lambda: (ResNet((3, 8, 36, 3)), _image()), "fc"),
    Model("densenet201", "DenseNet-201", lambda: (DenseNet((6, 12, 48, 32)), _image()),
          "classifier"),
    Model("vgg16", "VGG16-BN", lambda: (_vgg16(), _image()), "classifier"),
    Model("vit_b", "ViT-B/16", lambda: _vit(768, 12, 12), "classifier"),
    Model("vit_l", "ViT-L/16", lambda: _vit(1024, 24, 16), "classifier"),
    Model("swin_t", "Swin-T", _swin_tiny, "classifier"),
    Model("bert24", "BERT, 24 layers", _bert_large, "classifier"),
    Model("llama32", "Llama, 32 layers", _llama, "lm_head"),
    Model("gpt2", "GPT-2", _gpt2, "lm_head"),
)  # fmt: skip
MODELS = {model.name: model for model in _ALL}
