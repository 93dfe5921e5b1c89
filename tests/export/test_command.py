"""``sizeless fold``: an ordinary network from a run folder."""

import copy
import csv
import json

import pytest
import torch
import yaml

import sizeless
from sizeless.cli import main
from sizeless.export import command
from sizeless.train.chosen import chosen


def refused(args, message, capsys):
    assert main(["fold", *map(str, args)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"sizeless fold: {message}")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("name", ["digits_flexnet", "digits_niff", "digits_diffstride"])
def test_fold_writes_what_became_of_the_network(name, short_run, capsys):
    folder = short_run(name)
    metrics = (folder / "metrics.json").read_text()
    assert main(["fold", str(folder)]) == 0
    printed = capsys.readouterr()
    assert "Folded layers" in printed.out
    assert "Relative error of the network's output: " in printed.out
    assert printed.err == ""
    names = {path.name for path in (folder / "fold").iterdir()}
    assert names == {"report.csv", "report.json", "architecture.yaml", "folded.pt"}
    assert (folder / "metrics.json").read_text() == metrics

    finished = chosen(folder)
    network, samples = finished.network, finished.samples
    plain, report = sizeless.fold(network, samples)
    assert report.error < 1e-5
    assert samples.shape[0] == 8
    written = json.loads((folder / "fold" / "report.json").read_text())
    assert written["error"] == pytest.approx(report.error)
    assert written["exported"] is None
    text = (folder / "fold" / "report.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["name"] for row in rows] == [change.name for change in report.changes]
    assert [row["name"] for row in rows] == [row["name"] for row in written["layers"]]
    sizes = yaml.safe_load((folder / "fold" / "architecture.yaml").read_text())
    assert sizes == sizeless.surgery.architecture(network, samples)
    weights = torch.load(folder / "fold" / "folded.pt", weights_only=True)
    again = copy.deepcopy(plain)
    assert all(value.is_floating_point() or value.dim() == 0 for value in weights.values())
    again.load_state_dict(weights)
    torch.testing.assert_close(again(samples), network(samples), rtol=1e-4, atol=1e-4)


def test_fold_exports(short_run, capsys, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = short_run("digits_niff")
    assert main(["fold", str(folder), "--to", "onnx"]) == 0
    assert "model.onnx: " in capsys.readouterr().out
    finished = chosen(folder)
    network, samples = finished.network, finished.samples
    session = onnxruntime.InferenceSession(folder / "fold" / "model.onnx")
    (output,) = session.run(None, {session.get_inputs()[0].name: samples.numpy()})
    expected = network(samples).detach()
    torch.testing.assert_close(torch.from_numpy(output), expected, rtol=1e-4, atol=1e-4)
    made = json.loads((folder / "fold" / "report.json").read_text())["exported"]
    assert made["error"] < 1e-4

    file = tmp_path / "elsewhere" / "program.pt2"
    assert main(["fold", str(folder), "--to", "torchexport", "--out", str(file)]) == 0
    assert not (folder / "fold" / "program.pt2").exists()
    loaded = torch.export.load(file).module()
    torch.testing.assert_close(loaded(samples), expected, rtol=1e-4, atol=1e-4)


def test_options_reach_fold(short_run, capsys):
    folder = short_run("digits_diffstride")
    assert main(["fold", str(folder), "--integer_strides", "0.5", "--fuse_norms"]) == 0
    assert "Strides were rounded" in capsys.readouterr().out
    written = json.loads((folder / "fold" / "report.json").read_text())
    assert {row["after"] for row in written["layers"]} == {"Conv2d", "AvgPool2d"}
    weights = torch.load(folder / "fold" / "folded.pt", weights_only=True)
    assert any(name.endswith("conv1.bias") for name in weights)


def test_energy_crops_filters(short_run):
    folder = short_run("digits_niff")
    assert main(["fold", str(folder), "--energy", "0.5"]) == 0
    rows = json.loads((folder / "fold" / "report.json").read_text())["layers"]
    assert all(max(row["size_after"]) < 8 for row in rows)


def test_fold_at_another_resolution(short_run):
    folder = short_run("digits_flexnet")
    assert main(["fold", str(folder), "--resolution", "16"]) == 0
    rows = json.loads((folder / "fold" / "report.json").read_text())["layers"]
    finished = chosen(folder, 16)
    network, samples = finished.network, finished.samples
    assert samples.shape[2:] == (16, 16)
    assert network.stem.kernel_size == (17, 17)
    assert tuple(rows[0]["size_after"]) == network.stem.size


def test_requests_that_cannot_be_met(short_run, tmp_path, capsys):
    refused([tmp_path / "none"], f"{tmp_path / 'none'} holds no run", capsys)
    folder = short_run("digits_niff")
    refused([folder, "--energy", "2"], "energy must be a finite number", capsys)
    refused([folder, "--energy", "much"], "argument --energy: invalid float", capsys)
    refused([folder, "--to", "tflite"], "argument --to: invalid choice", capsys)
    refused([folder, "--out", "x.onnx"], "--out x.onnx needs --to: onnx, torchexport, pt2", capsys)
    refused([folder, "--trainer.max_epochs", "3"], "--trainer.max_epochs is unknown", capsys)
    refused([folder, "--integer_strides", "3"], "integer_strides must be a finite", capsys)
    assert not (folder / "fold").exists()


def test_a_folder_is_needed(capsys):
    refused([], "DIR is missing: name the folder of a run", capsys)


def test_the_table_says_what_did_not_change_once():
    _, report = sizeless.fold(sizeless.FlexConv2d(1, 2, 9, init_size=5), torch.randn(1, 1, 8, 8))
    columns = {column.header: list(column.cells) for column in command.table(report).columns}
    assert columns["layer"] == ["(the network)"]
    assert columns["size"] == ["5x5"]
    assert columns["is"] == ["Conv2d"]
