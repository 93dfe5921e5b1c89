"""A layer filled with sines, and every number that the authors' program computes with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sizeless import FlexConv1d, FlexConv2d, aliasing_penalty
from sizeless.kernels import MAGNet, coordinate_axis, coordinate_grid
from sizeless.nn import FlexConvNd


def sines(shape: Sequence[int], a: float, b: float, c: float) -> Tensor:
    count = torch.arange(math.prod(shape), dtype=torch.float64)
    return (a * (b * count + c).sin()).reshape(tuple(shape))


def fill(parameter: Tensor, a: float, b: float, c: float) -> None:
    parameter.copy_(sines(parameter.shape, a, b, c))


def filled(layer: FlexConvNd, center: list[float], sigma: list[float]) -> FlexConvNd:
    kernel = layer.kernel
    assert isinstance(kernel, MAGNet)
    assert layer.bias is not None
    with torch.no_grad():
        for index in range(3):
            fill(kernel.frequency[index], 6, 1.3, 0.2 + index)
            fill(kernel.phase[index], 3, 0.7, 0.5 + index)
            fill(kernel.center[index], 0.12, 0.9, 0.3 + index)
            # A cosine is a sine a quarter turn on.
            fill(kernel.gamma[index], 1.5, 0.8, index + math.pi / 2)
            kernel.gamma[index] += 2
        for index, linear in enumerate(kernel.mixing):
            fill(linear.weight, 0.4, 0.61, 0.1 + index)
            fill(linear.bias, 0.3, 1.7, 0.4 + index)
        fill(kernel.output.weight, 0.5, 0.37, 0.2)
        fill(kernel.output.bias, 0.2, 1.1, 0.6)
        fill(layer.bias, 0.1, 1.0, 0.3)
    layer.window.assign_(torch.tensor(center), torch.tensor(sigma))
    return layer


SMALL = partial(MAGNet, hidden=4, layers=2)


def image_layer() -> FlexConvNd:
    layer = FlexConv2d(2, 3, 9, kernel=SMALL, dtype=torch.float64)
    return filled(layer, [0.05, -0.10], [0.20, 0.30])


def sequence_layer(length: int) -> FlexConvNd:
    layer = FlexConv1d(2, 3, length, kernel=SMALL, causal=True, dtype=torch.float64)
    return filled(layer, [1.0], [0.35])


def is_close(actual: Tensor, expected: object, scale: float = 1.0) -> bool:
    """Compare with values that were computed in float32, relative to a scale."""
    values = torch.tensor(expected, dtype=torch.float64)
    return torch.allclose(actual.double(), values, rtol=1e-6, atol=5e-7 * scale)


IMAGE = sines((1, 2, 8, 8), 1, 0.37, 0)


def test_kernel_of_the_image_layer() -> None:
    layer = image_layer()
    weight = layer.weight
    assert layer.size == (3, 5)
    assert weight.shape == (3, 2, 3, 5)
    reach = math.sqrt(-2 * math.log(0.1))
    roots = layer.window.center.abs() + reach * layer.window.sigma
    assert is_close(roots, [0.4791932, 0.7437898])
    assert is_close(weight.sum(), 0.6068995)
    assert is_close(weight.abs().sum(), 5.4110956)
    assert is_close(weight.norm(), 0.9163803)
    expected = [
        [0.01780877, 0.02768515, 0.03376381, 0.03054734, 0.00669679],
        [0.04074552, 0.07461453, 0.27143538, 0.10451712, 0.01744322],
        [0.02008338, 0.07087345, 0.07788801, 0.01361789, 0.00818044],
    ]
    assert is_close(weight[0, 0], expected, 0.1)
    row = [0.01061595, 0.00408602, 0.00873630, 0.00676271, -0.00231590]
    assert is_close(weight[2, 1, 0], row, 0.1)


def test_output_of_the_image_layer() -> None:
    y = image_layer()(IMAGE)
    assert is_close(y.sum(), 13.8901863, 10)
    assert is_close(y.abs().sum(), 52.6740112, 10)
    first = [-0.31400153, -0.32125568, -0.16524677, 0.09235333]
    first += [0.34145355, 0.54833937, 0.67093396, 0.59348261]
    last = [0.12227686, 0.08263151, 0.13672522, 0.24172731]
    last += [0.32410553, 0.37271038, 0.36310184, 0.29900455]
    assert is_close(y[0, 0, 0], first)
    assert is_close(y[0, 2, 7], last)


def test_gradients_of_the_image_layer() -> None:
    layer = image_layer()
    layer(IMAGE).square().sum().backward()
    window, kernel = layer.window, layer.kernel
    # The width is stored as its logarithm.
    sigma_grad = window.log_sigma.grad / window.sigma
    assert is_close(window.raw_center.grad, [-25.956106, 36.399612], 100)
    assert is_close(sigma_grad, [-133.139389, 54.076988], 100)
    assert is_close(layer.bias.grad, [11.339855, 8.756782, 7.683735], 10)
    centers = [[-0.4851895, -2.0865738], [2.2398458, -0.0723244]]
    centers += [[0.4870207, 1.4609798], [-0.6126916, -7.6472020]]
    assert is_close(kernel.center.grad[0], centers, 5)
    widths = [[-0.2299168, -0.1062834], [0.0373077, -0.0676717]]
    widths += [[-0.3274546, 0.1530611], [-0.1043040, -0.2613107]]
    assert is_close(kernel.gamma.grad[1], widths)


def grid() -> Tensor:
    axis = coordinate_axis(9, 0, 9, IMAGE)
    return coordinate_grid([axis, axis])


def test_cropping_changes_the_image_layer_by_what_the_window_suppresses() -> None:
    layer = image_layer()
    axis = coordinate_axis(9, 0, 9, IMAGE)
    values = layer.kernel(grid()) * layer.window([axis, axis])[..., None]
    weight = values.movedim(-1, 0).reshape(3, 2, 9, 9)
    y = F.conv2d(IMAGE, weight, layer.bias, padding=4)
    assert is_close(weight.sum(), 0.5719174)
    assert is_close(y.sum(), 13.8091736, 10)
    assert is_close((y - layer(IMAGE)).abs().max(), 0.0530798)
    torch.testing.assert_close(layer.weight, weight[:, :, 3:6, 2:7])


def test_kernel_network_of_the_image_layer() -> None:
    kernel = image_layer().kernel
    values = kernel(grid())
    assert is_close(values.sum(), 0.6204679, 2)
    row = [0.11259665, 0.11054175, 0.10309678, 0.11060912, 0.11453669]
    row += [0.11035467, 0.11663052, 0.12734619, 0.12234517]
    assert is_close(values[0, :, 0], row)
    assert is_close(values[8, 8, 5], -0.08820587)


def test_first_wave_of_the_image_layer() -> None:
    kernel = image_layer().kernel
    # With neutral waves behind it and mixing by the identity, the basis is the first wave.
    with torch.no_grad():
        kernel.frequency[1:] = 0
        kernel.phase[1:] = math.pi / 2
        kernel.gamma[1:] = 0
        for linear in kernel.mixing:
            torch.nn.init.eye_(linear.weight)
            linear.bias.zero_()
    wave = kernel.basis(grid())
    assert is_close(wave.sum(), -0.3986452, 20)
    assert is_close(wave[4, 4], [0.92820328, 0.33172444, 0.29563114, 0.98294157])


def test_frequencies_of_the_image_layer() -> None:
    layer = image_layer()
    official = {1.0: [1.5095799, 1.4887923, 1.4988008], 2.0: [2.0666223, 2.0339534, 2.0463343]}
    for stddevs, values in official.items():
        bounds = layer.kernel.frequency_bounds(stddevs, formula="official")
        assert is_close(bounds.amax(dim=1), values)
        assert torch.equal(bounds[:, 0], bounds[:, 1])
        assert is_close(layer.window.max_frequency(stddevs).amax(), 0.7957747 * stddevs)
    tight = layer.kernel.frequency_bounds(2.0).amax(dim=1)
    assert is_close(tight, [1.9218103, 1.8234084, 1.7281562])
    assert layer.nyquist() == (2.0, 2.0)


@pytest.mark.parametrize(
    ("form", "include_window", "value"),
    [
        ("together", False, 0.5732831),
        ("summed", False, 1.7196859),
        ("together", True, 1.0977181),
        ("summed", True, 3.2929914),
    ],
)
def test_penalties_of_the_image_layer(form: str, include_window: bool, value: float) -> None:
    penalty = aliasing_penalty(
        image_layer(), form=form, include_window=include_window, bound="official", stddevs=2.0
    )
    assert is_close(0.1 * penalty, value)


SEQUENCES = {
    20: {
        "sum": -0.0721106,
        "kernel": [
            [0.00793160, -0.00474490, -0.02348954, -0.01339796],
            [0.04039698, 0.12157147, 0.18635465, 0.20044269],
        ],
        "y sum": 4.6786971,
        "y abs": 32.9099235,
        "y end": [0.35602409, 0.68239069, 0.92039865],
        "grad": (-73.7722702, 77.5194626),
    },
    21: {
        "sum": -0.0812642,
        "kernel": [
            [0.00553774, -0.01120603, -0.02484758, -0.00603605],
            [0.05164151, 0.12962039, 0.18837352, 0.20044269],
        ],
        "y sum": 5.1202512,
        "y abs": 34.2168961,
        "y end": [0.76161063, 0.91987020, 0.95762956],
        "grad": (-73.3741074, 76.2504501),
    },
}


@pytest.mark.parametrize("length", SEQUENCES)
def test_sequence_layer(length: int) -> None:
    expected = SEQUENCES[length]
    layer = sequence_layer(length)
    weight = layer.weight
    assert layer.size == (8,)
    assert weight.shape == (3, 2, 8)
    assert is_close(weight.sum(), expected["sum"])
    assert is_close(weight[0, 0].reshape(2, 4), expected["kernel"], 0.1)
    y = layer(sines((1, 2, length), 1, 0.37, 0))
    assert y.shape == (1, 3, length)
    assert is_close(y.sum(), expected["y sum"], 10)
    assert is_close(y.abs().sum(), expected["y abs"], 10)
    assert is_close(y[0, 0, -3:], expected["y end"])
    y.square().sum().backward()
    window = layer.window
    gradient = torch.cat([window.raw_center.grad, window.log_sigma.grad / window.sigma])
    assert is_close(gradient, expected["grad"], 100)


def test_single_precision_agrees_with_double() -> None:
    layer = image_layer()
    y = layer(IMAGE)
    torch.testing.assert_close(layer.float()(IMAGE.float()).double(), y, rtol=1e-5, atol=1e-5)
