"""Every kernel network against a plain loop over its units, and how its parameters start."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sizeless.kernels import (
    MLP,
    NSIREN,
    SIREN,
    ContinuousKernel,
    Fourier,
    Gabor,
    MAGNet,
    MultiplicativeNetwork,
    coordinate_axis,
    coordinate_grid,
)

Values = list[float]


def linear(layer: nn.Linear, values: Values) -> Values:
    rows, biases = layer.weight.tolist(), layer.bias.tolist()
    return [
        bias + sum(a * v for a, v in zip(row, values, strict=True))
        for row, bias in zip(rows, biases, strict=True)
    ]


def multiplicative(net: MultiplicativeNetwork, r: Values) -> Values:
    def wave(layer: int, unit: int) -> float:
        angle = net.phase[layer, unit].item()
        for axis, x in enumerate(r):
            angle += net.frequency[layer, unit, axis].item() * x
        exponent = 0.0
        if isinstance(net, (MAGNet, Gabor)):
            for axis, x in enumerate(r):
                gamma = net.gamma[layer, unit, axis if isinstance(net, MAGNet) else 0].item()
                exponent += (gamma * (x - net.center[layer, unit, axis].item())) ** 2
        return math.exp(-0.5 * exponent) * math.sin(angle)

    hidden = [wave(0, unit) for unit in range(net.hidden)]
    for layer, mixing in enumerate(net.mixing, start=1):
        mixed = linear(mixing, hidden)
        hidden = [value * wave(layer, unit) for unit, value in enumerate(mixed)]
    return linear(net.output, hidden)


def siren(net: SIREN, r: Values) -> Values:
    for layer in net.sines:
        biases = layer.bias.tolist()
        pure = [a - b for a, b in zip(linear(layer, r), biases, strict=True)]
        r = [
            math.sin(net.omega_0 * a + (b if isinstance(net, NSIREN) else net.omega_0 * b))
            for a, b in zip(pure, biases, strict=True)
        ]
    return linear(net.output, r)


def perceptron(net: MLP, r: Values) -> Values:
    for layer in net.linears:
        r = [max(0.0, value) for value in linear(layer, r)]
    return linear(net.output, r)


SMALL = [
    (partial(MAGNet, hidden=3, layers=2, input_scale=5.0), multiplicative),
    (partial(Gabor, hidden=4, layers=1, input_scale=5.0), multiplicative),
    (partial(Fourier, hidden=3, layers=3, input_scale=5.0), multiplicative),
    (partial(SIREN, hidden=4, layers=3, omega_0=7.0), siren),
    (partial(NSIREN, hidden=4, layers=2, omega_0=7.0), siren),
    (partial(MLP, hidden=(5, 3)), perceptron),
]
IDS = ["magnet", "gabor", "fourier", "siren", "nsiren", "mlp"]


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("make", "loop"), SMALL, ids=IDS)
def test_network_equals_a_loop_over_its_units(
    make: Callable[..., ContinuousKernel], loop: Callable[..., Values], ndim: int
) -> None:
    net = make(ndim, 5, dtype=torch.float64)
    r = 2 * torch.rand(2, 3, ndim, dtype=torch.float64) - 1
    values = net(r)
    assert values.shape == (2, 3, 5)
    assert net.basis(r).shape == (2, 3, net.output.in_features)
    with torch.no_grad():
        expected = torch.tensor([[loop(net, point) for point in row] for row in r.tolist()])
    torch.testing.assert_close(values, expected.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("make", "loop"), SMALL, ids=IDS)
def test_gradients_are_those_of_finite_differences(
    make: Callable[..., ContinuousKernel], loop: Callable[..., Values]
) -> None:
    net = make(2, 2, dtype=torch.float64)
    r = (2 * torch.rand(3, 2, dtype=torch.float64) - 1).requires_grad_()
    names = [name for name, _ in net.named_parameters()]

    def run(coordinates: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(net, state, (coordinates,))

    assert torch.autograd.gradcheck(run, (r, *net.parameters()), fast_mode=True)


@pytest.mark.parametrize(("make", "loop"), SMALL, ids=IDS)
def test_scale_output_multiplies_all_values(
    make: Callable[..., ContinuousKernel], loop: Callable[..., Values]
) -> None:
    net = make(2, 3)
    r = torch.rand(7, 2)
    before = net(r)
    net.scale_output_(-2.5)
    torch.testing.assert_close(net(r), -2.5 * before)


def test_activation_of_the_perceptron_is_chosen_by_its_class() -> None:
    net = MLP(1, 2, hidden=(3,), activation=nn.Tanh)
    r = torch.rand(4, 1)
    torch.testing.assert_close(net(r), net.output(net.linears[0](r).tanh()))


# ---- how parameters start ------------------------------------------------------------------------


def assert_uniform(values: Tensor, low: float, high: float) -> None:
    """Within the bounds, and with the mean and the deviation of a uniform distribution."""
    assert low <= values.min()
    assert values.max() <= high
    spread = (high - low) / math.sqrt(12)
    count = values.numel()
    assert abs(values.mean() - (low + high) / 2) < 5 * spread / math.sqrt(count)
    assert abs(values.std() / spread - 1) < 5 / math.sqrt(count)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_magnet_starts_as_the_paper_draws_it(ndim: int) -> None:
    hidden, layers = 800, 3
    net = MAGNet(ndim, 50, hidden=hidden, layers=layers)
    for layer in range(layers + 1):
        gamma, shape = net.gamma[layer].detach(), 6 / (layer + 1)
        error = 5 / math.sqrt(gamma.numel())
        assert gamma.min() > 0
        assert abs(gamma.mean() - shape) < error * math.sqrt(shape)
        # The fourth moment of a Gamma distribution widens the error of its variance.
        assert abs(gamma.var() / shape - 1) < error * math.sqrt(2 + 6 / shape)
        assert_uniform(net.center[layer], -1, 1)
        assert_uniform(net.phase[layer], -math.pi, math.pi)
        bound = 25.6 / math.sqrt(layers + 1) / math.sqrt(ndim)
        assert_uniform(net.frequency[layer] / net.gamma[layer], -bound, bound)
    bound = 1 / math.sqrt(hidden)
    for mixing in net.mixing:
        assert_uniform(mixing.weight, -bound, bound)
        assert_uniform(mixing.bias, -bound, bound)
    assert_uniform(net.output.weight, -bound, bound)


def test_gabor_draws_one_inverse_width_per_unit_from_one_distribution() -> None:
    net = Gabor(2, 1, hidden=1500, layers=3)
    assert net.gamma.shape == (4, 1500, 1)
    for gamma in net.gamma.detach():
        assert abs(gamma.mean() - 1.5) < 5 * math.sqrt(1.5 / 1500)
    assert_uniform(net.frequency / net.gamma, -12.8 / math.sqrt(2), 12.8 / math.sqrt(2))


def test_fourier_starts_with_the_scale_of_the_authors_runs() -> None:
    net = Fourier(2, 1, hidden=1000, layers=3)
    assert_uniform(net.frequency, -128 / math.sqrt(2), 128 / math.sqrt(2))
    assert_uniform(net.phase, -math.pi, math.pi)
    assert not hasattr(net, "gamma")


@pytest.mark.parametrize("kind", [SIREN, NSIREN])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_siren_starts_in_its_bounds(kind: type[SIREN], ndim: int) -> None:
    net = kind(ndim, 60, hidden=300, layers=4, omega_0=30.0)
    assert len(net.sines) == 3
    assert_uniform(net.sines[0].weight, -1 / ndim, 1 / ndim)
    bound = math.sqrt(6 / 300) / 30
    for layer in [*net.sines[1:], net.output]:
        assert_uniform(layer.weight, -bound, bound)
        assert_uniform(layer.bias, -1 / math.sqrt(300), 1 / math.sqrt(300))


@pytest.mark.parametrize(("make", "loop"), SMALL, ids=IDS)
def test_reset_draws_every_parameter_anew(
    make: Callable[..., ContinuousKernel], loop: Callable[..., Values]
) -> None:
    net = make(2, 3)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    net.reset_parameters()
    assert all((value != before[name]).any() for name, value in net.named_parameters())


def test_place_moves_the_centres_and_nothing_else() -> None:
    net = MAGNet(2, 3, hidden=400)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    net.place((0.5, -0.25), (0.1, 0.3))
    assert_uniform(net.center[..., 0], 0.4, 0.6)
    assert_uniform(net.center[..., 1], -0.55, 0.05)
    for name, value in net.named_parameters():
        assert name == "center" or torch.equal(value, before[name])


@pytest.mark.parametrize("kind", [Fourier, SIREN, NSIREN, MLP])
def test_place_leaves_networks_without_centres_alone(kind: type[ContinuousKernel]) -> None:
    net = kind(2, 3)
    before = [value.detach().clone() for value in net.parameters()]
    net.place((0.5, 0.5), (0.1, 0.1))
    assert all(map(torch.equal, before, net.parameters()))


# ---- coordinates and errors ----------------------------------------------------------------------


def test_coordinates_are_exact_at_the_ends_and_in_the_middle() -> None:
    like = torch.zeros(1)
    for size in (2, 3, 4, 9, 33, 161, 784):
        axis = coordinate_axis(size, 0, size, like)
        torch.testing.assert_close(axis, torch.linspace(-1, 1, size))
        assert axis[0] == -1
        assert axis[-1] == 1
        if size % 2:
            assert axis[size // 2] == 0
        assert torch.equal(coordinate_axis(size, 1, size - 1, like), axis[1:-1])
    assert coordinate_axis(1, 0, 1, like).tolist() == [0.0]


def test_grids_vary_the_first_coordinate_along_the_rows() -> None:
    grid = coordinate_grid([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0, 5.0])])
    assert grid[..., 0].tolist() == [[1, 1, 1], [2, 2, 2]]
    assert grid[..., 1].tolist() == [[3, 4, 5], [3, 4, 5]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MAGNet(4, 1), "ndim"),
        (lambda: MAGNet(2, 0), "out_features"),
        (lambda: MAGNet(2, 1, hidden=0), "hidden"),
        (lambda: MAGNet(2, 1, layers=0), "layers"),
        (lambda: MAGNet(2, 1, input_scale=0.0), "input_scale"),
        (lambda: Fourier(2, 1, input_scale=-1.0), "input_scale"),
        (lambda: SIREN(2, 1, layers=1), "layers"),
        (lambda: SIREN(2, 1, omega_0=0.0), "omega_0"),
        (lambda: MLP(2, 1, hidden=()), "hidden"),
        (lambda: MLP(2, 1, hidden=(3, 0)), "hidden"),
        (lambda: MAGNet(2, 1)(torch.zeros(5, 3)), "coordinates"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("make", "loop"), SMALL, ids=IDS)
def test_networks_can_be_made_on_the_meta_device(
    make: Callable[..., ContinuousKernel], loop: Callable[..., Values]
) -> None:
    net = make(2, 3, device="meta", dtype=torch.float64)
    assert {(p.is_meta, p.dtype) for p in net.parameters()} == {(True, torch.float64)}
