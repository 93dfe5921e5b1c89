"""Learned strides that become whole ones, and the description of an ordinary network."""

import re

import pytest
import torch
import yaml
from torch import nn

import sizeless
from sizeless import DiffStride1d, DiffStride2d, DiffStride3d, FlexConv1d, FlexConv2d, NIFFConv2d
from sizeless.models.small import DiffStrideNet
from sizeless.surgery import architecture

from .folding import error_of, ours_in

IMAGE = (1, 1, 21, 18)


def folded(model, *, within=0.5, image=None, **options):
    image = torch.randn(IMAGE) if image is None else image
    plain, report = sizeless.fold(model.eval(), image, integer_strides=within, **options)
    assert not ours_in(plain)
    return plain, report


def kinds(model):
    return [type(part) for part in model]


def test_a_convolution_takes_the_stride_after_it():
    conv = nn.Conv2d(1, 4, 3, padding=1)
    plain, report = folded(nn.Sequential(conv, DiffStride2d((2.3, 2.8)), nn.ReLU()))
    assert kinds(plain) == [nn.Conv2d, nn.Identity, nn.ReLU]
    assert plain[0].stride == (2, 3)
    assert torch.equal(plain[0].weight, conv.weight)
    (change,) = report.changes
    assert (change.name, change.before, change.after) == ("1", "DiffStride2d", "Conv2d")
    assert change.size_before == pytest.approx((2.3, 2.8))
    assert change.size_after == (2, 3)
    assert change.reason == "rounded, and taken by 0"
    image = torch.randn(IMAGE)
    cost = sizeless.cost(plain, image)
    assert int(cost.macs) == change.macs_after
    assert change.macs_before == int(
        sizeless.cost(nn.Sequential(conv, DiffStride2d((2.3, 2.8))), image).macs
    )


def test_it_is_the_strided_convolution():
    conv = nn.Conv2d(1, 4, 3, padding=1)
    image = torch.randn(IMAGE)
    plain, report = folded(nn.Sequential(conv, DiffStride2d(1.9)), image=image)
    expected = nn.functional.conv2d(image, conv.weight, conv.bias, 2, 1)
    assert torch.equal(plain(image), expected)
    assert kinds(plain) == [nn.Conv2d]
    assert report.notes == (
        "Strides were rounded: the network computes something else, and is to be fine-tuned.",
    )


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(1, 4, 3),
        nn.Conv2d(1, 4, 4, padding=1),
        nn.Conv2d(1, 4, 3, padding="same", dilation=2),
        nn.Conv2d(1, 4, 3, padding="valid"),
        nn.Conv2d(1, 4, 5, padding=2, padding_mode="reflect"),
        nn.Conv2d(1, 4, 3, stride=2),
        nn.MaxPool2d(3, 1, padding=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("stride", [2.2, 2.9])
def test_maps_are_as_large_as_after_the_stride(conv, stride):
    image = torch.randn(IMAGE)
    plain, _ = folded(nn.Sequential(conv, DiffStride2d(stride, size_rule="exact")), image=image)
    assert kinds(plain) == [type(conv)]
    size = conv(image).shape[2:]
    whole = round(stride)
    assert plain(image).shape[2:] == torch.Size(-(-n // whole) for n in size)
    assert torch.equal(plain(image), conv(image)[..., ::whole, ::whole])


@pytest.mark.parametrize(
    ("conv", "pool", "spatial"),
    [
        (FlexConv1d(2, 3, 9, init_size=5), DiffStride1d(1.8), (20,)),
        (FlexConv1d(2, 3, 9, init_size=5, causal=True), DiffStride1d(1.8), (20,)),
        (nn.Conv3d(2, 3, 3, padding=1), DiffStride3d((1.8, 1.2, 2.9)), (7, 8, 9)),
    ],
)
def test_on_other_numbers_of_axes(conv, pool, spatial):
    image = torch.randn(2, 2, *spatial)
    expected = conv.eval()(image)
    plain, _ = folded(nn.Sequential(conv, pool), image=image)
    every = tuple(slice(None, None, round(s)) for s in pool.stride)
    assert error_of(plain(image), expected[(..., *every)]) < 1e-5


def test_a_flexconv_takes_the_stride_and_is_folded():
    conv = FlexConv2d(1, 4, 9, init_size=5, stride=2)
    image = torch.randn(IMAGE)
    expected = conv.eval()(image)[..., ::2, ::2]
    plain, report = folded(nn.Sequential(conv, DiffStride2d(2.0)), image=image)
    assert kinds(plain) == [nn.Conv2d]
    assert plain[0].stride == (4, 4)
    assert error_of(plain(image), expected) < 1e-5
    assert [change.name for change in report.changes] == ["1", "0"]
    assert [change.after for change in report.changes] == ["Conv2d", "Conv2d"]
    macs = sum(change.macs_after for change in report.changes)
    assert macs == int(sizeless.cost(plain, image).macs)


def test_a_pointwise_convolution_takes_the_stride_before_it():
    conv = nn.Conv2d(1, 4, 1)
    model = nn.Sequential(nn.ReLU(), nn.Sequential(DiffStride2d(2.2), conv))
    plain, report = folded(model)
    assert kinds(plain) == [nn.ReLU, nn.Conv2d]
    assert plain[1].stride == (2, 2)
    assert report.changes[0].reason == "rounded, and taken by 1"


def test_a_stride_alone_becomes_an_average():
    plain, report = folded(nn.Sequential(nn.ReLU(), DiffStride2d((2.2, 1.3)), nn.ReLU()))
    assert kinds(plain) == [nn.ReLU, nn.AvgPool2d, nn.ReLU]
    assert plain[1].kernel_size == (2, 1)
    assert plain(torch.randn(IMAGE)).shape[2:] == (11, 18)
    assert report.changes[0].reason == "rounded"


def test_a_stride_of_one_is_nothing():
    plain, _ = folded(nn.Sequential(nn.Conv2d(1, 2, 3), DiffStride2d(1.2), nn.ReLU()))
    assert kinds(plain) == [nn.Conv2d, nn.Identity, nn.ReLU]
    assert plain[0].stride == (1, 1)


@pytest.mark.parametrize(
    ("within", "pool"), [(0, nn.Sequential), (0.1, nn.Sequential), (0.2, nn.AvgPool2d)]
)
def test_what_is_further_away_stays_exact(within, pool):
    plain, report = folded(
        nn.Sequential(DiffStride2d((3.0, 2.15), size_rule="exact"), nn.ReLU()), within=within
    )
    assert type(plain[0]) is pool
    assert (report.error < 1e-5) == (pool is nn.Sequential)
    assert bool(report.notes) == (pool is nn.AvgPool2d)


def test_a_convolution_that_is_called_twice_keeps_its_stride():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    plain, _ = folded(nn.Sequential(conv, DiffStride2d(2.0), conv))
    assert kinds(plain) == [nn.Conv2d, nn.AvgPool2d, nn.Conv2d]
    assert plain[0] is plain[2]
    assert plain[0].stride == (1, 1)


def test_maps_of_other_sizes_reach_what_comes_later():
    model = nn.Sequential(
        DiffStride2d(2.0, size_rule="paper"), NIFFConv2d(1, 2), nn.ReLU(), DiffStride2d(1.4)
    )
    plain, report = folded(model, within=0.2)
    assert report.error is not None or plain(torch.randn(IMAGE)).dim() == 4
    niff = next(change for change in report.changes if change.before == "NIFFConv2d")
    assert niff.size_after == (11, 9)


def test_a_map_of_another_size_has_no_error():
    _, report = folded(nn.Sequential(DiffStride2d(2.0, size_rule="paper")))
    assert report.error is None


def test_branches_of_our_residual_blocks_agree():
    model = DiffStrideNet(1, 5, (4, 6), stride=2.3)
    plain, report = folded(model)
    assert plain(torch.randn(3, *IMAGE[1:])).shape == (3, 5)
    takers = [change.after for change in report.changes]
    assert takers == ["Conv2d", "AvgPool2d", "Conv2d", "Conv2d"]
    assert plain.get_submodule("blocks.0.conv1").stride == (2, 2)
    assert plain.get_submodule("blocks.1.shortcut").stride == (2, 2)
    assert report.error > 0
    assert all(parameter.requires_grad for parameter in plain.parameters())


@pytest.mark.parametrize("stride", [1.3, 2.2, 2.8])
def test_a_converted_residual_network_is_an_ordinary_one_again(stride):
    vision = pytest.importorskip("torchvision")
    network, image = vision.models.resnet18(num_classes=5).eval(), torch.randn(1, 3, 64, 64)
    learned, _ = sizeless.convert(network, image, downsample="diffstride")
    for module in learned.modules():
        if isinstance(module, DiffStride2d):
            nn.init.constant_(module.log2_stride, torch.tensor(stride).log2())
    plain, _ = folded(learned, image=image)
    whole = round(stride)
    assert plain(image).shape == (1, 5)
    assert [name for name, _ in plain.named_parameters()] == [
        name for name, _ in network.named_parameters()
    ]
    assert plain.layer2[0].conv1.stride == plain.layer2[0].downsample[0].stride == (whole, whole)
    if whole == 2:
        # The strides that it had.
        assert error_of(plain(image), network(image)) < 1e-5


def test_a_network_that_needs_its_maps_is_refused():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), DiffStride2d(2.0, size_rule="paper"), nn.Flatten(), nn.LazyLinear(3)
    )
    image = torch.randn(IMAGE)
    model(image)
    start = "the network does not run with strides rounded by up to integer_strides=0.1: "
    with pytest.raises(ValueError, match=f"^{re.escape(start)}.*; lower it, or leave it at 0$"):
        folded(model, within=0.1, image=image)


@pytest.mark.parametrize("within", [-0.1, 0.6, "integer"])
def test_wrong_distances(within):
    error = TypeError if isinstance(within, str) else ValueError
    with pytest.raises(error, match=r"^integer_strides must be a"):
        sizeless.fold(DiffStride2d(), torch.randn(IMAGE), integer_strides=within)


def test_architecture_describes_every_kind_of_layer():
    model = nn.Sequential(
        FlexConv2d(1, 4, (33, 31), init_size=(5, 3), stride=2, groups=1, padding_mode="circular"),
        DiffStride2d((2.4, 1.2)),
        NIFFConv2d(4, 8, groups=4),
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = architecture(model, torch.randn(IMAGE), energy=0.9)
    assert yaml.safe_load(yaml.safe_dump(found)) == found
    assert list(found) == ["0", "1", "2"]
    assert found["0"] == {
        "layer": "FlexConv2d",
        "class": "Conv2d",
        "arguments": {
            "in_channels": 1,
            "out_channels": 4,
            "kernel_size": [5, 3],
            "stride": [2, 2],
            "padding": [2, 1],
            "dilation": [1, 1],
            "groups": 1,
            "padding_mode": "circular",
            "bias": True,
        },
    }
    assert found["1"] == {
        "layer": "DiffStride2d",
        "stride": pytest.approx([2.4, 1.2]),
        "class": "AvgPool2d",
        "arguments": {"kernel_size": [2, 1], "ceil_mode": True},
    }
    assert found["2"]["layer"] == "NIFFConv2d"
    assert found["2"]["arguments"]["groups"] == 4
    assert all(taps % 2 for taps in found["2"]["arguments"]["kernel_size"])
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_an_ordinary_layer_is_built_from_its_description():
    layer = FlexConv1d(2, 4, 20, init_size=5, causal=True, dilation=2)
    entry = architecture(nn.Sequential(layer))["0"]
    pad, conv = (
        getattr(nn, entry["pad"]["class"])(entry["pad"]["padding"], 0.0),
        getattr(nn, entry["class"])(**entry["arguments"]),
    )
    series = torch.randn(2, 2, 30)
    assert conv(pad(series)).shape == layer(series).shape


def test_a_stride_near_one_is_described_as_nothing():
    entry = architecture(DiffStride2d(1.2))[""]
    assert (entry["class"], entry["arguments"]) == ("Identity", {})


def test_shared_layers_are_described_at_every_path():
    pool = DiffStride2d(2.0)
    assert list(architecture(nn.Sequential(pool, nn.ReLU(), pool))) == ["0", "2"]


def test_a_filter_needs_the_size_of_its_map():
    message = (
        "architecture cannot describe the NIFFConv2d at '0': it is not called for the example "
        "input, so the size of its maps is not known; take it out, or give an input for which it "
        "is called"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        architecture(nn.Sequential(NIFFConv2d(1, 1)))
