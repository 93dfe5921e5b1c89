"""The papers' networks."""

from sizeless.models.flexnet import FlexNet, flexnet3, flexnet5, flexnet7
from sizeless.models.flextcn import FlexTCN, flextcn2, flextcn4, flextcn6

__all__ = [
    "FlexNet",
    "FlexTCN",
    "flexnet3",
    "flexnet5",
    "flexnet7",
    "flextcn2",
    "flextcn4",
    "flextcn6",
]
