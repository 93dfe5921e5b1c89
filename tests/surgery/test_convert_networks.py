"""Conversions of networks that others have written."""

import pytest
import torch

import sizeless

from .folding import error_of

TORCHVISION = ["shufflenet_v2_x0_5", "squeezenet1_1"]
TIMM = ["test_resnet", "test_efficientnet", "tf_mobilenetv3_small_minimal_100"]


def network(name):
    """A network with random weights in evaluation."""
    if name in TIMM:
        return pytest.importorskip("timm").create_model(name).eval()
    return pytest.importorskip("torchvision").models.get_model(name, weights=None).eval()


@pytest.mark.parametrize("name", [*TORCHVISION, *TIMM])
def test_kernels_do_not_change_what_is_computed(name):
    model, image = network(name).double(), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    new, report = sizeless.convert(model, image, conv="flex")
    assert report.changed
    assert error_of(new(image), model(image)) < 1e-10
    assert report.error < 1e-10


@pytest.mark.parametrize("name", [*TORCHVISION, *TIMM[:2]])
def test_learned_strides_train(name):
    model, image = network(name), torch.randn(2, 3, 64, 64)
    new, report = sizeless.convert(model, image, downsample="diffstride")
    assert report.changed
    assert new(image).shape == model(image).shape
    new(image).square().mean().backward()
    for module in new.modules():
        if isinstance(module, sizeless.nn.DiffStrideNd):
            assert module.log2_stride.grad.count_nonzero() == 2


def test_strides_of_subclasses_are_left_alone():
    model, image = network(TIMM[2]), torch.randn(2, 3, 64, 64)
    _, report = sizeless.convert(model, image, downsample="diffstride")
    assert not report.changed
    reason = "Conv2dSame is a subclass that may compute something else"
    assert {change.reason for change in report.left_alone} == {"the stem", reason}


def test_every_stage_of_a_residual_network_has_one_stride():
    new, report = sizeless.convert(
        network("resnet18"), torch.randn(1, 3, 64, 64), downsample="diffstride"
    )
    strides = {m for m in new.modules() if isinstance(m, sizeless.DiffStride2d)}
    assert len(report.changed) == 7
    assert len(strides) == 4
    for layer in (new.layer2, new.layer3, new.layer4):
        assert layer[0].conv1[-1] is layer[0].downsample[0][0]
    for value in (1.3, 2.7):
        with torch.no_grad():
            for stride in strides:
                stride.log2_stride.fill_(torch.tensor(value).log2())
        assert new(torch.randn(1, 3, 70, 90)).shape == (1, 1000)
