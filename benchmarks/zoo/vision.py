"""Image models: timm's, and torchvision's classifiers, segmentation, detection, flow and video."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torchvision

from benchmarks.zoo.architecture import Architecture, AsTensors, image

_TIMM = {
    64: """mobilevitv2_050 mobilevit_xxs pvt_v2_b0 edgenext_xx_small fastvit_t8 repvit_m0_9 mobilenetv4_conv_small
        convnext_atto ghostnetv2_100 poolformer_s12 hgnetv2_b0 lcnet_050 res2net50_26w_4s skresnet18 hrnet_w18_small
        dla34 focalnet_tiny_srf inception_next_tiny resnetv2_50 regnety_002 nfnet_l0 convmixer_768_32 starnet_s1""",
    106: "tinynet_e",
    224: """levit_128s maxvit_tiny_tf_224 efficientformer_l1 efficientformerv2_s0 vit_tiny_patch16_224
        swin_tiny_patch4_window7_224 davit_tiny coat_lite_tiny xcit_nano_12_p16_224 nest_tiny twins_svt_small
        volo_d1_224 beit_base_patch16_224 eva02_tiny_patch14_224 visformer_tiny gcvit_xxtiny mvitv2_tiny tiny_vit_5m_224
        cait_xxs24_224 deit3_small_patch16_224 sequencer2d_s mixer_s16_224 gmlp_s16_224 swiftformer_xs shvit_s1""",
    240: "crossvit_9_240",
    256: "swinv2_tiny_window8_256 halonet26t lambda_resnet26t botnet26t_256",
}

_TORCHVISION: dict[str, tuple[int, int, dict[str, Any]]] = {
    "googlenet": (64, 64, {"init_weights": False, "aux_logits": False}),
    "maxvit_t": (224, 224, {}),
    "shufflenet_v2_x0_5": (64, 64, {}),
    "swin_s": (70, 70, {}),
    "swin_t": (64, 96, {}),
    "swin_v2_t": (72, 72, {}),
    "vit_b_16": (224, 224, {}),
    "segmentation.deeplabv3_mobilenet_v3_large": (64, 64, {"weights_backbone": None}),
    "segmentation.fcn_resnet50": (64, 64, {"weights_backbone": None}),
    "segmentation.lraspp_mobilenet_v3_large": (64, 64, {"weights_backbone": None}),
    "detection.fasterrcnn_mobilenet_v3_large_320_fpn": (96, 128, {"weights_backbone": None}),
    "detection.fcos_resnet50_fpn": (96, 128, {"weights_backbone": None, "min_size": 96, "max_size": 128}),
    "detection.maskrcnn_resnet50_fpn": (96, 128, {"weights_backbone": None, "min_size": 96, "max_size": 128}),
    "detection.retinanet_resnet50_fpn": (96, 128, {"weights_backbone": None, "min_size": 96, "max_size": 128}),
    "detection.ssd300_vgg16": (300, 300, {"weights_backbone": None}),
    "detection.ssdlite320_mobilenet_v3_large": (320, 320, {"weights_backbone": None}),
}
"""Below `torchvision.models`: height and width of the image, and further arguments."""


def architectures() -> dict[str, Architecture]:
    """By name."""
    found = {}
    for size, names in _TIMM.items():
        for name in names.split():
            found[name] = Architecture(_timm(name), image(3, size, size))
    for name, (height, width, more) in _TORCHVISION.items():
        found[name.rpartition(".")[2]] = Architecture(_torchvision(name, more), image(3, height, width))
    models = torchvision.models
    found["raft_small"] = Architecture(
        lambda: models.optical_flow.raft_small(weights=None), lambda: (torch.randn(1, 3, 128, 128),) * 2
    )
    found["r3d_18"] = Architecture(lambda: models.video.r3d_18(weights=None), lambda: (torch.randn(1, 3, 4, 32, 32),))
    found["mvit_v2_s"] = Architecture(
        lambda: models.video.mvit_v2_s(weights=None), lambda: (torch.randn(1, 3, 16, 224, 224),)
    )
    return found


def _timm(name: str) -> Any:
    return lambda: timm.create_model(name, pretrained=False)


def _torchvision(name: str, more: dict[str, Any]) -> Any:
    def make() -> Any:
        found: Any = torchvision.models
        for part in name.split("."):
            found = getattr(found, part)
        return AsTensors(found(weights=None, **more))

    return make
