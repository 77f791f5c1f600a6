"""Real architectures of torchvision and timm: cut to half, or as far as their pins allow."""

from typing import Any

import pytest
import torch
from torch import nn

import tonsor
from tonsor.errors import BudgetError

pytestmark = pytest.mark.zoo

CLASSIFIERS = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
    "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32", "wide_resnet50_2",
]  # fmt: skip
SEGMENTERS = ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]
VIDEO = ["r3d_18", "mc3_18", "r2plus1d_18"]
TIMM = [
    "beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "coatnet_nano_rw_224",
    "convmixer_768_32",
    "convnext_atto", "convnextv2_atto", "crossvit_tiny_240", "cspresnet50", "darknet17",
    "deit_tiny_patch16_224", "densenet121", "dla34", "dpn68", "edgenext_xx_small",
    "efficientformer_l1", "efficientnet_b0", "efficientvit_b0", "fastvit_t8", "fbnetc_100",
    "focalnet_tiny_srf", "gcvit_xxtiny", "gernet_s", "ghostnet_050", "hardcorenas_a", "hgnet_tiny",
    "hrnet_w18_small", "inception_next_atto", "levit_128s", "lcnet_050", "maxvit_rmlp_pico_rw_256",
    "mixer_s32_224", "mixnet_s", "mobilenetv2_050", "mobilenetv3_small_050",
    "mobilenetv4_conv_small", "mobileone_s0", "mobilevit_xxs", "mobilevitv2_050", "mvitv2_tiny",
    "nest_tiny", "nf_regnet_b0", "pit_ti_224", "poolformer_s12", "pvt_v2_b0", "regnetx_002",
    "regnety_002", "repghostnet_050", "repvgg_a0", "repvit_m0_9", "res2net50_14w_8s",
    "resmlp_12_224",
    "resnest14d", "resnet18", "rexnet_100", "semnasnet_075", "sequencer2d_s", "seresnet18",
    "skresnet18", "starnet_s1", "swin_tiny_patch4_window7_224", "tinynet_e", "tiny_vit_5m_224",
    "tresnet_m", "twins_pcpvt_small", "vgg11_bn", "visformer_tiny", "vit_tiny_patch16_224",
    "volo_d1_224", "xception41", "xcit_nano_12_p16_224",
]  # fmt: skip


def check(model: nn.Module, *inputs: torch.Tensor) -> None:
    """Cut, prove, and run; or find that every group has a reason to stay."""
    anatomy = tonsor.inspect(model.eval(), inputs)
    if not anatomy.prunable:
        assert all(str(pin) for group in anatomy.pinned for pin in group.pins)
        return
    try:
        slim, report = tonsor.prune(model, inputs, budget="macs=50%")
    except BudgetError as error:
        share = min(1.0, (error.minimum or 1.0) + 0.02)
        slim, report = tonsor.prune(model, inputs, budget=tonsor.macs(share))
    assert report.proof is not None
    before, after = report.macs
    assert after < before
    assert type(slim) is type(model)
    slim(*inputs)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_torchvision_classifiers(name: str) -> None:
    from torchvision import models  # pyright: ignore[reportMissingImports]

    given: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size = 299 if name == "inception_v3" else 224
    check(models.get_model(name, weights=None, **given), torch.randn(2, 3, size, size))


@pytest.mark.parametrize("name", SEGMENTERS)
def test_torchvision_segmentation(name: str) -> None:
    from torchvision.models import segmentation  # pyright: ignore[reportMissingImports]

    model = getattr(segmentation, name)(weights=None, weights_backbone=None)
    check(model, torch.randn(2, 3, 128, 128))


@pytest.mark.parametrize("name", VIDEO)
def test_torchvision_video(name: str) -> None:
    from torchvision.models import video  # pyright: ignore[reportMissingImports]

    check(getattr(video, name)(weights=None), torch.randn(2, 3, 4, 64, 64))


def test_torchvision_detection_backbone() -> None:
    from torchvision.models.detection import backbone_utils  # pyright: ignore[reportMissingImports]

    backbone = backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    check(backbone, torch.randn(2, 3, 128, 128))


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    import timm  # pyright: ignore[reportMissingImports]

    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    model = timm.create_model(name, pretrained=False)
    config = model.default_cfg
    check(model, torch.randn(2, *config["input_size"]))
