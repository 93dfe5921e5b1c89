"""From a trained network to an exported one: fit, convert, train on, fold, in one command."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from sizeless.cli import main
from sizeless.models.small import SmallResNet

pytest.importorskip("sklearn")


@pytest.fixture
def recipe(tmp_path):
    torch.save(SmallResNet(1, 10, (4, 8)).state_dict(), tmp_path / "weights.pt")
    network = {
        "source": "sizeless.models.small:SmallResNet",
        "in_channels": 1,
        "num_classes": 10,
        "input_size": 8,
        "options": {"widths": [4, 8]},
        "checkpoint": str(tmp_path / "weights.pt"),
        "downsample": "diffstride",
    }
    content = {
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "limit_train_batches": 2,
            "logger": False,
            "enable_progress_bar": False,
        },
        "model": {"network": {"class_path": "sizeless.models.converted", "init_args": network}},
        "data": {"class_path": "sizeless.train.data.Digits", "init_args": {"batch_size": 32}},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_converted_network_trains_folds_and_exports(recipe, tmp_path, capsys) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    out = tmp_path / "run"
    assert main(["fit", "--config", str(recipe), "--out", str(out), "--fold", "onnx"]) == 0
    assert "blocks.1.conv1" in (out / "conversion.txt").read_text(encoding="utf-8")
    report = json.loads((out / "fold" / "report.json").read_text(encoding="utf-8"))
    assert report["error"] < 1e-5
    assert report["exported"]["error"] < 1e-4
    assert (out / "fold" / "model.onnx").exists()
    shown = capsys.readouterr().out
    assert "Learned sizes" in shown
    assert "Folded layers" in shown


def test_the_weights_are_those_of_the_network_that_was_converted(recipe, tmp_path) -> None:
    out = tmp_path / "run"
    still = ["--model.lr", "1e-12", "--model.size_lr", "0"]
    assert main(["fit", "--config", str(recipe), "--out", str(out), *still]) == 0
    kept = torch.load(out / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    given = torch.load(tmp_path / "weights.pt", weights_only=True)
    torch.testing.assert_close(kept["network.stem.weight"], given["stem.weight"])


@pytest.mark.parametrize("flags", [["--fold", "onyx"], ["--fold=onyx"]])
def test_an_unknown_format_is_refused_before_training(recipe, tmp_path, capsys, flags) -> None:
    out = tmp_path / "run"
    assert main(["fit", "--config", str(recipe), "--out", str(out), *flags]) == 2
    said = capsys.readouterr().err
    assert said == ("sizeless fit: --fold must be one of onnx, torchexport, pt2, got 'onyx'\n")
    assert not out.exists()
