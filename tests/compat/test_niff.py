"""Official NIFF layers: their golden arrays, and their program written out from its formulas."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from sizeless import NIFFConv2d
from sizeless.compat import OfficialFullNIFF2d, niff_from_official

Weights = dict[str, Tensor]
CASES = ["depthwise_small_28", "depthwise_big_14", "split_small_14", "full_8", "pointwise_14"]


def part(arrays: dict[str, Tensor], prefix: str) -> Weights:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Compare relative to the largest expected value."""
    assert actual.shape == expected.shape
    error = (actual.detach() - expected).abs().max().item()
    assert error <= tolerance * max(expected.abs().max().item(), 1e-3)


def official_gradients(layer: nn.Module) -> Weights:
    """Our gradients under the authors' names, in their order of coordinates and channels."""
    if isinstance(layer, nn.Conv2d):
        return {"0.mlp.weight": layer.weight.grad.flatten(1)}
    first, matrix = (layer[0], layer[1]) if isinstance(layer, nn.Sequential) else (layer, None)
    full = isinstance(first, OfficialFullNIFF2d)
    filters = first.filters if full else first
    gradients = {}
    for name, network in (("real", filters.real), ("imag", filters.imag)):
        linears = [*network.linears, network.output]
        for index, linear in enumerate(linears, start=1):
            weight, bias = linear.weight.grad, linear.bias.grad
            if index == 1:
                weight = weight.flip(1)
            if index == len(linears) and not full:
                weight, bias = (g.roll(len(g) // 2, 0) for g in (weight, bias))
            key = f"0.mlp_{name}.layer_mpl{index}"
            gradients |= {f"{key}.weight": weight[..., None, None], f"{key}.bias": bias}
    if matrix is not None:
        gradient = matrix.weight.grad.flatten(1)
        shifts = [n // 2 for n in gradient.shape]
        gradients["1.mlp.weight"] = gradient.roll(shifts, (0, 1))
    return gradients


@pytest.mark.parametrize("name", CASES)
def test_golden_case(golden: Callable[..., dict[str, Tensor]], name: str) -> None:
    case = golden("niff_official", f"{name}/")
    layer = niff_from_official(part(case, "param/"))
    input = case["input"].requires_grad_()
    output = layer(input)
    (output * case["loss_weight"]).sum().backward()
    assert_near(output, case["output"])
    assert_near(input.grad, case["grad_input"])
    expected, gradients = part(case, "grad/"), official_gradients(layer)
    assert gradients.keys() == expected.keys()
    # A constant imaginary part does not act: the gradient of that bias is 0, and noise in floats.
    silent = max((key for key in expected if "imag" in key and "bias" in key), default=None)
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for key, gradient in gradients.items():
        if key == silent:
            assert gradient.abs().max().item() <= 1e-5 * largest
        else:
            assert_near(gradient, expected[key])


def test_golden_cases_are_what_they_say(golden: Callable[..., dict[str, Tensor | str]]) -> None:
    kinds = {}
    for name in CASES:
        case = golden("niff_official", f"{name}/")
        json.loads(case["meta"])
        kinds[name] = type(niff_from_official(part(case, "param/"))).__name__
    assert list(kinds.values()) == [
        "NIFFConv2d",
        "NIFFConv2d",
        "Sequential",
        "OfficialFullNIFF2d",
        "Conv2d",
    ]


# ---- the authors' program, from its formulas -----------------------------------------------------


def random_perceptrons(widths: tuple[int, ...], prefix: str = "") -> Weights:
    weights = {}
    for network in ("real", "imag"):
        for index, (n, m) in enumerate(pairwise(widths), start=1):
            key = f"{prefix}mlp_{network}.layer_mpl{index}"
            weights[f"{key}.weight"] = torch.randn(m, n, 1, 1, dtype=torch.float64)
            weights[f"{key}.bias"] = torch.randn(m, dtype=torch.float64)
    return weights


def generated(weights: Weights, size: int, prefix: str = "") -> Tensor:
    """Both networks on the centred grid, whose arithmetic gives half integers at odd sizes."""
    line = torch.arange(size, dtype=torch.float64) - size / 2
    grid = torch.stack([line[None, :].expand(size, size), line[:, None].expand(size, size)])
    parts = []
    for network in ("real", "imag"):
        values, index = grid, 1
        while f"{prefix}mlp_{network}.layer_mpl{index}.weight" in weights:
            key = f"{prefix}mlp_{network}.layer_mpl{index}"
            if index > 1:
                values = values * torch.sigmoid(values)
            matrix = weights[f"{key}.weight"][:, :, 0, 0]
            values = torch.einsum("oi,ipq->opq", matrix, values)
            values = values + weights[f"{key}.bias"][:, None, None]
            index += 1
        parts.append(values)
    return torch.complex(*parts)


def official_depthwise(weights: Weights, x: Tensor) -> Tensor:
    # Their shifts name no axes, so batch and channels are rolled too.
    spectrum = torch.fft.fftshift(torch.fft.fft2(x))
    product = generated(weights, x.shape[-1]) * spectrum
    return torch.fft.ifft2(torch.fft.ifftshift(product)).real


def official_split(weights: Weights, x: Tensor) -> Tensor:
    spectrum = torch.fft.fftshift(torch.fft.fft2(x))
    product = generated(weights, x.shape[-1], "0.") * spectrum
    matrix = weights["1.mlp.weight"].to(product.dtype)
    mixed = torch.einsum("oi,nipq->nopq", matrix, product)
    return torch.fft.ifft2(torch.fft.ifftshift(mixed)).real


def official_full(weights: Weights, x: Tensor) -> Tensor:
    size = x.shape[-1]
    spectrum = torch.fft.fftshift(torch.fft.fft2(x))
    filters = generated(weights, size).reshape(x.shape[1], -1, size, size)
    product = torch.einsum("iopq,nipq->nopq", filters, spectrum)
    return torch.fft.ifft2(torch.fft.ifftshift(product)).real


def assert_same_function(
    layer: nn.Module, official: Callable[[Weights, Tensor], Tensor], weights: Weights, x: Tensor
) -> None:
    x.requires_grad_()
    mine, theirs = layer(x), official(weights, x)
    torch.testing.assert_close(mine, theirs)
    loss_weight = torch.randn_like(theirs)
    (mine_grad,) = torch.autograd.grad((mine * loss_weight).sum(), x)
    (their_grad,) = torch.autograd.grad((theirs * loss_weight).sum(), x)
    torch.testing.assert_close(mine_grad, their_grad)


@pytest.mark.parametrize("size", [1, 2, 5, 7, 8])
@pytest.mark.parametrize("channels", [1, 4, 5])
@pytest.mark.parametrize("hidden", [(8, 4), (6, 10, 5)])
def test_depthwise_layer(hidden: tuple[int, ...], channels: int, size: int) -> None:
    weights = random_perceptrons((2, *hidden, channels))
    layer = niff_from_official(weights)
    assert isinstance(layer, NIFFConv2d)
    x = torch.randn(3, channels, size, size, dtype=torch.float64)
    assert_same_function(layer, official_depthwise, weights, x)


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("in_channels", [1, 4, 5])
@pytest.mark.parametrize("out_channels", [1, 3, 6])
def test_split_layer(in_channels: int, out_channels: int, size: int) -> None:
    weights = random_perceptrons((2, 8, 4, in_channels), "0.")
    weights["1.mlp.weight"] = torch.randn(out_channels, in_channels, dtype=torch.float64)
    x = torch.randn(2, in_channels, size, size, dtype=torch.float64)
    assert_same_function(niff_from_official(weights), official_split, weights, x)


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 4), (3, 2), (4, 3), (5, 5), (6, 1)])
def test_full_layer(in_channels: int, out_channels: int, size: int) -> None:
    weights = random_perceptrons((2, 8, in_channels * out_channels))
    layer = niff_from_official(weights)
    x = torch.randn(3, in_channels, size, size, dtype=torch.float64)
    assert layer(x).shape == (3, out_channels, size, size)
    assert_same_function(layer, official_full, weights, x)


def test_full_layer_takes_every_number_of_channels_that_divides_its_filters() -> None:
    weights = random_perceptrons((2, 8, 12))
    layer = niff_from_official(weights)
    for in_channels in (1, 2, 3, 4, 6, 12):
        x = torch.randn(2, in_channels, 5, 5, dtype=torch.float64)
        assert_same_function(layer, official_full, weights, x)
    with pytest.raises(ValueError, match="channels that divides the 12 filters, got 5"):
        layer(torch.randn(2, 5, 5, 5, dtype=torch.float64))


@pytest.mark.parametrize("prefix", ["", "0."])
@pytest.mark.parametrize("size", [5, 8])
def test_pointwise_layer_is_an_ordinary_one(prefix: str, size: int) -> None:
    matrix = torch.randn(7, 4, dtype=torch.float64)
    layer = niff_from_official({f"{prefix}mlp.weight": matrix})
    x = torch.randn(2, 4, size, size, dtype=torch.float64)
    spectrum = torch.fft.fft2(x)
    parts = [torch.einsum("oi,nipq->nopq", matrix, p) for p in (spectrum.real, spectrum.imag)]
    torch.testing.assert_close(layer(x), torch.fft.ifft2(torch.complex(*parts)).real)


def test_map_size_may_change_where_theirs_may_not() -> None:
    weights = random_perceptrons((2, 8, 4, 3))
    layer = niff_from_official(weights)
    for size in (7, 4, 7):
        x = torch.randn(1, 3, size, size, dtype=torch.float64)
        torch.testing.assert_close(layer(x), official_depthwise(weights, x))
    assert layer(torch.randn(1, 3, 4, 7, dtype=torch.float64)).shape == (1, 3, 4, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_have_the_dtype_of_the_state(dtype: torch.dtype) -> None:
    states = (
        random_perceptrons((2, 8, 4, 3)),
        random_perceptrons((2, 8, 6)),
        {"mlp.weight": torch.randn(3, 3)},
    )
    for state in states:
        layer = niff_from_official({key: value.to(dtype) for key, value in state.items()})
        assert {p.dtype for p in layer.parameters()} == {dtype}


def test_the_state_is_copied() -> None:
    weights = random_perceptrons((2, 8, 4, 3))
    layer = niff_from_official(weights)
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    before = layer(x)
    for value in weights.values():
        value.zero_()
    assert torch.equal(layer(x), before)


def without(weights: Weights, key: str) -> Weights:
    return {k: v for k, v in weights.items() if k != key}


DEPTHWISE = random_perceptrons((2, 8, 4, 3))
SPLIT = random_perceptrons((2, 8, 4, 3), "0.") | {"1.mlp.weight": torch.zeros(2, 3)}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "state_dict must hold one or two layers, got 0"),
        ({"conv.weight": torch.zeros(1)}, "'conv.weight' belongs to no official NIFF layer"),
        (DEPTHWISE | {"mlp_real.weight": torch.zeros(1)}, "belongs to no official NIFF layer"),
        (without(DEPTHWISE, "mlp_imag.layer_mpl2.bias"), "layers 1, 2, ... of both"),
        (SPLIT | {"1.mlp.weight": torch.zeros(2, 4)}, "does not follow its filter layer"),
        (SPLIT | {"2.mlp.weight": torch.zeros(2, 2)}, "must hold one or two layers, got 3"),
        (
            {"0.mlp.weight": torch.zeros(3, 3), "1.mlp.weight": torch.zeros(3, 3)},
            "must be a depthwise filter",
        ),
        (
            random_perceptrons((2, 8, 6), "0.") | {"1.mlp.weight": torch.zeros(2, 6)},
            "does not follow its filter layer",
        ),
    ],
)
def test_states_of_other_layers_are_refused(weights: Weights, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        niff_from_official(weights)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("mlp_real.layer_mpl1.weight", (8, 3, 1, 1)),
        ("mlp_imag.layer_mpl2.weight", (5, 8, 1, 1)),
        ("mlp_imag.layer_mpl3.bias", (4,)),
    ],
)
def test_shapes_that_do_not_fit_are_named(key: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="state_dict"):
        niff_from_official(DEPTHWISE | {key: torch.zeros(shape, dtype=torch.float64)})
