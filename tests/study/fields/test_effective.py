from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import nn
from torch.nn import functional as F

import sizeless
from sizeless.models import FlexTCN
from sizeless.models.small import DiffStrideNet, SmallResNet
from sizeless.study.control import untrained
from sizeless.study.fields.effective import LayerMap, effective_receptive_field


def density(network, example, **options):
    return effective_receptive_field(network, example, **options).layers[-1].density


def layer_map(mass, span=None):
    mass = np.asarray(mass, dtype=float)
    span = span or tuple((0.0, n - 1.0) for n in mass.shape)
    ones = (1,) * mass.ndim
    return LayerMap("", ones, ones, mass / max(mass.sum(), 1e-9), span, mass.shape)


def test_one_convolution_gives_its_kernel():
    layer = nn.Conv2d(3, 1, (3, 5), padding=(1, 2))
    expected = np.zeros((9, 11))
    expected[3:6, 3:8] = layer.weight.detach().abs().sum((0, 1))
    found = density(layer, torch.randn(2, 3, 9, 11))
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5, atol=1e-9)


def composed(kernels):
    """The kernel of convolutions after each other, by the definition, ``(out, in, taps)``."""
    whole = kernels[0]
    for kernel in kernels[1:]:
        taps = whole.shape[2] + kernel.shape[2] - 1
        longer = np.zeros((len(kernel), whole.shape[1], taps))
        for out, hidden, t in np.ndindex(kernel.shape):
            longer[out, :, t : t + whole.shape[2]] += kernel[out, hidden, t] * whole[hidden]
        whole = longer
    return whole


def test_linear_layers_give_their_composed_kernel():
    layers = [nn.Conv1d(2, 4, 3), nn.Conv1d(4, 3, 5), nn.Conv1d(3, 1, 2)]
    network = nn.Sequential(*layers).double()
    kernel = composed([layer.weight.detach().numpy() for layer in layers])[0]
    found = effective_receptive_field(network, torch.ones(1, 2, 30).double()).layers[-1]
    expected = np.zeros(30)
    start = found.position[0]
    expected[start : start + 8] = np.abs(kernel).sum(axis=0)
    np.testing.assert_allclose(found.density, expected / expected.sum(), rtol=1e-6, atol=1e-12)
    assert found.span == ((start, start + 7),)


def test_linear_layers_with_strides_answer_impulses_in_proportion():
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1, bias=False),
        sizeless.DiffStride2d(1.7, size_rule="exact"),
        nn.Conv2d(3, 1, 3, padding=1, bias=False),
    ).double()
    impulses = torch.eye(16 * 12).reshape(-1, 1, 16, 12).double()
    found = effective_receptive_field(network, torch.ones(1, 1, 16, 12).double()).layers[-1]
    row, column = found.position
    answers = network(impulses)[:, 0, row, column].detach().abs().numpy().reshape(16, 12)
    np.testing.assert_allclose(found.density, answers / answers.sum(), rtol=1e-6, atol=1e-12)


def random_stack(count):
    layers = [nn.Conv2d(16 if i else 1, 16, 3, padding=1) for i in range(count)]
    return nn.Sequential(*layers)


# A step of a layer has the variance 2/3 along each of two axes. The mean absolute value of what is
# distributed as a Gaussian of that spread is its root, which is wider by the root of 2.
@pytest.mark.parametrize(
    ("measure", "expected"), [("square", math.sqrt(4 / 3)), ("absolute", math.sqrt(8 / 3))]
)
@pytest.mark.parametrize("count", [8, 18])
def test_the_radius_of_random_layers_grows_as_the_root_of_their_number(measure, expected, count):
    example = torch.ones(1, 1, 2 * count + 5, 2 * count + 5)
    torch.manual_seed(0)
    found = effective_receptive_field(
        random_stack(count),
        example,
        control=[random_stack(count) for _ in range(4)],
        samples=12,
        measure=measure,
    )
    radii = [found.layers[-1].radius, *(layers[-1].radius for layers in found.control)]
    assert np.mean(radii) / math.sqrt(count) == pytest.approx(expected, rel=0.06)


def test_sides_and_radius_of_known_masses():
    square = np.zeros((15, 15))
    square[4:11, 4:11] = 1
    found = layer_map(square)
    assert found.center == pytest.approx((7, 7))
    assert (found.side(50), found.side(90), found.side(95)) == (5, 7, 7)
    assert found.radius == pytest.approx(math.sqrt(2 * np.mean(np.arange(-3, 4) ** 2)))
    assert layer_map([0, 0, 1, 0]).side(95) == 1
    assert layer_map([1, 2, 4, 2, 1, 0, 0]).side(80) == 3
    assert layer_map(np.ones((5, 5, 5))).side(100) == 5
    assert layer_map([0, 1, 1, 0], span=((1, 2),)).side(95) == 2


def test_no_mass_has_no_size():
    found = layer_map(np.zeros((4, 4)))
    assert np.isnan([found.radius, found.side(50), *found.center]).all()


def test_the_mass_lies_inside_the_receptive_field():
    torch.manual_seed(0)
    network = SmallResNet(1, 3, widths=(4, 8))
    for layer in effective_receptive_field(network, torch.randn(2, 1, 48, 48)).layers:
        inside = np.zeros_like(layer.density)
        first, second = (slice(max(0, int(a)), int(b) + 1) for a, b in layer.span)
        inside[first, second] = 1
        assert layer.density[inside == 0].sum() == 0
        assert layer.density.sum() == pytest.approx(1)


def test_the_last_map_of_each_size_is_asked():
    class Ladder(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.down = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, 2, 1)
            self.middle = nn.Conv2d(1, 1, 3, padding=1)
            self.up, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(1, 2)

        def forward(self, input):
            upper = self.up(F.interpolate(self.middle(self.down(self.stem(input))), scale_factor=2))
            return self.head(upper.mean((2, 3)))

    found = effective_receptive_field(Ladder(), torch.randn(1, 1, 12, 12))
    assert [(layer.name, layer.map_size) for layer in found.layers] == [
        ("middle", (6, 6)),
        ("up", (12, 12)),
    ]


def test_layers_are_asked_by_name():
    network = SmallResNet(1, 3, widths=(2, 4))
    names = ["blocks.1", "stem"]
    found = effective_receptive_field(network, torch.randn(1, 1, 12, 12), layers=names)
    assert [layer.name for layer in found.layers] == names


def test_causal_networks_are_asked_at_the_last_step():
    network = FlexTCN(1, 3, kernel_size=20, width=4, init_size=5)
    found = effective_receptive_field(network, torch.randn(2, 1, 40)).layers[-1]
    assert found.position == (39,)
    assert found.field == (17,)
    assert found.density[39] > 0
    assert found.density[: 39 - 16].sum() == 0


def test_channels_last_maps_are_read_along_their_axes():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.mix = nn.Conv2d(1, 4, (3, 1)), nn.Linear(4, 4)

        def forward(self, input):
            return self.mix(self.conv(input).permute(0, 2, 3, 1))

    found = effective_receptive_field(Last(), torch.ones(1, 1, 12, 10), layers=["mix"]).layers[0]
    assert found.position == (5, 5)
    assert {tuple(place) for place in np.argwhere(found.density)} == {(5, 5), (6, 5), (7, 5)}


def test_work_in_place_does_not_change_what_was_asked():
    torch.manual_seed(0)
    conv = nn.Conv1d(1, 1, 3, padding=1)
    nn.init.constant_(conv.bias, -100.0)
    network = nn.Sequential(nn.ReLU(inplace=True), conv, nn.ReLU(inplace=True))
    example = torch.rand(1, 1, 9) + 1
    found = density(network, example, layers=["1"])
    weight = conv.weight.detach().abs().flatten().numpy()
    np.testing.assert_allclose(found[3:6], weight / weight.sum(), rtol=1e-5)
    assert example.min() >= 1


def test_projections_depend_on_the_seed_alone():
    network, example = nn.Conv1d(1, 8, 5), torch.ones(1, 1, 20)
    before = torch.get_rng_state()
    one, again, other = (density(network, example, samples=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


def test_squares_average_to_the_energy_of_the_kernel():
    layer = nn.Conv1d(2, 6, 5)
    energy = layer.weight.detach().square().sum((0, 1)).numpy()
    found = density(layer, torch.ones(1, 2, 20), samples=4000, measure="square")
    np.testing.assert_allclose(found[found > 0], energy / energy.sum(), rtol=0.1)


def test_samples_are_rounded_up_to_whole_batches():
    found = effective_receptive_field(nn.Conv1d(1, 1, 3), torch.ones(4, 1, 9), samples=6)
    assert found.samples == 8


def test_of_a_long_batch_the_first_inputs_are_taken():
    torch.manual_seed(0)
    network, example = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU()), torch.randn(9, 1, 12)
    found = effective_receptive_field(network, example, samples=2)
    np.testing.assert_array_equal(
        found.layers[-1].density, density(network, example[:2], samples=2)
    )
    assert found.samples == 2


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(context):
    layer = nn.Conv1d(1, 1, 3)
    expected = density(layer, torch.ones(1, 1, 9))
    with context():
        found = density(layer, torch.ones(1, 1, 9))
    np.testing.assert_array_equal(found, expected)


def state_of(network):
    return [
        *(module.training for module in network.modules()),
        *((p.requires_grad, p.grad is None) for p in network.parameters()),
        *(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()),
    ]


class Failing(nn.Module):
    def forward(self, input):
        if torch.is_grad_enabled():
            raise RuntimeError("no gradients here")
        return input


@pytest.mark.parametrize("fails", [False, True])
def test_a_network_is_left_as_it_was(fails):
    last = Failing() if fails else nn.Identity()
    network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Dropout(), last)
    network[0].weight.requires_grad_(False)
    network[2].eval()
    before, values = state_of(network), {k: v.clone() for k, v in network.state_dict().items()}
    if fails:
        with pytest.raises(RuntimeError, match="no gradients here"):
            effective_receptive_field(network, torch.randn(2, 1, 9))
    else:
        effective_receptive_field(network, torch.randn(2, 1, 9))
    assert state_of(network) == before
    assert all(torch.equal(value, values[k]) for k, value in network.state_dict().items())


@pytest.mark.parametrize("layer", [sizeless.FlexConv1d(1, 1, 9), sizeless.NIFFConv1d(1, 1)])
def test_layers_that_keep_kernels_train_afterwards(layer):
    example = torch.randn(2, 1, 16)
    effective_receptive_field(layer, example)
    layer(example).square().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_untrained_networks_are_measured_in_the_same_way():
    torch.manual_seed(0)
    make = lambda: SmallResNet(1, 3, widths=(2, 4))  # noqa: E731
    example = torch.randn(2, 1, 16, 16)
    found = effective_receptive_field(make(), example, control=untrained(make, draws=2))
    alone = [effective_receptive_field(n, example).table() for n in untrained(make, draws=2)]
    table = found.table()
    for key in ("side_50", "side_90", "side_95", "radius"):
        values = np.array([one[key] for one in alone])
        np.testing.assert_allclose(table[f"untrained_{key}"], values.mean(axis=0))
        np.testing.assert_allclose(table[f"untrained_{key}_std"], values.std(axis=0))


class Paired(nn.Module):
    """Two maps and a number; the gradient is that of the first map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, maps, scale):
        return self.conv(maps["first"]) * scale + maps["second"]


def test_a_tuple_holds_all_arguments():
    maps = {"first": torch.ones(1, 1, 9), "second": torch.ones(1, 1, 9)}
    found = effective_receptive_field(Paired(), (maps, torch.tensor(2.0))).layers[-1]
    assert np.flatnonzero(found.density).tolist() == [3, 4, 5]


NETWORKS = {
    "1-D": (nn.Sequential(nn.Conv1d(1, 2, 5, 2), nn.ReLU(), nn.Conv1d(2, 2, 3)), (2, 1, 40)),
    "2-D": (DiffStrideNet(1, 3, widths=(2, 4)), (2, 1, 16, 24)),
    "3-D": (nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv3d(2, 1, 3)), (1, 1, 8, 9, 10)),
    "long": (nn.Conv2d(1, 1, (1, 5)), (1, 1, 3, 60)),
    "whole": (sizeless.NIFFConv2d(1, 1), (1, 1, 8, 8)),
}


@pytest.mark.parametrize(("network", "shape"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("draws", [0, 2])
def test_files_of_numbers_and_picture_are_written(network, shape, draws, tmp_path):
    torch.manual_seed(0)
    controls = [network] * draws
    found = effective_receptive_field(network, torch.randn(shape), control=controls, samples=2)
    paths = {path.suffix: path for path in found.save(tmp_path)}
    assert {path.stem for path in paths.values()} == {"effective_field"}
    assert imread(paths[".png"]).std() > 0.02
    assert ("untrained" in found.caption()) == (draws > 0)


def test_a_layer_that_no_gradient_passes_is_told_so():
    dead = nn.Conv2d(1, 1, 3, stride=2)
    nn.init.zeros_(dead.weight)
    found = effective_receptive_field(
        nn.Sequential(nn.Conv2d(1, 1, 3), dead), torch.ones(1, 1, 9, 9)
    )
    assert found.table()["side_95"].isna().tolist() == [False, True]
    title = [axes.get_title() for axes in found.figure().axes][1]
    assert "no gradient" in title


def nan_layer():
    layer = nn.Conv1d(1, 1, 3)
    nn.init.constant_(layer.weight, math.nan)
    return layer


class Detached(nn.Conv1d):
    def forward(self, input):
        return super().forward(input.detach())


EXAMPLE = torch.ones(1, 1, 9)


@pytest.mark.parametrize(
    ("network", "options", "error", "words"),
    [
        (nn.Conv1d, {}, TypeError, "model must be an instance"),
        (nn.Conv1d(1, 1, 3), {"samples": 0}, ValueError, "samples must be at least 1"),
        (nn.Conv1d(1, 1, 3), {"measure": "cube"}, ValueError, "measure must be 'absolute'"),
        (nn.Conv1d(1, 1, 3), {"layers": ["conv"]}, ValueError, "'conv', which is no module"),
        (nn.Conv1d(1, 1, 3), {"layers": []}, ValueError, "layers must name one module"),
        (
            nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten()),
            {"layers": ["1"]},
            ValueError,
            "'1', which returned no map of the input; such are 0",
        ),
        (nn.AdaptiveAvgPool1d(1), {}, ValueError, "no layer whose output is a map"),
        (nan_layer(), {}, ValueError, "not finite"),
        (Detached(1, 1, 3), {}, ValueError, "passes no gradient to its input"),
        (
            nn.Sequential(nn.Conv1d(1, 1, 3)),
            {"layers": ["0"], "control": [nn.Conv1d(1, 1, 3)]},
            ValueError,
            "without a map at 0",
        ),
    ],
)
def test_wrong_arguments_are_named(network, options, error, words):
    with pytest.raises(error, match=words):
        effective_receptive_field(network, EXAMPLE, **options)
