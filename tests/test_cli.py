from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path

import pytest

from sizeless.cli import main

RECIPE = Path(__file__).parents[1] / "recipes" / "digits_flexnet.yaml"
COMMANDS = ("fit", "test", "report", "study", "fold", "fit-kernel", "bench")
SHORT = [
    f"--trainer.{key}=1"
    for key in ("max_epochs", "limit_train_batches", "limit_val_batches", "limit_test_batches")
]


@pytest.fixture(autouse=True)
def _no_seed_in_the_environment(monkeypatch):
    """Lightning leaves its seed in the environment; forget it after the test."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)


def test_fit_and_test_say_what_a_run_came_to(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["fit", "--config", str(RECIPE), "--out", str(folder), *SHORT]) == 0
    printed = capsys.readouterr()
    assert "Learned sizes" in printed.out
    assert "Test accuracy" in printed.out
    assert printed.err == ""
    assert (folder / "sizes.png").stat().st_size > 10_000
    metrics = json.loads((folder / "metrics.json").read_text())
    assert main(["test", str(folder)]) == 0
    assert f"Test accuracy {metrics['test/accuracy']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(args, capsys):
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name}" in printed for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"sizeless {command}" in capsys.readouterr().out


def test_arguments_of_the_process_are_the_default(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sizeless", "melt"])
    assert main() == 2
    assert capsys.readouterr().err == (
        "sizeless: 'melt' is no command; the commands are fit, test, report, study, fold, "
        "fit-kernel and bench\n"
    )


def test_a_request_that_cannot_be_met_is_one_line(tmp_path, capsys):
    assert main(["test", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("sizeless test: ")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "module", "package", "extra"),
    [
        ("fit", "train.run", "lightning", "train"),
        ("fold", "train.run", "lightning", "train"),
        ("report", "train.run", "lightning", "train"),
        ("study", "study.source", "pandas", "study"),
        ("fit-kernel", "study.fitting.command", "pandas", "study"),
        ("bench", "bench.run", "rich", "bench"),
    ],
)
def test_a_missing_extra_is_named(command, module, package, extra, monkeypatch, capsys):
    def without_the_package(name, *args, **kwargs):
        if name == f"sizeless.{module}":
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return original(name, *args, **kwargs)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without_the_package)
    assert main([command]) == 2
    printed = capsys.readouterr().err
    assert f"sizeless {command}: the package {package} is missing" in printed
    assert f"pip install 'sizeless[{extra}]'" in printed


def test_modules_in_the_folder_where_one_is_can_be_named(tmp_path, monkeypatch, capsys):
    source = """
from torch import nn
from sizeless.models import FlexNet

class Mine(nn.Sequential):
    def __init__(self):
        super().__init__(FlexNet(1, 10, kernel_size=5, widths=[2]))
"""
    (tmp_path / "networks_of_a_user.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    network = "--model.network=networks_of_a_user.Mine"
    assert main(["fit", "--config", str(RECIPE), "--out", "run", network, *SHORT]) == 0
    assert (tmp_path / "run" / "metrics.json").exists()
