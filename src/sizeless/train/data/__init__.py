"""Data sets for recipes, in their official formats, with a validation split each."""

from sizeless.train.data.augment import BatchMix, FlipCrop, Jitter, Modern
from sizeless.train.data.image_folders import ImageFolder, ImageNet, MultiTaskImages
from sizeless.train.data.images import (
    CIFAR10,
    CIFAR100,
    MNIST,
    MNIST5000,
    STL10,
    DownsampledImageNet,
    FashionMNIST,
    NoisePaddedCIFAR10,
)
from sizeless.train.data.known_sizes import (
    KnownBandwidth,
    KnownKernelSize,
    KnownLag,
    KnownStride,
)
from sizeless.train.data.packaged import MNIST1D, Digits
from sizeless.train.data.sound import MultiSoundFolder, SoundFolder
from sizeless.train.data.speech import SpeechCommands
from sizeless.train.data.synthetic import AddingProblem, CopyMemory, ShuffledMNIST1D
from sizeless.train.data.timeseries import CharacterTrajectories, TimeSeries

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "MNIST1D",
    "MNIST5000",
    "STL10",
    "AddingProblem",
    "BatchMix",
    "CharacterTrajectories",
    "CopyMemory",
    "Digits",
    "DownsampledImageNet",
    "FashionMNIST",
    "FlipCrop",
    "ImageFolder",
    "ImageNet",
    "Jitter",
    "KnownBandwidth",
    "KnownKernelSize",
    "KnownLag",
    "KnownStride",
    "Modern",
    "MultiSoundFolder",
    "MultiTaskImages",
    "NoisePaddedCIFAR10",
    "ShuffledMNIST1D",
    "SoundFolder",
    "SpeechCommands",
    "TimeSeries",
]
