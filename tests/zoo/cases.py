"""Real architectures of torchvision and timm, at their real sizes, as cases of the matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tests.models.case import Built, Case, floats, image, randomise

CLASSIFIERS = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
    "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32",
    "wide_resnet50_2",
]  # fmt: skip
SEGMENTERS = ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]
VIDEO = ["r3d_18", "mc3_18", "r2plus1d_18"]
TIMM = [
    "beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "coatnet_nano_rw_224",
    "convmixer_768_32", "convnext_atto", "convnextv2_atto", "crossvit_tiny_240", "cspresnet50",
    "darknet17", "deit_tiny_patch16_224", "densenet121", "dla34", "dpn68", "edgenext_xx_small",
    "efficientformer_l1", "efficientnet_b0", "efficientvit_b0", "fastvit_t8", "fbnetc_100",
    "focalnet_tiny_srf", "gcvit_xxtiny", "gernet_s", "ghostnet_050", "hardcorenas_a", "hgnet_tiny",
    "hrnet_w18_small", "inception_next_atto", "levit_128s", "lcnet_050", "maxvit_rmlp_pico_rw_256",
    "mixer_s32_224", "mixnet_s", "mobilenetv2_050", "mobilenetv3_small_050",
    "mobilenetv4_conv_small", "mobileone_s0", "mobilevit_xxs", "mobilevitv2_050", "mvitv2_tiny",
    "nest_tiny", "nf_regnet_b0", "pit_ti_224", "poolformer_s12", "pvt_v2_b0", "regnetx_002",
    "regnety_002", "repghostnet_050", "repvgg_a0", "repvit_m0_9", "res2net50_14w_8s",
    "resmlp_12_224", "resnest14d", "resnet18", "rexnet_100", "semnasnet_075", "sequencer2d_s",
    "seresnet18", "skresnet18", "starnet_s1", "swin_tiny_patch4_window7_224", "tinynet_e",
    "tiny_vit_5m_224", "tresnet_m", "twins_pcpvt_small", "vgg11_bn", "visformer_tiny",
    "vit_tiny_patch16_224", "volo_d1_224", "xception41", "xcit_nano_12_p16_224",
]  # fmt: skip


def zoo() -> list[Case]:
    """Every case; nothing is built, and torchvision and timm are needed only to build."""
    return [*_torchvision(), *(_timm(n) for n in TIMM)]


def _torchvision() -> Iterator[Case]:
    for name in CLASSIFIERS:
        yield Case(f"tv_{name}", lambda n=name: _classifier(n), "torchvision")
    for name in SEGMENTERS:
        yield Case(f"tv_{name}", lambda n=name: _segmenter(n), "torchvision")
    for name in VIDEO:
        yield Case(f"tv_{name}", lambda n=name: _video(n), "torchvision")
    yield Case("tv_resnet18_fpn", _detection_backbone, "torchvision")


def _classifier(name: str) -> Built:
    from torchvision import models  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    given: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = models.get_model(name, weights=None, **given)
    return randomise(model.eval()), (image(299 if name == "inception_v3" else 224),), {}


def _segmenter(name: str) -> Built:
    from torchvision.models import segmentation  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    model = getattr(segmentation, name)(weights=None, weights_backbone=None)
    return randomise(model.eval()), (image(128),), {}


def _video(name: str) -> Built:
    from torchvision.models import video  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    return randomise(getattr(video, name)(weights=None).eval()), (floats(3, 4, 64, 64),), {}


def _detection_backbone() -> Built:
    from torchvision.models.detection import backbone_utils  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    backbone = backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    return randomise(backbone.eval()), (image(128),), {}


def _timm(name: str) -> Case:
    def build() -> Built:
        import timm  # pyright: ignore[reportMissingImports]

        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False)
        return randomise(model.eval()), (floats(*model.default_cfg["input_size"]),), {}

    return Case(f"timm_{name}", build, "timm")
