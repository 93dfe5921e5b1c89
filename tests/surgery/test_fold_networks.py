"""Every network of the library folds, and what comes out needs the library no more."""

import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import sizeless
from sizeless import models
from sizeless.models.small import DiffStrideNet, NIFFNet

from .folding import assert_folds

WITHOUT_THE_LIBRARY = """
import pickle, sys, torch
torch.set_num_threads(1)
sys.modules["sizeless"] = None
with open(sys.argv[1], "rb") as file:
    cases = pickle.load(file)
for name, (model, input, expected) in cases.items():
    error = float((model(input) - expected).detach().norm() / expected.norm())
    assert error < 1e-6, (name, error)
    print(name)
"""


def strided(pooling, **options):
    return models.DiffStrideResNet(
        1, 10, (1, 2, 2), widths=(4, 8), project_first=True, pooling=pooling, **options
    )


NETWORKS = {
    "flexnet": lambda: (models.FlexNet(1, 4, 9, widths=(4, 6)), (1, 8, 7)),
    "flexnet, ckconv": lambda: (models.FlexNet(1, 4, 9, widths=(4, 6), conv="ckconv"), (1, 8, 8)),
    "flexnet, plain": lambda: (models.FlexNet(1, 4, 9, widths=(4, 6), conv="plain"), (1, 8, 8)),
    "flextcn": lambda: (models.FlexTCN(2, 4, 20, 2, 4), (2, 20)),
    "flextcn, plain": lambda: (models.FlexTCN(2, 4, 9, 2, 4, conv="plain"), (2, 20)),
    "ccnn, causal": lambda: (models.CCNN(3, 5, 50, 1, 8, ndim=1, causal=True), (3, 50)),
    "ccnn, layer norm": lambda: (models.CCNN(1, 5, 9, 2, 8, norm="layer"), (1, 8, 8)),
    "ccnn, volumes": lambda: (models.CCNN(1, 5, 5, 1, 8, ndim=3), (1, 4, 5, 6)),
    "diffstride resnet": lambda: (strided("diffstride"), (1, 16, 16)),
    "diffstride resnet, exact": lambda: (strided("diffstride", size_rule="exact"), (1, 16, 16)),
    "spectral resnet": lambda: (strided("spectral"), (1, 16, 16)),
    "strided resnet": lambda: (strided("strided"), (1, 16, 16)),
    "diffstride net": lambda: (DiffStrideNet(1, 10, (4, 6)), (1, 16, 16)),
    "niff net": lambda: (NIFFNet(1, 10, 4, 2), (1, 8, 9)),
    "audio net": lambda: (models.AudioNet(1, 5, (2, 1.7), widths=(4, 6)), (1, 20, 16)),
    "audio net, max": lambda: (
        models.AudioNet(1, 5, (2, 2), widths=(4, 6), pooling="max"),
        (1, 20, 16),
    ),
}


@pytest.fixture(scope="module")
def folded():
    """Every network, folded: name to model, input and expected output."""
    cases = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, make in NETWORKS.items():
            network, shape = make()
            _move_statistics(network)
            plain, _ = assert_folds(network, torch.randn(2, *shape), 1e-5)
            input = torch.randn(3, *shape)
            cases[name] = (plain, input, plain(input).detach())
    return cases


def _move_statistics(network):
    """Let batch normalisation do something."""
    for module in network.modules():
        if hasattr(module, "running_mean"):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_folds(name, folded):
    plain, _, _ = folded[name]
    assert isinstance(plain, torch.fx.GraphModule)
    assert not any(module.training for module in plain.modules())


def test_folded_networks_load_where_there_is_no_sizeless(folded, tmp_path):
    file = tmp_path / "models.pickle"
    file.write_bytes(pickle.dumps(folded))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_THE_LIBRARY, str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(NETWORKS)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (models.niff_resnet18, 32),
        (models.niff_mobilenet_v3_small, 32),
    ],
)
def test_networks_of_torchvision_with_niff_fold(make, size):
    pytest.importorskip("torchvision")
    assert_folds(make(3, 5), torch.randn(2, 3, size, size), 1e-5)


def test_a_folded_network_takes_in_its_norms():
    vision = pytest.importorskip("torchvision")
    network = vision.models.resnet18(num_classes=5).eval()
    _move_statistics(network)
    image = torch.randn(1, 3, 32, 32)
    learned, _ = sizeless.convert(network, image, conv="flex")
    plain, _ = assert_folds(learned, image, 1e-5, fuse_norms=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in learned.modules())


def test_a_network_of_several_outputs_folds():
    network = models.AudioNet(1, (5, 3), (2, 1.7), widths=(4, 6)).eval()
    input = torch.randn(2, 1, 20, 16)
    plain, report = sizeless.fold(network, input)
    assert report.error < 1e-5
    assert [scores.shape for scores in plain(input)] == [(2, 5), (2, 3)]


def test_a_network_that_trains_goes_on_training():
    network = models.FlexNet(1, 4, 9, widths=(4, 6)).train()
    network.blocks[0].norm1.eval()
    plain, _ = sizeless.fold(network, torch.randn(2, 1, 8, 8))
    assert plain.training
    assert plain.get_submodule("stem").training
    assert not plain.get_submodule("blocks.0.norm1").training
    plain(torch.randn(2, 1, 8, 8)).sum().backward()
    assert plain.get_submodule("stem").weight.grad is not None
