"""The authors' DiffStride and spectral pooling against arrays that their program computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sizeless.compat.diffstride import OfficialDiffStride2d, OfficialSpectralPool2d

GOLDEN = Path(__file__).parents[1] / "golden" / "diffstride_official.npz"


def read_cases() -> dict[str, dict[str, np.ndarray]]:
    """Return the golden arrays as ``{"ds/even_s2": {"x": ..., "param/conv1": ...}}``."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(GOLDEN) as arrays:
        for key in arrays.files:
            group, name, field = key.split("/", 2)
            cases.setdefault(f"{group}/{name}", {})[field] = arrays[key]
    return cases


CASES = read_cases()
LAYER_FIELDS = {
    "smoothness_factor": "smoothness",
    "cropping": "crop",
    "shared_stride": "shared",
    "lower_limit_stride": "min_stride",
    "upper_limit_stride": "max_stride",
}


def names(prefix: str) -> list[str]:
    return [name for name in CASES if name.startswith(prefix)]


def layer_of(config: dict[str, Any]) -> OfficialDiffStride2d:
    arguments = {ours: config[theirs] for theirs, ours in LAYER_FIELDS.items() if theirs in config}
    return OfficialDiffStride2d(config["strides"], **arguments)


def assert_close(actual: Tensor, expected: np.ndarray, tolerance: float) -> None:
    """Compare relative to the largest expected value."""
    assert tuple(actual.shape) == expected.shape
    scale = max(float(np.abs(expected).max()), 1e-3)
    error = float(np.abs(actual.detach().numpy() - expected).max()) / scale
    assert error <= tolerance


def nchw(case: dict[str, np.ndarray], field: str, last: bool) -> Tensor:
    array = torch.from_numpy(case[field])
    return array.permute(0, 3, 1, 2) if last else array


@pytest.mark.parametrize("name", names("ds/"))
def test_golden_layer(name: str) -> None:
    case = CASES[name]
    config = json.loads(case["config"].item())
    last = config.get("data_format") == "channels_last"
    layer = layer_of(config)
    np.testing.assert_array_equal(layer.strides.detach().numpy(), case["strides_init"])
    x = nchw(case, "x", last).clone().requires_grad_()
    expected_size = nchw(case, "y", last).shape[2:]
    assert layer.output_size(x.shape[2:]) == expected_size
    np.testing.assert_array_equal(layer.strides.detach().numpy(), case["strides_init"])
    y = layer(x)
    (y * nchw(case, "w", last)).sum().backward()
    assert x.grad is not None
    assert layer.strides.grad is not None
    assert_close(y, nchw(case, "y", last).numpy(), 1e-5)
    assert_close(x.grad, nchw(case, "gx", last).numpy(), 1e-5)
    assert_close(layer.strides.grad, case["gs"], 1e-4)
    np.testing.assert_array_equal(layer.strides.detach().numpy(), case["strides_after"])
    assert layer.output_size(x.shape[2:]) == expected_size


@pytest.mark.parametrize("name", names("ds/"))
def test_golden_weights_are_equal_bit_for_bit(name: str) -> None:
    case = CASES[name]
    layer = layer_of(json.loads(case["config"].item()))
    extents = len(case["pos_h"]), case["x"].shape[-1]
    layer._raise_strides_(*extents)
    rows, columns = layer._ramps(layer.strides, *extents)
    np.testing.assert_array_equal(rows.detach().numpy(), case["mask_h"])
    np.testing.assert_array_equal(columns.detach().numpy(), case["mask_w"])


@pytest.mark.parametrize("name", names("trace/"))
def test_golden_training(name: str) -> None:
    case = CASES[name]
    layer = layer_of(json.loads(case["config"].item()))
    x = torch.from_numpy(case["x"])
    lr, momentum = float(case["lr"]), float(case["momentum"])
    velocity = torch.zeros(2)
    for strides, loss, size in zip(case["strides"], case["loss"], case["out_hw"], strict=True):
        y = layer(x)
        assert tuple(y.shape[2:]) == tuple(size)
        assert_close(layer.strides, strides, 1e-5)
        value = y.square().sum() / x.numel()
        assert value.item() == pytest.approx(float(loss), rel=1e-5)
        (gradient,) = torch.autograd.grad(value, layer.strides)
        velocity = momentum * velocity - lr * gradient
        with torch.no_grad():
            layer.strides.add_(velocity)
        layer.project_()
    assert_close(layer.strides, case["strides_final"], 1e-5)


def pool_of(config: dict[str, Any]) -> OfficialSpectralPool2d:
    return OfficialSpectralPool2d(config["strides"])


@pytest.mark.parametrize("name", names("fsp/"))
def test_golden_spectral_pool(name: str) -> None:
    case = CASES[name]
    config = json.loads(case["config"].item())
    last = config["data_format"] == "channels_last"
    layer = pool_of(config)
    x = nchw(case, "x", last).clone().requires_grad_()
    assert layer.output_size(x.shape[2:]) == tuple(case["out_hw"])
    y = layer(x)
    (y * nchw(case, "w", last)).sum().backward()
    assert x.grad is not None
    assert_close(y, nchw(case, "y", last).numpy(), 1e-5)
    assert_close(x.grad, nchw(case, "gx", last).numpy(), 1e-5)


class Residual(nn.Module):
    """The reference's pre-activation residual layer: one pooling object on both branches."""

    def __init__(self, case: dict[str, np.ndarray]) -> None:
        super().__init__()
        out_channels, in_channels = case["param/conv1"].shape[3], case["param/conv1"].shape[2]
        self.bn1 = nn.BatchNorm2d(in_channels, eps=1e-5, momentum=0.1)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=1e-5, momentum=0.1)
        # A 3x3 convolution of stride 1 with TensorFlow's "SAME" pads one pixel on each side.
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pool = OfficialDiffStride2d(2.0)
        with torch.no_grad():
            for field, tensor, permute in self.fields():
                tensor.copy_(from_tensorflow(case[f"param/{field}"], permute))

    def fields(self) -> list[tuple[str, Tensor, bool]]:
        """Return the reference's names, our tensors, and whether the tensor is a kernel."""
        rows: list[tuple[str, Tensor, bool]] = [("strides", self.pool.strides, False)]
        for name, conv in (("conv1", self.conv1), ("conv2", self.conv2)):
            rows.append((name, conv.weight, True))
        rows.append(("shortcut", self.shortcut.weight, True))
        for name, norm in (("bn1", self.bn1), ("bn2", self.bn2)):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            rows += [(f"{name}_gamma", norm.weight, False), (f"{name}_beta", norm.bias, False)]
            rows += [(f"{name}_mean", norm.running_mean, False)]
            rows += [(f"{name}_var", norm.running_var, False)]
        return rows

    def forward(self, x: Tensor) -> Tensor:
        main = self.pool(self.conv1(torch.relu(self.bn1(x))))
        main = self.conv2(torch.relu(self.bn2(main)))
        return main + self.pool(self.shortcut(x))


def from_tensorflow(array: np.ndarray, kernel: bool) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.permute(3, 2, 0, 1) if kernel else tensor


@pytest.mark.parametrize("name", names("res/ds"))
def test_golden_residual_layer(name: str) -> None:
    case = CASES[name]
    model = Residual(case).train(name.endswith("train"))
    x = nchw(case, "x", True).clone().requires_grad_()
    y = model(x)
    (y * nchw(case, "w", True)).sum().backward()
    assert x.grad is not None
    assert_close(y, nchw(case, "y", True).numpy(), 1e-5)
    assert_close(x.grad, nchw(case, "gx", True).numpy(), 1e-5)
    for field, tensor, kernel in model.fields():
        assert_close(tensor, from_tensorflow(case[f"after/{field}"], kernel).numpy(), 1e-5)
        if tensor.requires_grad:
            assert tensor.grad is not None
            expected = from_tensorflow(case[f"grad/{field}"], kernel).numpy()
            assert_close(tensor.grad, expected, 1e-4)


def test_every_golden_case_is_used() -> None:
    used = {name for prefix in ("ds/", "fsp/", "trace/", "res/ds") for name in names(prefix)}
    assert used == set(CASES)
