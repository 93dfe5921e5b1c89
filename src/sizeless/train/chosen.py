"""The network that a run came to, with a batch of its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from sizeless.train.checkpoints import read_checkpoint
from sizeless.train.config import RunCLI
from sizeless.train.folder import RunFolder
from sizeless.train.opening import (
    check_is_a_run,
    errors_of_data,
    load_weights,
    one_line_errors,
    quiet,
)

SAMPLES = 8
"""Most samples of the batch."""


@dataclass(frozen=True)
class Chosen:
    """What a finished run holds.

    Attributes:
        folder: Its files.
        network: The network with the weights of the checkpoint, in evaluation.
        samples: Up to 8 validation samples.
        make: Builds the network once more, with fresh weights, for samples of the same size.
    """

    folder: RunFolder
    network: nn.Module
    samples: Tensor
    make: Callable[[], nn.Module]


def chosen(
    path: Path,
    resolution: int | None = None,
    args: Sequence[str] = (),
    prog: str = "sizeless fold",
    checkpoint: Path | None = None,
) -> Chosen:
    """Load the network with the weights that validation chose, and some validation samples.

    Args:
        path: The run folder.
        resolution: Size of the samples, if it is not that of the run; kernels are rendered for it.
        args: Keys of the data to change, such as ``--data.init_args.root FOLDER``.
        prog: The command, as its errors call it.
        checkpoint: Another checkpoint of the run than the one that validation chose.

    Raises:
        RunError: If the folder holds no finished run, or the data are not there.
    """
    folder = RunFolder(path)
    check_is_a_run(folder)
    given = ["--config", str(folder.config), *args]
    given += ["--trainer.strategy=auto", "--trainer.devices=1", "--trainer.num_nodes=1"]
    with quiet(), errors_of_data(), one_line_errors():
        cli = RunCLI(given, folder, prog)
        if resolution is not None:
            trained = _samples(cli).shape[-1]
            cli = RunCLI([*given, f"--data.init_args.size={resolution}"], folder, prog)
        state = checkpoint or folder.best
        load_weights(cli.model, state, read_checkpoint(state))
        samples = _samples(cli)
        if resolution is not None:
            cli.render_for(samples.shape[-1] / trained)
    return Chosen(folder, cli.model.network.eval(), samples, cli.fresh_network)


def _samples(cli: RunCLI) -> Tensor:
    cli.datamodule.setup("validate")
    inputs, _ = next(iter(cli.datamodule.val_dataloader()))
    samples: Tensor = inputs[:SAMPLES]
    return samples
