"""Networks by name or file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sizeless.study import source
from sizeless.study.source import StudyError, load

torchvision = pytest.importorskip("torchvision")


def test_a_network_of_torchvision_with_fresh_weights():
    found = load("torchvision:squeezenet1_1", weights="none", samples=2)
    assert found.example.shape == (2, 3, 224, 224)
    assert not found.network.training
    assert type(found.make()) is type(found.network)
    assert found.weights.startswith("none")


def test_fresh_weights_are_the_same_each_time_and_generators_stay():
    before = torch.get_rng_state()
    one, other = (load("torchvision:squeezenet1_1", weights="none") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(one.network.parameters(), other.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(one.example, other.example)


def test_a_network_of_timm_has_its_own_input():
    pytest.importorskip("timm")
    found = load("timm:mobilenetv3_small_050", weights="none", samples=1)
    assert found.example.shape == (1, 3, 224, 224)
    smaller = load("timm:mobilenetv3_small_050", weights="none", input_shape=(3, 64, 64))
    assert smaller.example.shape[1:] == (3, 64, 64)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_from_a_file(tmp_path, suffix, wrapped):
    network = torchvision.models.squeezenet1_1(weights=None)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(network.state_dict(), file)
    else:
        state = network.state_dict()
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, file)
    found = load("torchvision:squeezenet1_1", weights=str(file))
    assert found.weights == str(file)
    pairs = zip(found.network.parameters(), network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_file_with_a_whole_network(tmp_path):
    file = tmp_path / "network.pt"
    torch.save(nn.Sequential(nn.Conv2d(1, 2, 3)), file)
    found = load(str(file), input_shape=(1, 9, 9), trust=True)
    assert found.network(found.example).shape == (8, 2, 7, 7)
    with pytest.raises(StudyError, match="add --trust"):
        load(str(file), input_shape=(1, 9, 9))
    with pytest.raises(StudyError, match="--input is missing"):
        load(str(file), trust=True)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(StudyError, match=r"could not be had .*no route.*--weights none"):
        load("torchvision:squeezenet1_1")


def test_requests_that_cannot_be_met(tmp_path):
    state = tmp_path / "state.pt"
    torch.save(nn.Linear(1, 1).state_dict(), state)
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(b"not a file of torch")
    tensor = tmp_path / "tensor.pt"
    torch.save(torch.zeros(2), tensor)
    name = "torchvision:squeezenet1_1"
    for target, options, message in [
        ("nothing", {}, "neither a run folder, nor a file"),
        ("torchvision:resnet5", {}, "has no network 'resnet5'; close ones: .*resnet"),
        ("timm:resnet5", {}, "timm has no network"),
        (name, {"weights": "best"}, "must be pretrained, none or a file"),
        (name, {"weights": str(state)}, "does not fit the network"),
        (name, {"weights": str(damaged)}, "is no file of a state dict"),
        (name, {"weights": str(tensor)}, "holds a Tensor, not a state dict"),
        (str(state), {"trust": True}, "holds a OrderedDict, not a network; for a state dict"),
        (str(damaged), {"trust": True}, "cannot be loaded"),
        (str(state), {"trust": True, "weights": "other.pt"}, "goes with torchvision:NAME"),
    ]:
        with pytest.raises(StudyError, match=message):
            load(target, **options)
    assert set(source.PACKAGES) == {"torchvision", "timm"}


def test_no_part_of_a_fresh_network_is_trained(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **_: asked.append(a))
    found = load("torchvision:lraspp_mobilenet_v3_large", weights="none", input_shape=(3, 32, 32))
    found.make()
    assert asked == []


def test_damaged_files_and_unknown_tags(tmp_path):
    for name in ("bad.safetensors", "bad.pt"):
        file = tmp_path / name
        file.write_text("hello")
        with pytest.raises(StudyError, match="no file of a state dict"):
            load("torchvision:squeezenet1_1", weights=str(file))
    pytest.importorskip("timm")
    with pytest.raises(StudyError, match="cannot build"):
        load("timm:resnet18.nothing", weights="none")


def test_weights_of_a_file_are_those_in_it(tmp_path):
    file = tmp_path / "network.pt"
    torch.save(nn.Conv2d(1, 2, 3), file)
    with pytest.raises(StudyError, match="weights in it"):
        load(str(file), weights="none", input_shape=(1, 9, 9), trust=True)
