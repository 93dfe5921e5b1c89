"""``sizeless study`` and ``sizeless report``, on runs and on networks by name."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sizeless.cli import main
from sizeless.study.command import parse_report, parse_study, usual_folder

pytest.importorskip("lightning")

FEW = ["--draws", "2", "--kernels", "8"]
MEASURED = {
    "kernels",
    "effective_size",
    "receptive_fields",
    "effective_field",
    "spectra",
    "shape",
    "principal_kernels",
    "cost",
}


def refused(command, args, message, capsys):
    assert main([command, *map(str, args)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"sizeless {command}: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("name", ["digits_flexnet", "digits_niff", "digits_diffstride"])
def test_a_report_of_each_kind_of_run(name, short_run, capsys):
    folder = short_run(name)
    before = {path for path in folder.rglob("*") if path.is_file()}
    assert main(["report", str(folder), *FEW]) == 0
    assert "Report: " in capsys.readouterr().out
    assert {path for path in folder.rglob("*") if path.is_file()} - before == {
        folder / "report.html"
    }
    text = (folder / "report.html").read_text(encoding="utf-8")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"{metrics['test/accuracy']:.4f}" in text
    for title in ("Learned sizes", "Kernels", "Effective size", "Receptive fields", "Cost"):
        assert title in text, title
    assert "max_epochs: 1" in text, "the configuration is there"
    assert "Not measured" not in text
    assert "Left out" not in text


def test_a_report_elsewhere_and_of_a_damaged_run(short_run, tmp_path, capsys):
    folder = short_run("digits_flexnet")
    page = tmp_path / "elsewhere" / "page.html"
    assert main(["report", str(folder), "--out", str(page), *FEW]) == 0
    assert page.is_file()
    assert not (folder / "report.html").exists()
    capsys.readouterr()
    (folder / "metrics.json").write_text("{")
    refused("report", [folder, *FEW], "metrics.json is no JSON object", capsys)
    (folder / "metrics.json").unlink()
    (folder / "sizes.csv").write_text("epoch,step\n")
    refused("report", [folder, *FEW], "sizes.csv", capsys)


def test_a_study_of_a_run(short_run, capsys):
    folder = short_run("digits_flexnet")
    assert main(["study", str(folder), *FEW]) == 0
    printed = capsys.readouterr().out
    assert "Filters of" in printed
    about = json.loads((folder / "study" / "study.json").read_text())
    assert set(about["measured"]) == MEASURED
    assert about["left out"] == {}
    assert "2 untrained networks, built anew" in about["about"]["control"]
    assert "8 validation samples" in about["about"]["inputs"]
    for stem in MEASURED:
        for suffix in (".csv", ".json", ".png"):
            assert (folder / "study" / f"{stem}{suffix}").stat().st_size > 0
        rows = pd.read_csv(folder / "study" / f"{stem}.csv")
        assert len(rows), stem
        assert len(json.loads((folder / "study" / f"{stem}.json").read_text())) == len(rows)
    kernels = pd.read_csv(folder / "study" / "kernels.csv")
    assert (kernels["measured"] <= 8).all()
    assert "<svg" in (folder / "study" / "study.html").read_text(encoding="utf-8")


def test_a_study_of_another_checkpoint_of_a_run(short_run, capsys):
    folder = short_run("digits_niff")
    file = folder / "checkpoints" / "last.ckpt"
    assert main(["study", str(file), *FEW]) == 0
    about = json.loads((folder / "study" / "study.json").read_text())
    assert about["about"]["weights"] == f"of {file}"
    capsys.readouterr()
    file.write_bytes(b"damaged")
    refused("study", [file, *FEW], "last.ckpt", capsys)


def test_a_study_of_a_network_by_name(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    request = ["torchvision:squeezenet1_1", "--weights", "none", "--input", "3x64x64"]
    assert main(["study", *request, "--draws", "1", "--kernels", "4", "--samples", "1"]) == 0
    folder = tmp_path / "study-torchvision-squeezenet1_1"
    assert (folder / "study.html").is_file()
    effective = pd.read_csv(folder / "effective_size.csv")
    layers = effective[effective["of"] == "layer"]
    assert (layers["effective 95 %"] <= 3).all(), "kernels of squeezenet have 3 taps"


def test_a_study_of_a_file_with_a_network(tmp_path, capsys):
    file = tmp_path / "network.pt"
    torch.save(nn.Sequential(nn.Conv1d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv1d(4, 2, 3)), file)
    out = tmp_path / "out"
    request = [str(file), "--trust", "--input", "1x32", "--out", str(out), *FEW]
    assert main(["study", *request]) == 0
    about = json.loads((out / "study.json").read_text())["about"]
    assert about["control"] == "2 untrained networks, weights drawn anew by each module"
    fields = pd.read_csv(out / "receptive_fields.csv")
    assert np.isfinite(fields.select_dtypes("number").to_numpy()).any()


def test_requests_that_cannot_be_met(short_run, tmp_path, capsys):
    dense = tmp_path / "dense.pt"
    torch.save(nn.Linear(4, 2), dense)
    for command, args, message in [
        ("report", [], "the following arguments are required: DIR"),
        ("report", [tmp_path / "none"], "is no folder"),
        ("report", [tmp_path], "holds no run"),
        ("report", [tmp_path, "--depth", "3"], "--depth is unknown"),
        ("study", [], "the following arguments are required: NETWORK"),
        ("study", [tmp_path / "none"], "neither a run folder, nor a file"),
        ("study", [tmp_path], "holds no run"),
        ("study", ["a", "b"], "b is one argument too many"),
        ("study", ["a", "--draws", "0"], "argument --draws: must be a positive whole number"),
        ("study", ["a", "--input", "3x"], "argument --input: must be channels and sizes"),
        ("study", [dense, "--trust", "--input", "1x4"], "called no layer with a kernel"),
        ("study", [dense, "--trust", "--input", "1x5"], "cannot be studied on 8 inputs"),
    ]:
        refused(command, args, message, capsys)


def test_where_the_files_of_a_study_go(tmp_path):
    assert str(usual_folder(parse_study(["timm:convnext_tiny.in12k"]))) == (
        "study-timm-convnext_tiny.in12k"
    )
    assert usual_folder(parse_study([str(tmp_path)])) == tmp_path / "study"
    assert parse_report([str(tmp_path), "--data.init_args.root", "there"]).rest == (
        "--data.init_args.root",
        "there",
    )


@pytest.mark.parametrize(
    "args", [("--weights", "none"), ("--input", "3x8x8"), ("--samples", "2"), ("--trust",)]
)
def test_what_a_run_would_ignore_is_refused(args, tmp_path, capsys):
    refused("study", [tmp_path, *args], f"{args[0]} goes with networks by name or file", capsys)


def test_what_a_named_network_would_ignore_is_refused(capsys):
    target = "torchvision:squeezenet1_1"
    refused("study", [target, "--data.x", "1"], "--data.x goes with runs only", capsys)
    refused("study", [target, "--trust"], "--trust goes with files only", capsys)


def test_a_checkpoint_beside_oneself(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_text("x")
    monkeypatch.chdir(folder)
    assert parse_study(["last.ckpt"]).run == tmp_path / "run"
    refused("study", ["last.ckpt"], str(tmp_path / "run"), capsys)


def test_inputs_that_a_network_does_not_take(capsys):
    pytest.importorskip("torchvision")
    args = ["torchvision:vit_b_16", "--weights", "none", "--input", "3x64x64"]
    refused("study", args, "cannot be studied on 8 inputs of white noise", capsys)
