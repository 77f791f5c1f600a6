"""Image models."""

from collections.abc import Callable
from typing import Any

from ..case import Case, Cut
from .tiny import VISION, pixels, tiny

SWIN = {
    "image_size": 24,
    "patch_size": 3,
    "embed_dim": 30,
    "depths": [2, 2],
    "num_heads": [3, 6],
    "window_size": 4,
    "mlp_ratio": 2.0,
    "num_labels": 11,
}
CONVNEXT = {"num_stages": 2, "hidden_sizes": [32, 48], "depths": [2, 1], "num_labels": 11}
RESNET = {"embedding_size": 24, "hidden_sizes": [32, 64], "depths": [2, 2], "num_labels": 11}
REGNET = {**RESNET, "groups_width": 16, "layer_type": "y"}
SEGFORMER = {
    "num_encoder_blocks": 2,
    "depths": [1, 2],
    "sr_ratios": [2, 1],
    "hidden_sizes": [24, 48],
    "patch_sizes": [7, 3],
    "strides": [2, 2],
    "num_attention_heads": [2, 4],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 40,
    "num_labels": 11,
}
EFFICIENTNET = {
    "image_size": 20,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "hidden_dim": 1280,
    "kernel_sizes": [3, 5],
    "in_channels": [32, 16],
    "out_channels": [16, 24],
    "depthwise_padding": [],
    "strides": [1, 2],
    "num_block_repeats": [1, 2],
    "expand_ratios": [1, 3],
    "num_labels": 11,
}
MOBILEVIT = {
    "image_size": 64,
    "hidden_sizes": [24, 32, 48],
    "neck_hidden_sizes": [12, 20, 28, 36, 40, 44, 56],
    "num_attention_heads": 4,
    "mlp_ratio": 2.0,
    "num_labels": 11,
}
LEVIT = {
    "image_size": 80,
    "hidden_sizes": [48, 72, 96],
    "num_attention_heads": [2, 3, 4],
    "depths": [1, 1, 1],
    "key_dim": [8, 8, 8],
    "drop_path_rate": 0,
    "attention_ratio": [2, 2, 2],
    "mlp_ratio": [2, 2, 2],
    "num_labels": 11,
}
CVT = {
    "patch_sizes": [5, 3],
    "patch_stride": [3, 2],
    "patch_padding": [2, 1],
    "embed_dim": [24, 48],
    "num_heads": [1, 4],
    "depth": [1, 2],
    "mlp_ratio": [2.0, 2.0],
    "attention_drop_rate": [0.0, 0.0],
    "drop_rate": [0.0, 0.0],
    "drop_path_rate": [0.0, 0.0],
    "qkv_bias": [True, True],
    "cls_token": [False, True],
    "qkv_projection_method": ["dw_bn", "dw_bn"],
    "kernel_qkv": [3, 3],
    "padding_kv": [1, 1],
    "stride_kv": [2, 2],
    "padding_q": [1, 1],
    "stride_q": [1, 1],
    "num_labels": 11,
}
POOLFORMER = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "hidden_sizes": [24, 48],
    "patch_sizes": [5, 3],
    "strides": [2, 2],
    "padding": [2, 1],
    "mlp_ratio": 2.0,
    "num_labels": 11,
}


def _vision(
    name: str,
    model: str,
    config: dict[str, Any],
    inputs: Callable[[], dict[str, Any]] | None = None,
    cut: Cut = "free",
    note: str = "",
) -> Case:
    return tiny(name, model, config, inputs or pixels(), family="hf vision", cut=cut, note=note)


CASES = [
    _vision("hf_vit", "ViTForImageClassification", VISION),
    _vision("hf_deit", "DeiTForImageClassification", VISION, note="two special tokens"),
    _vision(
        "hf_beit",
        "BeitForImageClassification",
        {**VISION, "use_relative_position_bias": True},
        note="relative position bias, layer scale, no key bias",
    ),
    _vision("hf_dinov2", "Dinov2ForImageClassification", {**VISION, "mlp_ratio": 2}),
    _vision(
        "hf_dinov2_swiglu",
        "Dinov2ForImageClassification",
        {**VISION, "mlp_ratio": 2, "use_swiglu_ffn": True},
    ),
    _vision("hf_clip_vision", "CLIPVisionModel", VISION),
    _vision("hf_siglip_vision", "SiglipVisionModel", VISION, note="nn.MultiheadAttention pools"),
    _vision("hf_swin", "SwinForImageClassification", SWIN, pixels(24)),
    _vision("hf_swinv2", "Swinv2ForImageClassification", SWIN, pixels(24), note="cosine attention"),
    _vision("hf_convnext", "ConvNextForImageClassification", CONVNEXT, pixels(28)),
    _vision(
        "hf_convnextv2",
        "ConvNextV2ForImageClassification",
        CONVNEXT,
        pixels(28),
        "partly",
        "response norm over the channels",
    ),
    _vision("hf_resnet", "ResNetForImageClassification", RESNET, pixels(36)),
    _vision(
        "hf_resnet_basic",
        "ResNetForImageClassification",
        {**RESNET, "layer_type": "basic"},
        pixels(36),
    ),
    _vision("hf_regnet", "RegNetForImageClassification", REGNET, pixels(36)),
    _vision(
        "hf_mobilenet_v1",
        "MobileNetV1ForImageClassification",
        {"image_size": 44, "depth_multiplier": 0.25, "num_labels": 11},
        pixels(44),
    ),
    _vision(
        "hf_mobilenet_v2",
        "MobileNetV2ForImageClassification",
        {"image_size": 44, "depth_multiplier": 0.25, "num_labels": 11},
        pixels(44),
    ),
    _vision("hf_efficientnet", "EfficientNetForImageClassification", EFFICIENTNET),
    _vision("hf_segformer", "SegformerForSemanticSegmentation", SEGFORMER),
    _vision("hf_poolformer", "PoolFormerForImageClassification", POOLFORMER),
    _vision("hf_cvt", "CvtForImageClassification", CVT, pixels(36), note="convolutional q, k, v"),
    _vision("hf_mobilevit", "MobileViTForImageClassification", MOBILEVIT, pixels(80)),
    _vision("hf_levit", "LevitForImageClassification", LEVIT, pixels(80), note="batch-normed qkv"),
]
