"""The suite ``models``: whole training steps of the papers' networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from sizeless.bench.case import OURS, Case, Contender
from sizeless.bench.literal import REACH, with_literal_flexconvs
from sizeless.bench.rows import by
from sizeless.models import flexnet3, flexnet7, flextcn2, flextcn6
from sizeless.nn import FlexConvNd

FLEXNET_SIZES = (
    *[(5, 5)] * 3,
    *[(7, 7)] * 3,
    (7, 11),
    (11, 7),
    (9, 13),
    (13, 9),
    (13, 13),
    (17, 21),
    *[(33, 33)] * 3,
)
"""Sizes of the 15 kernels of a FlexNet-7 of up to 33 taps, from the stem to the last block.

The paper's figure of learned masks shows small round ones in the first layers, some elongated ones
in the middle, and masks over the whole image in the last two or three; it gives no numbers.
"""

FLEXTCN_SIZES = (65, 65, 129, 129, 257, 513, 1025, 2049, 4097, 8001, 16000, 16000)
"""Sizes of the 12 kernels of a FlexTCN-6 on 16,000 samples, growing likewise."""


def set_sizes(model: nn.Module, sizes: Sequence[Sequence[int]]) -> None:
    """Set the windows of all FlexConvs of a network so that they keep ``sizes`` taps.

    Args:
        model: The network.
        sizes: Taps per axis for each of its FlexConvs, in their order.

    Raises:
        ValueError: If there is not one for each, or a window does not keep what it should.
    """
    layers = [module for module in model.modules() if isinstance(module, FlexConvNd)]
    for layer, size in zip(layers, sizes, strict=True):
        # Half-way between the widths at which it would lose a tap and gain one.
        reach = [s - 0.5 if layer.causal else s / 2 for s in size]
        spacing = [2 / (n - 1) for n in layer.kernel_size]
        sigma = [r * d / REACH for r, d in zip(reach, spacing, strict=True)]
        center = layer.window.raw_center.detach()
        layer.window.assign_(center, center.new_tensor(sigma))
        if layer.size != tuple(size):
            raise ValueError(f"a window for {tuple(size)} taps keeps {layer.size}")


def flexnet(quick: bool) -> tuple[nn.Module, Tensor]:
    """Build FlexNet-7 (quick: FlexNet-3) with learned sizes, and images of CIFAR's size."""
    model = (flexnet3 if quick else flexnet7)(3, 10, kernel_size=33)
    sizes = (*FLEXNET_SIZES[:2], *FLEXNET_SIZES[6:11]) if quick else FLEXNET_SIZES
    set_sizes(model, sizes)
    return model, torch.randn(2 if quick else 16, 3, 32, 32)


def flextcn(quick: bool) -> tuple[nn.Module, Tensor]:
    """Build FlexTCN-6 (quick: FlexTCN-2) with learned sizes, and sequences of 16,000 samples."""
    length = 2000 if quick else 16000
    model = (flextcn2 if quick else flextcn6)(1, 10, kernel_size=length)
    sizes = (65, 257, 1025, length) if quick else FLEXTCN_SIZES
    set_sizes(model, [(size,) for size in sizes])
    return model, torch.randn(1, 1, length)


def make_training(
    build: Callable[[bool], tuple[nn.Module, Tensor]], quick: bool, textbook: bool, device: str
) -> Callable[[], object]:
    """Build a network, and return its whole training step: loss, backward, and Adam.

    Args:
        build: Makes the network and its input.
        quick: Whether to make the small ones.
        textbook: Whether its FlexConvs render their kernels, then convolve with them.
        device: Where to compute.
    """
    model, input = build(quick)
    model = with_literal_flexconvs(model) if textbook else model
    model, input = model.to(device).train(), input.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    labels = torch.zeros(len(input), dtype=torch.long, device=device)

    def step() -> object:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(input), labels).backward()
        return optimizer.step()

    return step


def cases(quick: bool, device: str) -> Iterator[Case]:
    """Yield the cases of the suite."""
    names = ("FlexNet-3", "FlexTCN-2") if quick else ("FlexNet-7", "FlexTCN-6")
    for name, build, speed_up in zip(names, (flexnet, flextcn), (8.0, 3.0), strict=True):
        shape = tuple(build(quick)[1].shape)
        make = partial(make_training, build, quick)
        contenders = (
            Contender(OURS, "ours", partial(make, False, device)),
            Contender(
                "textbook",
                "baseline",
                partial(make, True, device),
                bar=None if quick else 1 / speed_up,
            ),
        )
        title = f"{name} {by(shape)}"
        yield Case("models", "network", title, "training", shape, contenders)
