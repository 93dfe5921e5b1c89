"""Networks of others, with learnable sizes in them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sizeless.models import converted, ordinary
from sizeless.nn import DiffStride2d, FlexConv2d, SeparableNIFFConv2d


class Tiny(nn.Sequential):
    """A network as a user writes it."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 4) -> None:
        super().__init__(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, width, 3, 2, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, num_classes),
        )


SOURCE = f"{__name__}:Tiny"


def test_a_network_of_ones_own_is_built_with_its_options() -> None:
    model = ordinary(SOURCE, 2, 7, options={"width": 6})
    assert model(torch.zeros(1, 2, 8, 8)).shape == (1, 7)
    assert model[0].out_channels == 6


@pytest.mark.parametrize("place", ["file", "run"])
def test_weights_come_from_a_state_dict_or_a_training_run(tmp_path, place) -> None:
    trained = Tiny(1, 3)
    weights = trained.state_dict()
    if place == "file":
        path = tmp_path / "weights.pt"
        torch.save(weights, path)
    else:
        path = tmp_path / "run"
        (path / "checkpoints").mkdir(parents=True)
        named = {f"network.{name}": value for name, value in weights.items()}
        content = {"state_dict": {**named, "losses.val.total": torch.zeros(())}, "epoch": 3}
        torch.save(content, path / "checkpoints" / "best.ckpt")
    model = ordinary(SOURCE, 1, 3, checkpoint=str(path))
    input = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(model(input), trained(input), rtol=0, atol=0)


def test_a_converted_network_computes_the_same_and_says_what_was_changed(tmp_path) -> None:
    trained = Tiny(1, 3).eval()
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    model = converted(SOURCE, 1, 3, 16, checkpoint=str(tmp_path / "w.pt"), stem=True).eval()
    assert [type(model[i]) for i in (0, 2)] == [FlexConv2d, FlexConv2d]
    assert [change.name for change in model.conversion.changed] == ["0", "2"]
    input = torch.randn(2, 1, 20, 16)
    torch.testing.assert_close(model(input), trained(input), rtol=1e-4, atol=1e-5)


def test_strides_and_filters_can_be_asked_for() -> None:
    model = converted(SOURCE, 1, 3, (16, 12), conv="niff", downsample="diffstride", stem=True)
    assert isinstance(model[0], SeparableNIFFConv2d)
    assert isinstance(model[2][1], DiffStride2d)
    assert model(torch.zeros(1, 1, 16, 12)).shape == (1, 3)


def test_torchvision_gives_networks_for_other_channels_and_classes() -> None:
    pytest.importorskip("torchvision")
    model = ordinary("torchvision:squeezenet1_1", 1, 5)
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 5)


def test_timm_gives_networks_for_other_channels_and_classes() -> None:
    pytest.importorskip("timm")
    model = ordinary("timm:resnet10t", 1, 5).eval()
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "resnet18"}, "source must be 'torchvision:NAME', 'timm:NAME' or "),
        ({"source": "sizeless.models:none"}, "source must name a function or class, got "),
        ({"source": SOURCE, "pretrained": True}, "pretrained=True is for torchvision and timm"),
        ({"source": SOURCE, "checkpoint": "nowhere"}, "checkpoint must be a file of weights or "),
        ({"source": SOURCE, "num_classes": 0}, "num_classes must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments, message) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("(", "\\(")):
        ordinary(**arguments)


def test_weights_of_another_network_are_refused(tmp_path) -> None:
    torch.save(Tiny(1, 4).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="does not fit Tiny"):
        ordinary(SOURCE, 1, 3, checkpoint=str(tmp_path / "w.pt"))
