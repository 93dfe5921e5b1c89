"""Torchvision's networks with NIFF: counts, structure and start that the paper's program has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sizeless
from sizeless import models
from sizeless.models import niff_backbone, niff_mobilenet_v2, niff_resnet18
from sizeless.nn import NIFFConv2d, SeparableNIFFConv2d

BIG = (16, 128, 32)
BIASES = ("bias", "depthwise.bias", "pointwise.bias")
BACKBONES = {
    "niff_resnet18": "resnet18",
    "niff_resnet34": "resnet34",
    "niff_resnet50": "resnet50",
    "niff_resnet101": "resnet101",
    "niff_resnet152": "resnet152",
    "niff_densenet121": "densenet121",
    "niff_convnext_tiny": "convnext_tiny",
    "niff_convnext_small": "convnext_small",
    "niff_convnext_base": "convnext_base",
    "niff_mobilenet_v2": "mobilenet_v2",
    "niff_mobilenet_v3": "mobilenet_v3_large",
    "niff_mobilenet_v3_small": "mobilenet_v3_small",
}


@pytest.fixture
def torchvision() -> Any:
    return pytest.importorskip("torchvision.models", reason="torchvision is an extra")


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def filters_of(model: nn.Module) -> list[NIFFConv2d]:
    return [module for module in model.modules() if isinstance(module, NIFFConv2d)]


def on_meta(make: Callable[..., nn.Module], *arguments: Any, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return make(*arguments, **options)


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("name", "classes", "options", "expected"),
    [
        ("resnet18", 1000, {}, 3_331_904),
        ("resnet18", 100, {}, 2_870_204),
        ("resnet18", 10, {}, 2_824_034),
        ("resnet18", 1000, {"hidden": BIG}, 3_660_360),
        ("resnet18", 100, {"hidden": BIG}, 3_198_660),
        ("resnet18", 10, {"hidden": BIG}, 3_152_490),
        ("resnet18", 1000, {"form": "full"}, 21_127_320),
        ("resnet18", 100, {"form": "full"}, 20_665_620),
        ("resnet18", 10, {"form": "full"}, 20_619_450),
        ("resnet34", 1000, {}, 4_500_672),
        ("resnet34", 1000, {"form": "full"}, 41_336_984),
        ("resnet50", 1000, {}, 18_280_128),
        ("resnet50", 100, {}, 16_436_028),
        ("resnet50", 10, {}, 16_251_618),
        ("resnet50", 1000, {"hidden": BIG}, 18_605_000),
        ("resnet50", 100, {"hidden": BIG}, 16_760_900),
        ("resnet50", 10, {"hidden": BIG}, 16_576_490),
        ("resnet50", 1000, {"form": "full"}, 33_778_328),
        ("resnet50", 100, {"form": "full"}, 31_934_228),
        ("resnet50", 10, {"form": "full"}, 31_749_818),
        ("resnet101", 1000, {}, 28_404_920),
        ("resnet101", 100, {}, 26_560_820),
        ("resnet101", 10, {}, 26_376_410),
        ("resnet101", 1000, {"hidden": BIG}, 29_187_432),
        ("resnet101", 100, {"hidden": BIG}, 27_343_332),
        ("resnet101", 10, {"hidden": BIG}, 27_158_922),
        ("resnet101", 1000, {"form": "full"}, 62_798_280),
        ("resnet101", 100, {"form": "full"}, 60_954_180),
        ("resnet101", 10, {"form": "full"}, 60_769_770),
        ("resnet152", 1000, {}, 36_748_976),
        ("resnet152", 1000, {"form": "full"}, 86_700_280),
        ("densenet121", 1000, {}, 6_159_512),
        ("densenet121", 100, {}, 5_237_012),
        ("densenet121", 10, {}, 5_144_762),
        ("densenet121", 1000, {"form": "full"}, 10_119_752),
        ("densenet121", 100, {"form": "full"}, 9_197_252),
        ("densenet121", 10, {"form": "full"}, 9_105_002),
        ("mobilenet_v2", 1000, {}, 3_512_560),
        ("mobilenet_v2", 100, {}, 2_359_660),
        ("mobilenet_v2", 10, {}, 2_244_370),
        ("convnext_tiny", 1000, {}, 28_890_664),
        ("convnext_tiny", 100, {}, 28_198_564),
        ("convnext_tiny", 10, {}, 28_129_354),
    ],
)
def test_parameter_count(name: str, classes: int, options: dict[str, Any], expected: int) -> None:
    make = getattr(models, f"niff_{name}")
    assert count(on_meta(make, num_classes=classes, **options)) == expected


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("name", "layers", "parameters"),
    [
        ("resnet18", 13, 31_000),
        ("resnet50", 13, 30_360),
        ("resnet101", 30, 75_920),
        ("densenet121", 58, 81_200),
        ("convnext_tiny", 18, 665_856),
        ("mobilenet_v2", 13, 62_840),
    ],
)
def test_filters_and_their_parameters(name: str, layers: int, parameters: int) -> None:
    filters = filters_of(on_meta(getattr(models, f"niff_{name}")))
    assert len(filters) == layers
    assert sum(map(count, filters)) == parameters


@pytest.mark.parametrize(("function", "name"), BACKBONES.items())
def test_what_is_not_replaced_is_torchvisions(torchvision: Any, function: str, name: str) -> None:
    made = on_meta(getattr(models, function), num_classes=7)
    plain = on_meta(getattr(torchvision, name), num_classes=7)
    assert type(made) is type(plain)
    for path, old in plain.named_modules():
        new = made.get_submodule(path)
        if isinstance(old, nn.Conv2d) and min(old.kernel_size) > 1 and old.stride == (1, 1):
            assert type(new) is (NIFFConv2d if old.groups > 1 else SeparableNIFFConv2d)
            assert not any(name in dict(new.named_parameters()) for name in BIASES)
            continue
        assert type(new) is type(old)
        if isinstance(old, nn.Conv2d):
            assert repr(new) == repr(old)


def test_convnext_loses_the_biases_of_its_blocks_alone(torchvision: Any) -> None:
    made = on_meta(models.niff_convnext_tiny).state_dict()
    plain = on_meta(torchvision.convnext_tiny).state_dict()
    lost = {key for key in plain.keys() - made.keys() if key.endswith("bias")}
    assert len(lost) == 18 * 3
    assert all(".block." in key for key in lost)


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("form", ["split", "full"])
def test_resnet_trains_on_small_images(form: str) -> None:
    model = niff_resnet18(2, 3, form=form, small_images=True)
    maps: list[tuple[int, ...]] = []
    for layer in filters_of(model):
        layer.register_forward_hook(lambda _, __, output: maps.append(tuple(output.shape[2:])))
    scores = model(torch.randn(2, 2, 8, 6))
    assert scores.shape == (2, 3)
    assert maps == [(8, 6)] * 4 + [(4, 3)] * 3 + [(2, 2)] * 3 + [(1, 1)] * 3
    nn.functional.cross_entropy(scores, torch.tensor([0, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(layer.real.output.weight.grad.abs().max() > 0 for layer in filters_of(model))


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("densenet121", 16, {"form": "full"}),
        ("convnext_tiny", 8, {}),
        ("mobilenet_v2", 16, {"boundary": "zeros"}),
        ("mobilenet_v3_small", 16, {"frequency_unit": "cycles/pixel"}),
    ],
)
def test_other_backbones_compute(name: str, side: int, options: dict[str, Any]) -> None:
    model = niff_backbone(name, 1, 4, small_images=True, hidden=(2,), **options).eval()
    with torch.no_grad():
        scores = model(torch.randn(1, 1, side, side))
    assert scores.shape == (1, 4)
    assert scores.isfinite().all()
    for layer in filters_of(model):
        assert all(getattr(layer, key) == options[key] for key in options.keys() - {"form"})


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "convnext_tiny", "mobilenet_v2"])
def test_stems(torchvision: Any, name: str) -> None:
    def stem(model: nn.Module) -> nn.Conv2d:
        return next(m for m in model.modules() if isinstance(m, nn.Conv2d))

    def pools(model: nn.Module) -> int:
        return sum(isinstance(module, nn.MaxPool2d) for module in model.modules())

    network, model = on_meta(getattr(torchvision, name)), on_meta(niff_backbone, name, 5)
    assert pools(model) == pools(network)
    plain, wide = stem(network), stem(model)
    assert wide.weight.shape == (plain.out_channels, 5, *plain.kernel_size)
    assert (wide.stride, wide.padding) == (plain.stride, plain.padding)
    assert (wide.bias is None) == (plain.bias is None)
    model = on_meta(niff_backbone, name, 5, small_images=True)
    small = stem(model)
    assert small.weight.shape == (plain.out_channels, 5, 3, 3)
    assert (small.stride, small.padding) == ((1, 1), (1, 1))
    assert (small.bias is None) == (plain.bias is None)
    assert pools(model) == 0


def scaled(model: nn.Module, fan: Callable[[Tensor], int]) -> Tensor:
    """All weights of all filter networks, times the root of a fan."""
    weights = [
        linear.weight * fan(linear.weight) ** 0.5
        for layer in filters_of(model)
        for network in (layer.real, layer.imag)
        for linear in [*network.linears, network.output]
    ]
    return torch.cat([weight.flatten() for weight in weights]).detach()


def biases(model: nn.Module) -> Tensor:
    networks = [network for layer in filters_of(model) for network in (layer.real, layer.imag)]
    return torch.cat([network.output.bias for network in networks]).detach()


def fan_in(weight: Tensor) -> int:
    return weight.shape[1]


def fan_out(weight: Tensor) -> int:
    return weight.shape[0]


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("name", "fan", "has_bias"),
    [
        ("resnet18", fan_out, True),
        ("densenet121", fan_in, True),
        ("mobilenet_v2", fan_out, False),
    ],
)
def test_filters_start_kaiming_normal(
    name: str, fan: Callable[[Tensor], int], has_bias: bool
) -> None:
    model = niff_backbone(name, num_classes=2)
    weights = scaled(model, fan)
    assert weights.square().mean().sqrt().item() == pytest.approx(2**0.5, rel=0.03)
    assert (weights.abs() > 2 * 2**0.5).float().mean().item() == pytest.approx(0.0455, rel=0.15)
    if has_bias:
        # PyTorch's default, with a fan-in of 4.
        assert 0.49 < biases(model).abs().max() <= 0.5
    else:
        assert biases(model).abs().max() == 0


def is_default(weight: Tensor) -> bool:
    """Whether a weight looks drawn from U(-1, 1) / sqrt(fan-in), PyTorch's default."""
    values = weight.detach().flatten() * weight[0].numel() ** 0.5
    return 0.97 < values.abs().max() <= 1.001 and abs(values.std().item() * 3**0.5 - 1) < 0.05


@pytest.mark.usefixtures("torchvision")
def test_what_is_new_in_convnext_starts_with_pytorchs_default() -> None:
    model = models.niff_convnext_tiny(num_classes=10)
    for layer in filters_of(model):
        assert is_default(layer.real.output.weight)
        assert is_default(layer.imag.linears[1].weight)
    block = model.features[1][0].block
    assert is_default(block[3].weight)
    assert is_default(block[5].weight)
    for layer in (model.features[0][0], model.features[2][1], model.classifier[2]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.bias.abs().max() == 0


@pytest.mark.usefixtures("torchvision")
def test_pointwise_convolutions_start_with_pytorchs_default() -> None:
    model = niff_mobilenet_v2(num_classes=10)
    pointwise = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert len(pointwise) == 34
    assert all(is_default(conv.weight) for conv in pointwise if conv.weight.numel() > 5000)
    strided = model.features[2].conv[1][0]
    assert not is_default(strided.weight)


@pytest.mark.usefixtures("torchvision")
def test_new_stems_start_as_torchvisions() -> None:
    stem = niff_resnet18(16, 10).conv1
    assert stem.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.03)
    stem = niff_backbone("densenet121", 16, 10, small_images=True).features.conv0
    assert stem.weight.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.05)


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(("form", "gigamacs"), [("split", 0.478), ("full", 0.311)])
def test_sizes_and_cost_of_a_resnet(form: str, gigamacs: float) -> None:
    model = niff_resnet18(form=form, hidden=(2,))
    side = 224 if form == "split" else 64
    cost = sizeless.cost(model, torch.zeros(1, 3, side, side))
    rows = sizeless.sizes(model)
    sides = [side // 4] * 4 + [side // 8] * 3 + [side // 16] * 3 + [side // 32] * 3
    assert [row.size for row in rows] == [(n, n) for n in sides]
    assert {row.kind for row in rows} == {"filter extent"}
    spatial = sum(float(row.macs) for row in cost.rows if row.layer != "NIFFConv2d")
    classifier = 512 * 1000
    spatial = (spatial - classifier) * (224 / side) ** 2 + classifier
    assert spatial / 1e9 == pytest.approx(gigamacs, abs=5e-4)
    assert sum(row.layer == "NIFFConv2d" for row in cost.rows) == 13
    assert float(cost.macs) == pytest.approx(sum(float(row.macs) for row in cost.rows))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("resnet19",), {}, ValueError, "name must be 'resnet18', .* got 'resnet19'"),
        (("resnet18", 0), {}, ValueError, "in_channels must be at least 1, got 0"),
        (("resnet18", 3, 0), {}, ValueError, "num_classes must be at least 1, got 0"),
        (("resnet18",), {"form": "dense"}, ValueError, "form must be 'split', 'full' or 'plain'"),
        (("mobilenet_v2",), {"form": "full"}, ValueError, "form must be 'split' in mobilenet_v2"),
        (("convnext_base",), {"form": "full"}, ValueError, "form must be 'split' in convnext_base"),
        (("resnet18",), {"small_images": 1}, TypeError, "small_images must be True or False"),
        (("resnet18",), {"weights": "DEFAULT"}, TypeError, "resnet18 with NIFF takes no option"),
        (("resnet18",), {"bias": True}, TypeError, "resnet18 with NIFF takes no option bias=True"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        niff_backbone(*arguments, **options)


def test_a_missing_torchvision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sizeless\[vision\]'"):
        niff_resnet18()


@pytest.mark.parametrize(
    "options", [{"hidden": (8,)}, {"boundary": "zeros"}, {"half_sample_grid": True}]
)
def test_the_plain_network_is_torchvisions_and_takes_no_options_of_filters(
    options: dict[str, Any],
) -> None:
    model = niff_backbone("resnet18", 1, 10, form="plain", small_images=True)
    assert not any(isinstance(module, NIFFConv2d) for module in model.modules())
    assert model(torch.randn(2, 1, 16, 16)).shape == (2, 10)
    with pytest.raises(ValueError, match="do not go with form='plain'"):
        niff_backbone("resnet18", 1, 10, form="plain", **options)
