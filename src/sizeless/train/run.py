"""One training run in one folder: fit, resume, and test the chosen checkpoint."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import RichProgressBar, Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch import nn

from sizeless._files import write_text
from sizeless.train.callbacks import (
    BestAndLast,
    KeepLimits,
    RandomState,
    SafeCheckpointIO,
    SizeLog,
)
from sizeless.train.task import Classifier

FIT_USAGE = "%(prog)s --config FILE --out DIR [--resume] [--KEY VALUE ...]"
EXAMPLE = "as in --config recipes/mnist1d.yaml"
FIT_HELP = """\
Train a network, choose the checkpoint on the validation split, and test that one. DIR receives
metrics.json, sizes.csv, sizes.png, config.yaml and checkpoints/. With --resume a run that stopped
goes on after its last whole epoch; --config may then be left out. Every key of a recipe can be
given here too, such as --trainer.max_epochs 5 or --model.size_lr 0.02."""


class RunError(Exception):
    """A request that cannot be met; the message says in one line why, and what to do."""


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: The folder; it need not exist yet.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The full configuration."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The metrics of the chosen checkpoint."""
        return self.path / "metrics.json"

    @property
    def sizes(self) -> Path:
        """The learned sizes over training, as a table."""
        return self.path / "sizes.csv"

    @property
    def picture(self) -> Path:
        """The learned sizes over training, as a picture."""
        return self.path / "sizes.png"

    @property
    def best(self) -> Path:
        """The checkpoint chosen on the validation split."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "checkpoints" / "last.ckpt"

    def holds_a_run(self) -> bool:
        """Return whether a run has left files here."""
        files = (self.config, self.metrics, self.sizes, self.picture, self.best, self.last)
        return any(file.exists() for file in files)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        folder: Where its files are.
        network: The network with the weights of the chosen checkpoint.
        metrics: The content of ``metrics.json``.
    """

    folder: RunFolder
    network: nn.Module
    metrics: dict[str, Any]


class RunCLI(LightningCLI):
    """Configuration of a run: ``trainer``, ``model``, ``data`` and ``seed_everything``.

    Args:
        args: Arguments of the command line, those of the run folder excluded.
        folder: The run folder.
        prog: The command, as its help and errors call it.
    """

    def __init__(self, args: Sequence[str], folder: RunFolder, prog: str) -> None:
        self.folder = folder
        self.chosen = BestAndLast(folder.best, folder.last)
        self.timer = Timer()
        super().__init__(
            Classifier,
            pl.LightningDataModule,
            save_config_callback=None,
            trainer_defaults={
                "devices": 1,
                "enable_model_summary": False,
                "logger": False,
                "num_sanity_val_steps": 0,
            },
            seed_everything_default=0,
            parser_kwargs={
                "prog": prog,
                "usage": FIT_USAGE,
                "description": FIT_HELP,
                "exit_on_error": False,
            },
            subclass_mode_data=True,
            args=list(args),
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let the data say how many classes there are."""
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments given, whatever the process was called with."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Leave out the network's options that are at their default.

        The parser finds the options behind a network's ``**options`` and fills in all of them,
        also those that the network does not let through.
        """
        network = self.config["model"]["network"]
        module, _, name = network["class_path"].rpartition(".")
        source = getattr(importlib.import_module(module), name)
        parser = ArgumentParser()
        add = (
            parser.add_class_arguments
            if isinstance(source, type)
            else parser.add_function_arguments
        )
        add(source, "network")
        defaults = parser.get_defaults()["network"]
        named = inspect.signature(source).parameters
        given = network.get("init_args", Namespace())
        for name, value in list(vars(given).items()):
            if name not in named and value == defaults.get(name):
                del given[name]

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Make the trainer with what every run has: its callbacks and its checkpoints."""
        config = self.config_init["trainer"]
        self.trainer_defaults["callbacks"] = [
            SizeLog(self.folder.sizes),
            KeepLimits(),
            RandomState(),
            self.timer,
            *([] if config["enable_progress_bar"] is False else [RichProgressBar(leave=True)]),
            self.chosen,
        ]
        plugins = config["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        return super().instantiate_trainer(
            default_root_dir=self.folder.path, plugins=[*plugins, SafeCheckpointIO()], **kwargs
        )

    def yaml(self) -> str:
        """Return the full configuration."""
        return cast(str, self.parser.dump(self.config))


def fit(args: Sequence[str], prog: str = "sizeless fit") -> Outcome:
    """Train as the arguments say, then test the checkpoint that validation chose.

    Args:
        args: ``--config FILE --out DIR [--resume] [--KEY VALUE ...]``.
        prog: The command, as its help and errors call it.

    Raises:
        RunError: If an argument, a file or the folder is not as it must be.
    """
    folder, resume, rest = _folder_arguments(args)
    with _quiet(), _one_line_errors():
        cli = RunCLI(rest, folder, prog)
    if cli.trainer.world_size > 1:
        raise RunError(
            f"a run uses one device, got {cli.trainer.world_size}; "
            "set trainer.devices and trainer.num_nodes to 1"
        )
    if resume:
        _check_fits(cli.model, folder.last)
    write_text(folder.config, cli.yaml())
    with _quiet():
        cli.trainer.fit(
            cli.model, datamodule=cli.datamodule, ckpt_path=folder.last if resume else None
        )
        if not folder.best.exists():
            raise RunError(
                f"no checkpoint was chosen in {folder.path}: no epoch ended with a validation; "
                "set trainer.max_epochs and trainer.limit_val_batches above 0"
            )
        seconds, epochs = cli.timer.time_elapsed("train"), cli.trainer.current_epoch
        metrics = {
            "epochs": epochs,
            "seconds": round(seconds, 1),
            "seed": cli.config["seed_everything"],
            "parameters": sum(parameter.numel() for parameter in cli.model.parameters()),
        }
        return _test(cli, metrics)


def test(args: Sequence[str], prog: str = "sizeless test") -> Outcome:
    """Test the chosen checkpoint of a run folder again and renew its metrics.

    Args:
        args: ``DIR``.
        prog: The command, as its help and errors call it.

    Raises:
        RunError: If the folder holds no finished run.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description="Test the checkpoint that validation chose, and renew metrics.json."
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of a run")
    folder = RunFolder(parser.parse_args(args).folder)
    for file in (folder.config, folder.best):
        if not file.is_file():
            raise RunError(
                f"{folder.path} holds no run to test: {file} is missing; "
                "train one with: sizeless fit --config FILE --out DIR"
            )
    with _quiet(), _one_line_errors():
        cli = RunCLI(["--config", str(folder.config)], folder, prog)
    _check_fits(cli.model, folder.best)
    with _quiet():
        return _test(cli, _read_metrics(folder.metrics))


def _folder_arguments(args: Sequence[str]) -> tuple[RunFolder, bool, list[str]]:
    """Take the run folder out of the arguments and decide whether there is a run to resume."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--out")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--config", "-c", action="append", default=[])
    with _one_line_errors():
        own, rest = parser.parse_known_args(args)
    if any(arg in {"-h", "--help"} or arg.startswith("--print_config") for arg in rest):
        return RunFolder(Path(own.out or ".")), False, _with_configs(own.config, rest)
    folder = _check_folder(own.out, own.resume)
    configs = own.config
    if not configs:
        if not (own.resume and folder.config.is_file()):
            raise RunError(f"--config is missing: name a recipe, {EXAMPLE}")
        configs = [str(folder.config)]
    for config in configs:
        if not Path(config).is_file():
            raise RunError(f"--config {config} does not exist: name a recipe, {EXAMPLE}")
    return folder, own.resume and folder.last.is_file(), _with_configs(configs, rest)


def _check_folder(out: str | None, resume: bool) -> RunFolder:
    if not out:
        raise RunError("--out is missing: name the folder of the run, as in --out runs/first")
    folder = RunFolder(Path(out))
    if folder.path.exists() and not folder.path.is_dir():
        raise RunError(f"--out {folder.path} is a file: name a folder")
    if folder.holds_a_run() and not resume:
        raise RunError(
            f"{folder.path} already holds a run: add --resume to go on with it, "
            "or name another folder with --out"
        )
    return folder


def _with_configs(configs: Sequence[str], rest: Sequence[str]) -> list[str]:
    return [*(f"--config={config}" for config in configs), *rest]


def _check_fits(task: pl.LightningModule, checkpoint: Path) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    try:
        task.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(
            f"{checkpoint} does not fit the network of the configuration; use the one of its own "
            f"folder. {_one_line(error)}"
        ) from error


def _test(cli: RunCLI, metrics: dict[str, Any]) -> Outcome:
    (tested,) = cli.trainer.test(
        cli.model, datamodule=cli.datamodule, ckpt_path=cli.folder.best, verbose=False
    )
    # The checkpoint has brought back what validation said of it.
    metrics = {**metrics, "epoch": cli.chosen.epoch, **cli.chosen.metrics, **tested}
    write_text(cli.folder.metrics, json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    return Outcome(cli.folder, cli.model.network, metrics)


def _read_metrics(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise RunError(f"{path} is no JSON object; remove it and try again ({error})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's notices meanwhile, and deprecations that it alone can act on."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings(
                    "ignore", category=category, module=r"(lightning|jsonargparse)\b"
                )
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn what a wrong configuration raises into a ``RunError``."""
    try:
        yield
    except (argparse.ArgumentError, MisconfigurationException, TypeError, ValueError) as error:
        raise RunError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
