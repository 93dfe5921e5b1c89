"""Basis functions on grids against the same at every point."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.testing import assert_close

from sizeless.kernels import (
    MLP,
    NSIREN,
    SIREN,
    ContinuousKernel,
    Fourier,
    Gabor,
    MAGNet,
    coordinate_axis,
    coordinate_grid,
)

DOUBLE = torch.float64
KINDS: dict[str, Callable[..., ContinuousKernel]] = {
    "magnet": partial(MAGNet, hidden=3, layers=2),
    "gabor": partial(Gabor, hidden=4, layers=1),
    "fourier": partial(Fourier, hidden=3, layers=3),
    "siren": partial(SIREN, hidden=4, layers=3),
    "nsiren": partial(NSIREN, hidden=4, layers=2),
    "mlp": partial(MLP, hidden=(5, 3)),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
multiplicative = pytest.mark.parametrize("kind", list(KINDS.values())[:3], ids=list(KINDS)[:3])
GRIDS = [(1,), (6,), (1, 1), (5, 3), (1, 4), (4, 1), (2, 3, 4), (4, 2, 3), (1, 5, 2), (3, 1, 1)]
grids = pytest.mark.parametrize("sizes", GRIDS, ids=str)


def make(kind: Callable[..., ContinuousKernel], ndim: int) -> ContinuousKernel:
    net = kind(ndim, 2, dtype=DOUBLE)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return net


def axes_of(sizes: tuple[int, ...]) -> list[Tensor]:
    """Parts of axes of other lengths, off the middle."""
    like = torch.zeros((), dtype=DOUBLE)
    return [coordinate_axis(n + d + 2, d, n + d, like) for d, n in enumerate(sizes)]


def pointwise(net: ContinuousKernel, axes: list[Tensor]) -> Tensor:
    return net.basis(coordinate_grid(axes)).movedim(-1, 0)


def basis_parameters(net: ContinuousKernel) -> dict[str, nn.Parameter]:
    return {n: p for n, p in net.named_parameters() if not n.startswith("output")}


@kinds
@grids
def test_values_and_gradients_are_those_at_every_point(
    kind: Callable[..., ContinuousKernel], sizes: tuple[int, ...]
) -> None:
    net, axes = make(kind, len(sizes)), axes_of(sizes)
    ours, expected = net.grid_basis(axes), pointwise(net, axes)
    assert ours.shape == (net.output.in_features, *sizes)
    assert_close(ours, expected, rtol=1e-9, atol=1e-11)
    parameters, cotangent = list(basis_parameters(net).values()), torch.randn_like(expected)
    assert_close(
        torch.autograd.grad(ours, parameters, cotangent),
        torch.autograd.grad(expected, parameters, cotangent),
        rtol=1e-9,
        atol=1e-10,
    )


@multiplicative
@given(data=st.data())
@settings(max_examples=25)
def test_any_axes_in_any_order(kind: Callable[..., ContinuousKernel], data: st.DataObject) -> None:
    places = st.lists(st.floats(-2, 2), min_size=1, max_size=4)
    axes = data.draw(st.lists(places, min_size=1, max_size=3))
    axes = [torch.tensor(axis, dtype=DOUBLE) for axis in axes]
    net = make(kind, len(axes))
    assert_close(net.grid_basis(axes), pointwise(net, axes), rtol=1e-8, atol=1e-10)


@kinds
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_second_derivatives(kind: Callable[..., ContinuousKernel], ndim: int) -> None:
    net, axes = make(kind, ndim), axes_of((3, 2, 4)[:ndim])
    parameters = list(basis_parameters(net).values())

    def penalty(basis: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(basis(axes).sin().sum(), parameters, create_graph=True)
        loss = sum(gradient.square().sum() for gradient in first)
        return torch.autograd.grad(loss, parameters, materialize_grads=True)

    ours, expected = penalty(net.grid_basis), penalty(partial(pointwise, net))
    for gradient, wanted in zip(ours, expected, strict=True):
        assert_close(
            gradient, wanted, rtol=1e-7, atol=1e-7 * (1 + wanted.detach().abs().max().item())
        )


@kinds
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_coordinates_get_a_gradient(kind: Callable[..., ContinuousKernel], ndim: int) -> None:
    net = make(kind, ndim)
    axes = [axis.requires_grad_() for axis in axes_of((3, 2, 4)[:ndim])]
    ours, expected = net.grid_basis(axes), pointwise(net, axes)
    cotangent = torch.randn_like(expected)
    assert_close(
        torch.autograd.grad(ours, axes, cotangent),
        torch.autograd.grad(expected, axes, cotangent),
        rtol=1e-8,
        atol=1e-9,
    )


@kinds
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_vmap_over_parameters(kind: Callable[..., ContinuousKernel], ndim: int) -> None:
    net, axes = make(kind, ndim), axes_of((3, 2, 4)[:ndim])
    stacked = {
        name: torch.stack([parameter.detach() * scale for scale in (1, 0.5)])
        for name, parameter in basis_parameters(net).items()
    }

    class Rendered(nn.Module):
        def __init__(self, way: Callable[..., Tensor]) -> None:
            super().__init__()
            self.net, self.way = net, way

        def forward(self) -> Tensor:
            return self.way(self.net)

    def run(way: Callable[..., Tensor]) -> Tensor:
        module = Rendered(way)

        def one(values: dict[str, Tensor]) -> Tensor:
            return functional_call(module, {f"net.{n}": v for n, v in values.items()}, ())

        return vmap(one)(stacked)

    ours = run(lambda net: net.grid_basis(axes))
    assert_close(ours, run(lambda net: pointwise(net, axes)), rtol=1e-9, atol=1e-11)
    assert_close(ours[0], net.grid_basis(axes))


@kinds
def test_a_single_precision_grid(kind: Callable[..., ContinuousKernel]) -> None:
    net = make(kind, 2)
    expected = net.grid_basis(axes_of((5, 4))).detach()
    axes = [axis.float() for axis in axes_of((5, 4))]
    ours = net.float().grid_basis(axes)
    assert ours.dtype == torch.float32
    # Angles of a hundred radians are known to 1e-5 in float32.
    assert_close(ours.double(), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@kinds
def test_the_output_layer_and_its_constant(kind: Callable[..., ContinuousKernel]) -> None:
    net, axes = make(kind, 2), axes_of((3, 4))
    basis = net.grid_basis(axes)
    rows = torch.cat((basis, torch.ones(1, 3, 4, dtype=DOUBLE)))
    values = torch.tensordot(net.coefficients(), rows, dims=1)
    assert_close(values, net(coordinate_grid(axes)).movedim(-1, 0), rtol=1e-9, atol=1e-11)


def test_a_subclass_with_its_own_basis_is_asked_for_it() -> None:
    class Squared(MAGNet):
        def basis(self, coordinates: Tensor) -> Tensor:
            return super().basis(coordinates).square()

    net, axes = make(partial(Squared, hidden=3, layers=1), 2), axes_of((3, 4))
    assert_close(net.grid_basis(axes), pointwise(net, axes))
    assert (net.grid_basis(axes) >= 0).all()


@kinds
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_grids_on_the_meta_device(kind: Callable[..., ContinuousKernel], ndim: int) -> None:
    sizes = (3, 2, 4)[:ndim]
    net = kind(ndim, 2, dtype=DOUBLE, device="meta")
    basis = net.grid_basis([torch.empty(n, dtype=DOUBLE, device="meta") for n in sizes])
    assert basis.is_meta
    assert basis.shape == (net.output.in_features, *sizes)
