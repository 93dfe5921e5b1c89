"""Augmentation of training images, by a name or with options, and mixtures of whole batches.

Augmentation draws from torch's global generator, as torchvision's transforms do; the samples seed
it for every image and put it back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from sizeless._validate import boolean, int_at_least, number, one_of, positive_int

Step = Callable[[Tensor], Tensor]
"""Changes one image ``(C, H, W)``."""

CROPS = ("padded", "resized", "none")
POLICIES = ("rand", "trivial", "none")
STRONGEST = 30
"""The strongest magnitude of torchvision's RandAugment, which counts 31 of them."""


class Augmentation:
    """Base of the augmentations: steps before and after the image is standardised.

    Attributes:
        sized: Whether ``pixels`` gives images of the side that the network sees.
    """

    sized = False

    def pixels(self, side: int, interpolation: str = "bilinear") -> list[Step]:
        """Return the steps on bytes, which come before an image is resized.

        Args:
            side: Side of the images that the network sees, in pixels.
            interpolation: How images are resized: "bilinear" or "bicubic".
        """
        raise NotImplementedError

    def values(self) -> list[Step]:
        """Return the steps on standardised values, of the side that the network sees."""
        return []


@dataclass(frozen=True)
class FlipCrop(Augmentation):
    """A crop of the image padded with zeros (black), mirrored left to right in half the cases.

    Args:
        padding: Pixels on each side; None takes an eighth of the image's height, which is 4 for
            CIFAR.
        flip: Whether to mirror.

    Raises:
        ValueError: If ``padding`` is below 0.

    Source: FlexConv's experiments pad by an eighth, DiffStride's by 2 pixels.

    Examples:
        >>> [step] = FlipCrop(padding=2).pixels(side=8)
        >>> step(torch.ones(3, 8, 8, dtype=torch.uint8)).shape
        torch.Size([3, 8, 8])
    """

    padding: int | None = None
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding is not None:
            int_at_least("padding", self.padding, 0)
        boolean("flip", self.flip)

    def pixels(self, side: int, interpolation: str = "bilinear") -> list[Step]:
        """Return the one step."""
        return [self._crop]

    def _crop(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        padding = height // 8 if self.padding is None else self.padding
        top, left, mirrored = torch.rand(3).tolist()
        top, left = (int(draw * (2 * padding + 1)) for draw in (top, left))
        padded = functional.pad(image, [padding] * 4)
        crop = padded[..., top : top + height, left : left + width]
        return crop.flip(-1) if self.flip and mirrored < 0.5 else crop


@dataclass(frozen=True)
class Jitter(Augmentation):
    """Turns, shifts and shrinks an image and blackens a square of it, each in half the cases.

    Args:
        degrees: Largest angle, to either side.
        shift: Largest shift in whole pixels, on either axis and to either side.
        scale: Smallest scale; the largest is 1.
        square: Side of the blackened square in pixels.

    Raises:
        ValueError: If an argument is out of its range.

    Source: The defaults are FlexConv's augmentation of MNIST.

    Examples:
        >>> [step] = Jitter(shift=1).pixels(side=28)
        >>> step(torch.ones(1, 28, 28, dtype=torch.uint8)).shape
        torch.Size([1, 28, 28])
    """

    degrees: float = 30.0
    shift: int = 2
    scale: float = 0.75
    square: int = 4

    def __post_init__(self) -> None:
        number("degrees", self.degrees, minimum=0, maximum=180)
        int_at_least("shift", self.shift, 0)
        number("scale", self.scale, above=0, maximum=1)
        int_at_least("square", self.square, 0)

    def pixels(self, side: int, interpolation: str = "bilinear") -> list[Step]:
        """Return the one step."""
        return [self._jitter]

    def _jitter(self, image: Tensor) -> Tensor:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import affine, erase

        turned, shifted, shrunk, blackened = (torch.rand(4) < 0.5).tolist()
        angle, scale, down, right, top, left = torch.rand(6).tolist()
        shifts = [int(draw * (2 * self.shift + 1)) - self.shift for draw in (right, down)]
        image = affine(
            image,
            angle=(2 * angle - 1) * self.degrees if turned else 0.0,
            translate=shifts if shifted else [0, 0],
            scale=self.scale + (1 - self.scale) * scale if shrunk else 1.0,
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        if not blackened:
            return image
        corner = [
            int(draw * max(1, extent - self.square + 1))
            for draw, extent in zip((top, left), image.shape[-2:], strict=True)
        ]
        return erase(image, *corner, self.square, self.square, torch.zeros(1, dtype=image.dtype))


@dataclass(frozen=True)
class Modern(Augmentation):
    """The modern set: crop, flip, an automatic policy, colours, random erasing.

    Args:
        crop: "padded" as in ``FlipCrop``, "resized" takes a random part of the image (8 % to all
            of it, as ImageNet is trained) at the side that the network sees, "none".
        flip: Whether to mirror left to right in half the cases.
        policy: "rand" (RandAugment), "trivial" (TrivialAugment) or "none".
        operations: Operations of RandAugment on one image.
        magnitude: Strength of RandAugment, 0 to 30. ``rand-m9`` of timm counts to 10: it is 27.
        colours: Largest change of brightness, contrast and saturation, as a part.
        erase: Probability of random erasing; the part is filled with noise, after the image is
            standardised.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> len(Modern(crop="resized", colours=0.4).pixels(side=32))
        4
    """

    crop: Literal["padded", "resized", "none"] = "padded"
    flip: bool = True
    policy: Literal["rand", "trivial", "none"] = "rand"
    operations: int = 2
    magnitude: int = 9
    colours: float = 0.0
    erase: float = 0.25

    def __post_init__(self) -> None:
        one_of("crop", self.crop, CROPS)
        boolean("flip", self.flip)
        one_of("policy", self.policy, POLICIES)
        positive_int("operations", self.operations)
        if int_at_least("magnitude", self.magnitude, 0) > STRONGEST:
            raise ValueError(f"magnitude must be at most {STRONGEST}, got {self.magnitude}")
        number("colours", self.colours, minimum=0, maximum=1)
        number("erase", self.erase, minimum=0, maximum=1)

    @property
    def sized(self) -> bool:  # type: ignore[override]
        """Whether the crop is resized."""
        return self.crop == "resized"

    def pixels(self, side: int, interpolation: str = "bilinear") -> list[Step]:
        """Return crop, flip, policy and colours, as far as they are on."""
        from torchvision.transforms import v2

        steps: list[Step] = []
        if self.sized:
            mode = v2.InterpolationMode(interpolation)
            steps.append(v2.RandomResizedCrop(side, interpolation=mode, antialias=True))
        if self.crop == "padded":
            steps += FlipCrop(flip=self.flip).pixels(side)
        elif self.flip:
            steps.append(v2.RandomHorizontalFlip())
        if self.policy == "rand":
            steps.append(v2.RandAugment(self.operations, self.magnitude))
        if self.policy == "trivial":
            steps.append(v2.TrivialAugmentWide())
        if self.colours:
            steps.append(v2.ColorJitter(self.colours, self.colours, self.colours))
        return steps

    def values(self) -> list[Step]:
        """Return random erasing, if it is on."""
        from torchvision.transforms import v2

        return [v2.RandomErasing(self.erase, value="random")] if self.erase else []


AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "flip_crop": FlipCrop(),
    "flip_crop_2": FlipCrop(padding=2),
    "jitter": Jitter(),
    "resized_crop": Modern(crop="resized", policy="none", erase=0.0),
    "rand": Modern(),
    "trivial": Modern(policy="trivial"),
    "modern": Modern(crop="resized", magnitude=27),
}
"""Augmentations by name.

``flip_crop`` is FlexConv's of CIFAR and the down-sampled ImageNet, ``flip_crop_2`` DiffStride's,
``jitter`` FlexConv's of MNIST, ``resized_crop`` the usual one of ImageNet, ``modern`` that of
NIFF, which is ConvNeXt's; ``rand`` and ``trivial`` are its like for small images.
"""


def augmentation(value: str | Augmentation) -> Augmentation | None:
    """Return the augmentation of a name, or the one that is given; None changes nothing.

    Args:
        value: A key of ``AUGMENTATIONS``, or an augmentation.

    Raises:
        ValueError: If no augmentation has that name.

    Examples:
        >>> augmentation("flip_crop_2")
        FlipCrop(padding=2, flip=True)
    """
    if isinstance(value, Augmentation):
        return value
    return AUGMENTATIONS[one_of("augment", value, tuple(AUGMENTATIONS))]


class BatchMix:
    """Mixup and CutMix: every sample of a batch is mixed with the one before it.

    Mixup averages the two samples with a weight drawn from Beta(a, a), CutMix puts a rectangle of
    the other one in; targets are averaged with the same weights. Draws from torch's global
    generator.

    Args:
        num_classes: Number of classes.
        mixup: The a of mixup; 0 leaves it out.
        cutmix: The a of CutMix; 0 leaves it out. It needs images.
        probability: Part of the batches that are mixed.
        switch: Part of these that CutMix takes where both are on.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range, or both mixtures are left out.

    Source: Zhang et al. 2018, arXiv 1710.09412; Yun et al. 2019, arXiv 1905.04899. The defaults
    are ConvNeXt's, which NIFF is trained with; DiffStride's code has mixup 0.2 alone.

    Examples:
        >>> mix = BatchMix(num_classes=10, mixup=0.2, cutmix=0.0)
        >>> inputs, targets = mix(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]))
        >>> inputs.shape, targets.shape, targets.sum(1).tolist()
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 10]), [1.0, 1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        num_classes: int,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        probability: float = 1.0,
        switch: float = 0.5,
    ) -> None:
        from torchvision.transforms import v2

        self.num_classes = positive_int("num_classes", num_classes)
        self.probability = number("probability", probability, minimum=0, maximum=1)
        self.switch = number("switch", switch, minimum=0, maximum=1)
        alphas = {
            v2.MixUp: number("mixup", mixup, minimum=0),
            v2.CutMix: number("cutmix", cutmix, minimum=0),
        }
        self._mixtures: list[Any] = [
            kind(alpha=alpha, num_classes=num_classes) for kind, alpha in alphas.items() if alpha
        ]
        if not self._mixtures:
            raise ValueError("mixup and cutmix must not both be 0: then nothing is mixed")
        self._cuts = cutmix > 0

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixed batch.

        Args:
            inputs: Images ``(N, C, H, W)``, or sequences ``(N, C, L)`` where CutMix is left out.
            targets: Classes ``(N,)``.

        Returns:
            Inputs as before, and targets ``(N, num_classes)`` whose rows sum to 1.
        """
        if targets.dim() != 1:
            raise ValueError(
                f"targets must be the classes of a batch, of shape (N,), got {tuple(targets.shape)}"
            )
        if inputs.dim() == 3 and self._cuts:
            raise ValueError("cutmix cuts rectangles out of images: set it to 0 for sequences")
        draw, cut = torch.rand(2).tolist()
        if draw >= self.probability:
            return inputs, functional.one_hot(targets, self.num_classes).to(inputs.dtype)
        mixture = self._mixtures[-1 if cut < self.switch else 0]
        if inputs.dim() == 3:
            mixed, weights = mixture(inputs.unsqueeze(-2), targets)
            return mixed.squeeze(-2), weights
        return mixture(inputs, targets)
