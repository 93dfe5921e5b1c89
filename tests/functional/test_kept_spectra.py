"""Spectra of kernels that do not change: computed once, bounded, and freed with the kernel."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sizeless import FlexConv1d, FlexConv2d, FlexConv3d
from sizeless.functional import convolve, kept_spectra, spectral, use_method
from sizeless.functional.kept_spectra import keep_spectra
from sizeless.kernels import MAGNet

LAYERS = {1: FlexConv1d, 2: FlexConv2d, 3: FlexConv3d}
CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
SMALL = partial(MAGNet, hidden=4, layers=1, input_scale=6.0)
DOUBLE = torch.float64

dimensions = pytest.mark.parametrize("ndim", [1, 2, 3])
grouped = pytest.mark.parametrize("groups", [1, 2, 4])


class Transforms:
    """Counter of the transforms of kernels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for name in ("_maps", "_matrices"):
            self._watch(monkeypatch, name)

    def _watch(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        original = getattr(spectral._FilterBank, name)

        def counted(*arguments: Any) -> Tensor:
            self.count += 1
            return original(*arguments)

        monkeypatch.setattr(spectral._FilterBank, name, counted)

    def since(self) -> int:
        """Transforms since the last question."""
        count, self.count = self.count, 0
        return count


@pytest.fixture
def transforms(monkeypatch: pytest.MonkeyPatch) -> Transforms:
    return Transforms(monkeypatch)


def make(ndim: int, groups: int, **options: Any) -> Any:
    options = {"init_size": 5, "kernel": SMALL, "dtype": DOUBLE, **options}
    return LAYERS[ndim](4, 8, 9, groups=groups, **options).eval()


def maps(ndim: int, size: int = 8) -> Tensor:
    return torch.randn(2, 4, *[size] * ndim, dtype=DOUBLE)


def silent(layer: Callable[..., Tensor], *arguments: Any) -> Tensor:
    with torch.no_grad(), use_method("fft"):
        return layer(*arguments)


@pytest.fixture
def kernel() -> Tensor:
    return keep_spectra(torch.randn(8, 4, 5, dtype=DOUBLE))


# ---- layers --------------------------------------------------------------------------------------


@dimensions
@grouped
@pytest.mark.parametrize("dilation", [1, 2])
def test_evaluation_transforms_a_kernel_once(
    ndim: int, groups: int, dilation: int, transforms: Transforms
) -> None:
    layer = make(ndim, groups, dilation=dilation)
    for number in range(3):
        input = maps(ndim)
        expected = CONVOLUTIONS[ndim](
            input, layer.weight, layer.bias, 1, 2 * dilation, dilation, groups
        )
        transforms.since()
        assert_close(silent(layer, input), expected.detach())
        assert transforms.since() == (number == 0)


@dimensions
@grouped
def test_a_kernel_in_chunks_keeps_all_of_them(
    ndim: int, groups: int, transforms: Transforms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectral, "WORKSPACE", 1)
    layer = make(ndim, groups)
    input, outputs, counts = maps(ndim), [], []
    for _ in range(2):
        outputs.append(silent(layer, input))
        counts.append(transforms.since())
    assert counts[0] == 8 if groups < 4 else counts[0] > 1
    assert counts[1] == 0
    expected = CONVOLUTIONS[ndim](input, layer.weight, layer.bias, padding=2, groups=groups)
    assert_close(outputs, [expected.detach()] * 2)


@grouped
def test_other_maps_have_their_own_spectra(groups: int, transforms: Transforms) -> None:
    layer = make(2, groups)
    counts = []
    for size in (8, 40, 8, 40, 8):
        input = maps(2, size)
        expected = torch.conv2d(input, layer.weight, layer.bias, padding=2, groups=groups)
        assert_close(silent(layer, input), expected.detach())
        counts.append(transforms.since())
    assert counts == [1, 1, 0, 0, 0]


@dimensions
@grouped
def test_a_frozen_layer_transforms_once_in_each_direction(
    ndim: int, groups: int, transforms: Transforms
) -> None:
    layer = make(ndim, groups).requires_grad_(False)
    counts = []
    for _ in range(3):
        input = maps(ndim).requires_grad_()
        with use_method("fft"):
            (ours,) = torch.autograd.grad(layer(input).sin().sum(), input)
        counts.append(transforms.since())
        output = CONVOLUTIONS[ndim](input, layer.weight, layer.bias, padding=2, groups=groups)
        assert_close(ours, torch.autograd.grad(output.sin().sum(), input)[0])
    assert counts == [2, 0, 0]


@grouped
def test_a_changed_layer_transforms_anew(groups: int, transforms: Transforms) -> None:
    layer, input = make(2, groups), maps(2)
    silent(layer, input)
    with torch.no_grad():
        layer.kernel.frequency.add_(0.1)
    transforms.since()
    expected = torch.conv2d(input, layer.weight, layer.bias, padding=2, groups=groups)
    for _ in range(2):
        assert_close(silent(layer, input), expected.detach())
    assert transforms.since() == 1


@grouped
@pytest.mark.parametrize("first", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("then", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_modes_share_spectra(
    groups: int,
    first: Callable[..., Any],
    then: Callable[..., Any],
    transforms: Transforms,
) -> None:
    layer, input = make(1, groups).requires_grad_(False), maps(1)
    with use_method("fft"):
        with first():
            layer(input)
        assert transforms.since() == 1
        with then():
            output = layer(input)
        assert transforms.since() == 0
        assert_close(
            output.clone(), torch.conv1d(input, layer.weight, layer.bias, padding=2, groups=groups)
        )
        layer(input.requires_grad_()).sum().backward()
    assert transforms.since() == 1


def test_spectra_are_not_those_of_another_precision(transforms: Transforms) -> None:
    layer, input = make(1, 1, dtype=torch.float32), maps(1).float()
    full = silent(layer, input)
    with torch.autocast("cpu", torch.bfloat16):
        half = silent(layer, input)
    assert (full.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    transforms.since()
    assert_close(silent(layer, input), full, rtol=0, atol=0)
    assert transforms.since() == 0


def test_training_keeps_no_spectra() -> None:
    before = len(kept_spectra._KEPT)
    layer = make(1, 1).train()
    with use_method("fft"):
        output = layer(maps(1))
        assert len(kept_spectra._KEPT) == before
        output.sum().backward()
    assert len(kept_spectra._KEPT) == before


# ---- kernels -------------------------------------------------------------------------------------


def test_the_kernel_itself_is_returned() -> None:
    kernel = torch.randn(2, 2, 3)
    assert keep_spectra(kernel) is kernel


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_a_convolution_with_a_kept_kernel(
    stride: int, causal: bool, kernel: Tensor, transforms: Transforms
) -> None:
    input = torch.randn(2, 4, 30, dtype=DOUBLE)
    run = partial(convolve, stride=stride, padding="same", causal=causal)
    expected = run(input, kernel.clone(), method="direct")
    transforms.since()
    for _ in range(3):
        assert_close(run(input, kernel, method="fft"), expected)
    assert transforms.since() == 1
    run(input, kernel.clone(), method="fft")
    assert transforms.since() == 1


def test_kernels_with_equal_values_keep_apart(kernel: Tensor) -> None:
    other = keep_spectra(kernel.clone())
    input = torch.randn(1, 4, 30, dtype=DOUBLE)
    silent(convolve, input, kernel)
    assert len(kept_spectra._KEPT[kernel]) == 1
    assert kept_spectra._KEPT[other] == {}


@pytest.mark.parametrize(
    ("kept", "counts"), [(0, [1, 1, 1, 1]), (1, [1, 1, 0, 1]), (2, [1, 1, 0, 0])]
)
def test_spectra_beyond_the_limit_are_not_kept(
    kept: int, counts: list[int], transforms: Transforms, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(8, 4, 5, dtype=DOUBLE)
    long, short = (torch.randn(1, 4, size, dtype=DOUBLE) for size in (30, 8))
    kernel = keep_spectra(weight.clone())
    for input in (long, short):
        silent(convolve, input, kernel)
    sizes = [spectra.nbytes for spectra in kept_spectra._KEPT[kernel].values()]
    limit = [min(sizes) - 1, sum(sizes) - 1, sum(sizes)][kept]
    monkeypatch.setattr(kept_spectra, "MOST_KEPT", limit)
    kernel, found = keep_spectra(weight.clone()), []
    for input in (long, short, long, short):
        transforms.since()
        assert_close(silent(convolve, input, kernel), torch.conv1d(input, weight))
        found.append(transforms.since())
        assert len(kept_spectra._KEPT[kernel]) <= kept
    assert found == counts


def test_spectra_are_freed_with_their_kernel() -> None:
    before = len(kept_spectra._KEPT)
    layer = make(1, 1)
    silent(layer, maps(1))
    assert len(kept_spectra._KEPT) == before + 1
    kept = next(values for key, values in kept_spectra._KEPT.items() if key is _kernel_of(layer))
    (spectra,) = map(weakref.ref, kept.values())
    del kept
    assert spectra() is not None
    del layer
    assert spectra() is None
    assert len(kept_spectra._KEPT) == before


def _kernel_of(layer: Any) -> Tensor:
    (kernel,) = layer._cache._kept.values()
    return kernel


def test_spectra_of_a_kernel_that_is_not_kept_are_made_each_time() -> None:
    kernel, made = torch.randn(2), []

    def transform() -> Tensor:
        made.append(torch.zeros(1))
        return made[-1]

    for _ in range(2):
        assert kept_spectra.kept_spectra(kernel, "key", transform) is made[-1]
    assert len(made) == 2
    keep_spectra(kernel)
    for _ in range(2):
        assert kept_spectra.kept_spectra(kernel, "key", transform) is made[2]
    assert kept_spectra.kept_spectra(kernel, "other", transform) is made[3]
    assert len(made) == 4


def test_spectra_are_ordinary_tensors_whatever_the_mode() -> None:
    kernel = keep_spectra(torch.randn(2))
    with torch.inference_mode():
        spectra = kept_spectra.kept_spectra(kernel, "key", lambda: torch.zeros(3) + kernel[0])
    assert not spectra.is_inference()
    assert not spectra.requires_grad
