"""NIFF in use: filters that are kept between calls, and exported graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sizeless import NIFFConv1d, NIFFConv2d
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
