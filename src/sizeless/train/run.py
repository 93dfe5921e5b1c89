"""One training run in one folder: fit, resume, and test the chosen checkpoint."""

from __future__ import annotations

import argparse
import json
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from sizeless._files import write_text
from sizeless.train import environment
from sizeless.train.checkpoints import UnreadableError, check_strategy, read_checkpoint
from sizeless.train.config import RunCLI
from sizeless.train.folder import RunError, RunFolder
from sizeless.train.opening import (
    check_is_a_run,
    errors_of_data,
    load_best,
    load_weights,
    one_line_errors,
    quiet,
)
from sizeless.train.sharding import check_callbacks

__all__ = ["Outcome", "RunError", "fit", "test"]

MOVABLE = ("root", "roots", "batch_size", "workers", "download")
"""Keys of the data that a test may change: they leave the samples of the splits as they are."""

EXAMPLE = "as in --config recipes/mnist1d.yaml"


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        folder: Where its files are.
        network: The network with the weights of the chosen checkpoint.
        metrics: The content of ``metrics.json``.
        is_main: Whether this is the process that writes and prints.
    """

    folder: RunFolder
    network: nn.Module
    metrics: dict[str, Any]
    is_main: bool = True


def fit(args: Sequence[str], prog: str = "sizeless fit") -> Outcome:
    """Train as the arguments say, then test the checkpoint that validation chose.

    Args:
        args: ``--config FILE --out DIR [--resume] [--KEY VALUE ...]``.
        prog: The command, as its help and errors call it.

    Raises:
        RunError: If an argument, a file or the folder is not as it must be.
    """
    folder, resume, rest = _folder_arguments(args)
    with quiet(), one_line_errors():
        cli = RunCLI(rest, folder, prog)
        start = _resumed(cli) if resume else None
        if start is None and cli.config["start_from"] is not None:
            if f"--config={folder.config}" in rest:
                # It has what --start_from found out when the run was begun for the first time.
                cli.render_for(1 / cli.config["rescale"])
                cli.config["rescale"] = 1.0
            _start_from(cli, RunFolder(Path(cli.config["start_from"])))
        check_callbacks(cli.trainer)
    if _is_first():
        write_text(folder.config, cli.yaml())
        environment.write(folder.environment)
        conversion = getattr(cli.model.network, "conversion", None)
        if conversion is not None:
            write_text(folder.conversion, f"{conversion}\n")
    with quiet():
        try:
            with errors_of_data():
                cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=start)
        except RunError:
            if _is_first():
                folder.forget_start()
            raise
        if not folder.best.exists():
            raise RunError(
                f"no checkpoint was chosen in {folder.path}: no epoch ended with a validation; "
                "set trainer.max_epochs and trainer.limit_val_batches above 0"
            )
        metrics = {
            "epochs": cli.trainer.current_epoch,
            "seconds": round(cli.timer.time_elapsed("train"), 1),
            "seed": cli.config["seed_everything"],
            "parameters": sum(parameter.numel() for parameter in cli.model.parameters()),
        }
        return _test(cli, metrics)


def test(args: Sequence[str], prog: str = "sizeless test") -> Outcome:
    """Test the chosen checkpoint of a run folder again and renew its metrics.

    Args:
        args: ``DIR [--resolution PIXELS] [--data.KEY VALUE ...]``.
        prog: The command, as its help and errors call it.

    Raises:
        RunError: If the folder holds no finished run.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s DIR [--resolution PIXELS] [--data.KEY VALUE ...]",
        description="Test the checkpoint that validation chose, and renew metrics.json; at another "
        "resolution, write metrics-PIXELS.json. Keys of the data may be given anew, such as "
        "--data.init_args.root FOLDER.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of a run")
    parser.add_argument(
        "--resolution",
        metavar="PIXELS",
        type=int,
        help="size of the samples; kernels are rendered anew for it",
    )
    own, rest = parser.parse_known_args(args)
    for arg in rest:
        if arg.startswith("--") and arg.partition("=")[0].rpartition(".")[2] not in MOVABLE:
            raise RunError(
                f"{arg} cannot be changed after training; these keys of --data can: "
                f"{', '.join(MOVABLE)}"
            )
    folder = RunFolder(own.folder)
    check_is_a_run(folder)
    given = ["--config", str(folder.config), *rest]
    if "WORLD_SIZE" not in os.environ:
        given += ["--trainer.strategy=auto", "--trainer.devices=1", "--trainer.num_nodes=1"]
    if own.resolution is None:
        with quiet(), one_line_errors():
            cli = RunCLI(given, folder, prog)
            load_best(cli.model, folder)
        with quiet():
            return _test(cli, _read_metrics(folder.metrics))
    with quiet(), errors_of_data(), one_line_errors():
        trained = _sample_size(RunCLI(given, folder, prog))
        cli = RunCLI([*given, f"--data.init_args.size={own.resolution}"], folder, prog)
        load_best(cli.model, folder)
        now = _sample_size(cli)
        # Of an image as a sequence, the samples grow with the square of the resolution.
        factor = now / trained
        cli.render_for(factor)
    with quiet(), errors_of_data():
        (tested,) = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    metrics = {
        "resolution": own.resolution,
        "trained_resolution": _side(trained, own.resolution, now),
        "rescale": factor,
        **tested,
    }
    path = folder.path / f"metrics-{own.resolution}.json"
    return _outcome(cli, metrics, path)


def _sample_size(cli: RunCLI) -> int:
    """Length of the last axis of the samples that a configuration gives."""
    cli.datamodule.setup("test")
    inputs, _ = next(iter(cli.datamodule.test_dataloader()))
    return int(inputs.shape[-1])


def _side(length: int, known: int, known_length: int) -> int | None:
    """Side of the images whose samples are so long, from those of images whose side is known."""
    if known_length == known:
        return length
    # A sequence of pixels; the length of any other says nothing about the image.
    return math.isqrt(length) if known_length == known**2 else None


def _start_from(cli: RunCLI, folder: RunFolder) -> None:
    """Load the chosen weights of another run; kernels follow the size of the samples."""
    check_is_a_run(folder)
    there = RunCLI(["--config", str(folder.config)], folder, "sizeless fit")
    load_best(cli.model, folder)
    factor = _sample_size(cli) / _sample_size(there)
    cli.render_for(factor)
    cli.config["rescale"] *= factor


def _resumed(cli: RunCLI) -> Path | None:
    """Load the last checkpoint that is whole and the run's own, and return its path, if any."""
    problems: list[str] = []
    paths = [path for path in (cli.folder.last, cli.folder.previous) if path.is_file()]
    if paths:
        _keep_resolution(cli)
    for path in paths:
        try:
            state = read_checkpoint(path)
            load_weights(cli.model, path, state)
        except (UnreadableError, RunError) as error:
            problems.append(str(error))
            continue
        check_strategy(path, state, cli.trainer)
        for problem in problems:
            warnings.warn(f"{problem}; going on from {path}", stacklevel=2)
        return path
    if problems:
        raise RunError("; ".join(problems))
    return None


def _keep_resolution(cli: RunCLI) -> None:
    """Bring kernels to the resolution that --start_from found out when the run began."""
    if cli.config["start_from"] is not None and cli.folder.config.is_file():
        written = yaml.safe_load(cli.folder.config.read_text(encoding="utf-8"))
        cli.render_for(written["rescale"] / cli.config["rescale"])
        cli.config["rescale"] = written["rescale"]


def _is_first() -> bool:
    """Whether this is the first process of a run, before the trainer is there."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _folder_arguments(args: Sequence[str]) -> tuple[RunFolder, bool, list[str]]:
    """Take the run folder out of the arguments and decide whether there is a run to resume."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--out")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--config", "-c", action="append", default=[])
    with one_line_errors():
        own, rest = parser.parse_known_args(args)
    if any(arg in {"-h", "--help"} or arg.startswith("--print_config") for arg in rest):
        return RunFolder(Path(own.out or ".")), False, _with_configs(own.config, rest)
    # Other processes of the run may come late and find its first files.
    folder = _check_folder(own.out, own.resume or not _is_first())
    configs = own.config
    if not configs:
        if not (own.resume and folder.config.is_file()):
            raise RunError(f"--config is missing: name a recipe, {EXAMPLE}")
        configs = [str(folder.config)]
    for config in configs:
        if not Path(config).is_file():
            raise RunError(f"--config {config} does not exist: name a recipe, {EXAMPLE}")
    return folder, own.resume, _with_configs(configs, rest)


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


def _test(cli: RunCLI, metrics: dict[str, Any]) -> Outcome:
    callbacks: list[Any] = cli.trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, WeightAveraging):
            # It would put the weights behind the average in place of the average that was chosen.
            callback._average_model = None
    with errors_of_data():
        (tested,) = cli.trainer.test(
            cli.model, datamodule=cli.datamodule, ckpt_path=cli.folder.best, verbose=False
        )
    # The checkpoint has brought back what validation said of it.
    metrics = {**metrics, "epoch": cli.chosen.epoch, **cli.chosen.metrics, **tested}
    return _outcome(cli, metrics, cli.folder.metrics)


def _outcome(cli: RunCLI, metrics: dict[str, Any], path: Path) -> Outcome:
    # Of a network without a layer whose work is known, none is told.
    metrics = {**metrics, "macs": None if math.isnan(cli.size_log.macs) else cli.size_log.macs}
    if "test" in cli.model.cost_shares:
        metrics["budget_met"] = cli.model.over_budget == 0
    if cli.trainer.is_global_zero:
        write_text(path, json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    return Outcome(cli.folder, cli.model.network, metrics, cli.trainer.is_global_zero)


def _read_metrics(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise RunError(f"{path} is no JSON object; remove it and try again ({error})") from error
