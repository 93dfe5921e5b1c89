"""The papers' networks."""

from sizeless.models.audio import AudioNet
from sizeless.models.ccnn import CCNN, ccnn4_140, ccnn6_380
from sizeless.models.converted import converted, ordinary
from sizeless.models.diffstride_resnet import (
    DiffStrideResNet,
    diffstride_resnet18,
    diffstride_resnet18_imagenet,
    diffstride_resnet56,
)
from sizeless.models.flexnet import FlexNet, flexnet3, flexnet5, flexnet7
from sizeless.models.flextcn import FlexTCN, flextcn2, flextcn4, flextcn6
from sizeless.models.niff import (
    niff_backbone,
    niff_convnext_base,
    niff_convnext_small,
    niff_convnext_tiny,
    niff_densenet121,
    niff_mobilenet_v2,
    niff_mobilenet_v3,
    niff_mobilenet_v3_small,
    niff_resnet18,
    niff_resnet34,
    niff_resnet50,
    niff_resnet101,
    niff_resnet152,
)
from sizeless.surgery.niff import replace_convolutions

__all__ = [
    "CCNN",
    "AudioNet",
    "DiffStrideResNet",
    "FlexNet",
    "FlexTCN",
    "ccnn4_140",
    "ccnn6_380",
    "converted",
    "diffstride_resnet18",
    "diffstride_resnet18_imagenet",
    "diffstride_resnet56",
    "flexnet3",
    "flexnet5",
    "flexnet7",
    "flextcn2",
    "flextcn4",
    "flextcn6",
    "niff_backbone",
    "niff_convnext_base",
    "niff_convnext_small",
    "niff_convnext_tiny",
    "niff_densenet121",
    "niff_mobilenet_v2",
    "niff_mobilenet_v3",
    "niff_mobilenet_v3_small",
    "niff_resnet18",
    "niff_resnet34",
    "niff_resnet50",
    "niff_resnet101",
    "niff_resnet152",
    "ordinary",
    "replace_convolutions",
]
