"""Which convolutions NIFF replaces, and by what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sizeless.models import replace_convolutions
from sizeless.nn import (
    NIFFConv1d,
    NIFFConv2d,
    NIFFConv3d,
    SeparableNIFFConv1d,
    SeparableNIFFConv2d,
    SeparableNIFFConv3d,
)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("conv", "split", "full"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), SeparableNIFFConv2d, NIFFConv2d),
        (nn.Conv2d(4, 6, 3, padding="same"), SeparableNIFFConv2d, NIFFConv2d),
        (nn.Conv2d(4, 6, 4, padding="same"), SeparableNIFFConv2d, NIFFConv2d),
        (nn.Conv2d(4, 6, (3, 5), padding=(1, 2)), SeparableNIFFConv2d, NIFFConv2d),
        (nn.Conv2d(4, 6, 3, padding=2, dilation=2), SeparableNIFFConv2d, NIFFConv2d),
        (nn.Conv2d(1, 6, 3, padding=1), SeparableNIFFConv2d, NIFFConv2d),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), SeparableNIFFConv2d, NIFFConv2d),
        (nn.Conv2d(4, 4, 7, padding=3, groups=4), NIFFConv2d, NIFFConv2d),
        (nn.Conv2d(4, 8, 3, padding=1, groups=4), NIFFConv2d, NIFFConv2d),
        (nn.Conv1d(4, 6, 9, padding=4), SeparableNIFFConv1d, NIFFConv1d),
        (nn.Conv3d(4, 6, 3, padding=1), SeparableNIFFConv3d, NIFFConv3d),
    ],
    ids=str,
)
def test_stride_1_is_replaced(conv: Any, split: type[nn.Module], full: type[nn.Module]) -> None:
    map_size = (7, 6, 5)[: conv.weight.dim() - 2]
    x = torch.randn(2, conv.in_channels, *map_size)
    for form, kind in (("split", split), ("full", full)):
        new = replace_convolutions(nn.Sequential(conv), form)[0]
        assert type(new) is kind
        assert new(x).shape == (2, conv.out_channels, *map_size)


@pytest.mark.parametrize(
    "kept",
    [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3, stride=(1, 2), padding=1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, (1, 7), padding=(0, 3)),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2),
        nn.ConvTranspose2d(4, 4, 3, padding=1),
        nn.Linear(4, 4),
    ],
    ids=str,
)
def test_everything_else_stays(kept: nn.Module) -> None:
    model = nn.Sequential(kept, nn.Conv2d(4, 4, 3, padding=1))
    assert replace_convolutions(model) is model
    assert model[0] is kept
    assert isinstance(model[1], SeparableNIFFConv2d)


@pytest.mark.parametrize(
    ("form", "hidden", "expected"),
    [
        ("split", None, 4_856),
        ("split", (16, 128, 32), 21_024),
        ("full", None, 73_776),
    ],
)
def test_counts_of_the_first_stage_of_a_resnet(
    form: str, hidden: tuple[int, ...] | None, expected: int
) -> None:
    conv = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    assert count(replace_convolutions(conv, form, hidden)) == expected


@pytest.mark.parametrize("form", ["split", "full"])
def test_count_of_a_depthwise_layer(form: str) -> None:
    conv = nn.Conv2d(96, 96, 3, padding=1, groups=96, bias=False)
    assert count(replace_convolutions(conv, form)) == 1_080


def test_groups_do_not_mix() -> None:
    for form in ("split", "full"):
        layer = replace_convolutions(nn.Conv2d(4, 6, 3, padding=1, groups=2), form)
        x = torch.randn(1, 4, 5, 5)
        changed = x.clone()
        changed[:, 2:] += 1
        before, after = layer(x), layer(changed)
        torch.testing.assert_close(before[:, :3], after[:, :3])
        assert (before[:, 3:] - after[:, 3:]).abs().max() > 1e-3


def test_a_bias_goes_or_stays() -> None:
    def made(form: str, **options: Any) -> list[bool]:
        model = nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, bias=False)
        )
        new = replace_convolutions(model, form, **options)
        ends = [layer if form == "full" else layer.pointwise for layer in new]
        return [end.bias is not None for end in ends]

    for form in ("split", "full"):
        assert made(form) == [False, False]
        assert made(form, bias=True) == [True, False]


def test_what_is_skipped_stays() -> None:
    def conv() -> nn.Conv2d:
        return nn.Conv2d(4, 4, 3, padding=1)

    model = nn.ModuleDict({"a": conv(), "ab": conv(), "b": nn.Sequential(conv(), conv())})
    replace_convolutions(model, skip=("a", "b.1"))
    assert isinstance(model["a"], nn.Conv2d)
    assert isinstance(model["ab"], SeparableNIFFConv2d)
    assert isinstance(model["b"][0], SeparableNIFFConv2d)
    assert isinstance(model["b"][1], nn.Conv2d)
    replace_convolutions(model, skip=["b"])
    assert isinstance(model["a"], SeparableNIFFConv2d)
    assert isinstance(model["b"][1], nn.Conv2d)


def test_a_shared_convolution_stays_shared() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    model = replace_convolutions(nn.Sequential(conv, nn.ReLU(), nn.Sequential(conv)))
    assert isinstance(model[0], SeparableNIFFConv2d)
    assert model[0] is model[2][0]


def test_place_and_mode_are_those_of_the_convolution() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64, device="meta").eval()
    new = replace_convolutions(conv)
    assert {(p.dtype, p.device.type) for p in new.parameters()} == {(torch.float64, "meta")}
    assert not new.training


def test_options_reach_every_layer() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1, groups=2))
    replace_convolutions(model, hidden=(5,), boundary="zeros", frequency_unit="cycles/pixel")
    for layer in (model[0].depthwise, model[1]):
        assert (layer.boundary, layer.frequency_unit) == ("zeros", "cycles/pixel")
        assert layer.real.output.in_features == 5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"form": "depthwise"}, ValueError, "form must be 'split' or 'full', got 'depthwise'"),
        ({"hidden": ()}, ValueError, "hidden must hold one or more"),
        ({"bias": "no"}, TypeError, "bias must be True or False"),
        ({"skip": "0"}, TypeError, "skip must be a tuple of paths, got '0'"),
        ({"skip": None}, TypeError, "skip must be a tuple of paths, got None"),
        ({"skip": ("2",)}, ValueError, "skip must hold paths of modules in Sequential, got '2'"),
        ({"skip": ("",)}, ValueError, "skip must hold paths"),
        ({"skip": ("0", "1")}, ValueError, "model Sequential has nothing to replace"),
        ({"groups": 2}, TypeError, "replace_convolutions takes no option groups=2"),
        ({"stride": 2}, TypeError, "replace_convolutions takes no option stride=2"),
        ({"boundary": "reflect"}, ValueError, "boundary must be"),
    ],
)
def test_wrong_arguments_are_named_and_change_nothing(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    convs = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)]
    model = nn.Sequential(*convs)
    with pytest.raises(error, match=message):
        replace_convolutions(model, **arguments)
    assert list(model) == convs


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"model must be an instance of torch\.nn\.Module"):
        replace_convolutions(nn.Conv2d)
