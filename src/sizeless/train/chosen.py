"""The network that a run came to, with a batch of its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from sizeless.train.config import RunCLI
from sizeless.train.folder import RunFolder
from sizeless.train.run import (
    _check_is_a_run,
    _errors_of_data,
    _load_best,
    _one_line_errors,
    _quiet,
)

SAMPLES = 8
"""Most samples of the batch."""


def chosen(
    path: Path,
    resolution: int | None = None,
    args: Sequence[str] = (),
    prog: str = "sizeless fold",
) -> tuple[nn.Module, Tensor]:
    """Load the network with the weights that validation chose, and some validation samples.

    Args:
        path: The run folder.
        resolution: Size of the samples, if it is not that of the run; kernels are rendered for it.
        args: Keys of the data to change, such as ``--data.init_args.root FOLDER``.
        prog: The command, as its errors call it.

    Returns:
        The network, in evaluation, and up to 8 samples.

    Raises:
        RunError: If the folder holds no finished run, or the data are not there.
    """
    folder = RunFolder(path)
    _check_is_a_run(folder)
    given = ["--config", str(folder.config), *args]
    given += ["--trainer.strategy=auto", "--trainer.devices=1", "--trainer.num_nodes=1"]
    with _quiet(), _errors_of_data(), _one_line_errors():
        cli = RunCLI(given, folder, prog)
        if resolution is not None:
            trained = _samples(cli).shape[-1]
            cli = RunCLI([*given, f"--data.init_args.size={resolution}"], folder, prog)
        _load_best(cli.model, folder)
        samples = _samples(cli)
        if resolution is not None:
            cli.render_for(samples.shape[-1] / trained)
    return cli.model.network.eval(), samples


def _samples(cli: RunCLI) -> Tensor:
    cli.datamodule.setup("validate")
    inputs, _ = next(iter(cli.datamodule.val_dataloader()))
    samples: Tensor = inputs[:SAMPLES]
    return samples
