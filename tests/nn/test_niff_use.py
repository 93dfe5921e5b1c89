"""NIFF in use: filters that are kept between calls, changed networks, and exported graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sizeless import NIFFConv1d, NIFFConv2d
from sizeless.functional import hermitian_half
from sizeless.kernels import MLP
from sizeless.nn import NIFFConvNd, cached_kernels


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Map sizes for which filters were rendered."""
    sizes: list[tuple[int, ...]] = []
    spectrum = NIFFConvNd._spectrum

    def counted(self: NIFFConvNd, size: tuple[int, ...]) -> Tensor:
        sizes.append(size)
        return spectrum(self, size)

    monkeypatch.setattr(NIFFConvNd, "_spectrum", counted)
    return sizes


@pytest.mark.parametrize("boundary", ["circular", "zeros"])
@pytest.mark.parametrize("groups", [1, 2])
def test_filters_are_rendered_once_for_each_map_size(
    rendered: list[tuple[int, ...]], groups: int, boundary: str
) -> None:
    layer = NIFFConv2d(2, 2, groups, boundary=boundary, dtype=torch.float64).eval()
    small, large = (torch.randn(2, 2, n, n, dtype=torch.float64) for n in (5, 12))
    expected = layer(small).detach(), layer(large).detach()
    rendered.clear()
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(layer(small), expected[0])
            torch.testing.assert_close(layer(large), expected[1])
        assert rendered == [(5, 5), (12, 12)]
        layer.real.output.bias.add_(1)
        changed = layer(small)
        assert rendered == [(5, 5), (12, 12), (5, 5)]
    assert not torch.allclose(changed, expected[0])
    torch.testing.assert_close(changed, layer(small))


def test_few_map_sizes_are_kept(rendered: list[tuple[int, ...]]) -> None:
    layer = NIFFConv1d(1, 1, dtype=torch.float64).eval()
    with torch.no_grad():
        for n in (*range(1, 9), 8, 7):
            layer(torch.zeros(1, 1, n, dtype=torch.float64))
        assert rendered == [(n,) for n in range(1, 9)]
        layer(torch.zeros(1, 1, 1, dtype=torch.float64))
    assert rendered[-1] == (1,)
    assert len(layer._cache._kept) <= 4


def test_training_renders_at_every_call(rendered: list[tuple[int, ...]]) -> None:
    layer, input = NIFFConv1d(1, 1, dtype=torch.float64), torch.randn(1, 1, 6, dtype=torch.float64)
    layer(input), layer(input)
    assert len(rendered) == 2
    with cached_kernels(layer):
        layer(input), layer(input)
    assert len(rendered) == 3


class Squared(MLP):
    """Other functions than its weights say."""

    def basis(self, coordinates: Tensor) -> Tensor:
        return super().basis(coordinates).square()


def unchanged(_layer: NIFFConv2d) -> None:
    pass


def with_another_real_part(layer: NIFFConv2d) -> None:
    layer.real = Squared(2, layer.real.out_features, hidden=(8, 4), dtype=torch.float64)


def with_another_activation(layer: NIFFConv2d) -> None:
    layer.imag.activation = nn.Tanh()


def with_a_hook(layer: NIFFConv2d) -> None:
    layer.imag.linears[0].register_forward_hook(lambda _module, _input, output: 2 * output)


def with_a_hook_before(layer: NIFFConv2d) -> None:
    layer.real.linears[1].register_forward_pre_hook(lambda _module, input: (input[0] - 1,))


def with_normalised_weights(layer: NIFFConv2d) -> None:
    nn.utils.parametrizations.weight_norm(layer.real.linears[0])


def with_other_widths(layer: NIFFConv2d) -> None:
    features = layer.imag.out_features
    layer.imag = MLP(2, features, hidden=(3, 4), activation=nn.SiLU, dtype=torch.float64)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(
    "change",
    [
        unchanged,
        with_another_real_part,
        with_another_activation,
        with_a_hook,
        with_a_hook_before,
        with_normalised_weights,
        with_other_widths,
    ],
)
def test_the_filter_is_what_the_networks_say_whatever_they_are(
    change: Callable[[NIFFConv2d], object], groups: int
) -> None:
    layer, size = NIFFConv2d(4, 4, groups, dtype=torch.float64), (5, 6)
    change(layer)
    whole = [
        network(layer.frequencies(size)).movedim(-1, 0).reshape(4, 4 // groups, *size)
        for network in (layer.real, layer.imag)
    ]
    expected, actual = hermitian_half(*whole, ndim=2), layer.half_spectrum(size)
    torch.testing.assert_close(actual, expected)
    weights = torch.randn_like(torch.stack(actual))
    gradients = [
        torch.autograd.grad((torch.stack(parts) * weights).sum(), list(layer.parameters()))
        for parts in (actual, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 4},
        {"groups": 1, "frequency_unit": "cycles/pixel"},
        {"groups": 2, "half_sample_grid": True},
    ],
    ids=str,
)
def test_an_exported_layer_takes_maps_of_any_size(options: dict[str, Any]) -> None:
    layer = NIFFConv2d(4, 4, bias=True, **options)
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    example = torch.randn(2, 4, 12, 10)
    program = torch.export.export(layer, (example,), dynamic_shapes=(dynamic,))
    for shape in ((3, 4, 9, 17), (5, 4, 20, 31), (2, 4, 12, 10)):
        input = torch.randn(shape)
        torch.testing.assert_close(program.module()(input), layer(input), rtol=1e-4, atol=1e-4)
