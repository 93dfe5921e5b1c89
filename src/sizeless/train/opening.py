"""Opening a run: its files checked, its weights loaded, and what goes wrong said in one line."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException

from sizeless.train.checkpoints import UnreadableError, read_checkpoint
from sizeless.train.folder import RunError, RunFolder
from sizeless.train.objective import OutputError


def check_is_a_run(folder: RunFolder) -> None:
    """Raise ``RunError`` unless a folder holds a configuration and a chosen checkpoint."""
    for file in (folder.config, folder.best):
        if not file.is_file():
            raise RunError(
                f"{folder.path} holds no run to test: {file} is missing; "
                "train one with: sizeless fit --config FILE --out DIR"
            )


def load_best(task: pl.LightningModule, folder: RunFolder) -> None:
    """Load the weights of the checkpoint that validation chose."""
    load_weights(task, folder.best, read_checkpoint(folder.best))


def load_weights(task: pl.LightningModule, checkpoint: Path, state: dict[str, Any]) -> None:
    """Load the weights of a checkpoint that was read."""
    try:
        task.load_state_dict(state["state_dict"])
    except RuntimeError as error:
        raise RunError(
            f"{checkpoint} does not fit the network of the configuration; use the one of its own "
            f"folder. {one_line(error)}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's notices meanwhile, and deprecations that it alone can act on."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            # Logs of very short epochs have their rows at the end of the epoch.
            warnings.filterwarnings("ignore", message="The number of training batches")
            warnings.filterwarnings("ignore", message=".*WeightAveraging callback, but loading")
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings(
                    "ignore", category=category, module=r"(lightning|jsonargparse)\b"
                )
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a wrong configuration raises into a ``RunError``."""
    try:
        yield
    except (
        argparse.ArgumentError,
        MisconfigurationException,
        TypeError,
        UnreadableError,
        ValueError,
    ) as error:
        raise RunError(one_line(error)) from error


@contextmanager
def errors_of_data() -> Iterator[None]:
    """Turn into a ``RunError`` what data raise that are not there or not those of the network."""
    try:
        yield
    except (FileNotFoundError, URLError, OutputError) as error:
        raise RunError(one_line(error)) from error


def one_line(error: Exception) -> str:
    """What an exception says, without line breaks."""
    return " ".join(str(error).split())
