"""The configuration of a run: a recipe, the keys of the command line, and what is made of them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any, cast

import lightning.pytorch as pl
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from sizeless.sizes import change_resolution_, sizes
from sizeless.train.callbacks import KeepLimits, RandomState, SizeBar, SizeLog, StaysStopped
from sizeless.train.checkpoints import Checkpoints, SafeCheckpointIO
from sizeless.train.folder import RunFolder
from sizeless.train.task import Classifier

FIT_USAGE = "%(prog)s --config FILE --out DIR [--resume] [--fold FORMAT] [--KEY VALUE ...]"
FIT_HELP = """\
Train a network, choose the checkpoint on the validation split, and test that one. DIR receives
metrics.json, sizes.csv, costs.csv, sizes.png, config.yaml, environment.json, logs and
checkpoints/. With --resume a run that stopped goes on where its last checkpoint is; --config may
then be left out.
With --fold onnx, torchexport or pt2 the network is folded and exported in the end, as by
sizeless fold. Every key of a recipe can be given here too, such as --trainer.max_epochs 5 or
--model.size_lr 0.02."""


class RunCLI(LightningCLI):
    """Configuration of a run: ``trainer``, ``model``, ``data`` and ``seed_everything``.

    Args:
        args: Arguments of the command line, those of the run folder excluded.
        folder: The run folder.
        prog: The command, as its help and errors call it.
    """

    def __init__(self, args: Sequence[str], folder: RunFolder, prog: str) -> None:
        self.folder = folder
        self.timer = Timer()
        self.fineness = 1.0
        super().__init__(
            Classifier,
            pl.LightningDataModule,
            save_config_callback=None,
            trainer_defaults={
                "devices": 1,
                "enable_model_summary": False,
                "log_every_n_steps": 10,
                "num_sanity_val_steps": 0,
                # The data share the samples of a batch out themselves.
                "use_distributed_sampler": False,
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
        """Let the data say how many classes there are, and take what is the run's own."""
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        _take_whole_numbers_as_such(parser)
        parser.add_argument(
            "--checkpoint_every",
            type=int,
            default=1000,
            help="Steps from one checkpoint to the next within an epoch; 0: after epochs alone.",
        )
        parser.add_argument(
            "--start_from",
            type=str | None,
            default=None,
            help="Folder of a run whose chosen weights to start from; kernels follow the size of "
            "the samples.",
        )
        parser.add_argument(
            "--rescale",
            type=float,
            default=1.0,
            help="How much finer the samples are than those that the network is made for: kernels "
            "are rendered anew. --start_from finds it out.",
        )

    def instantiate_classes(self) -> None:
        """Make data, network and trainer, and bring the kernels to their resolution."""
        super().instantiate_classes()
        self.render_for(self.config["rescale"])

    def render_for(self, factor: float) -> None:
        """Adapt the kernels that can be to samples that are ``factor`` times as fine."""
        _render_for(self.model.network, factor)
        self.fineness *= factor

    def fresh_network(self) -> nn.Module:
        """Build the network once more, with weights drawn anew and kernels as fine as now."""
        task: Classifier = self.parser.instantiate_classes(self.config)["model"]
        _render_for(task.network, self.fineness)
        return task.network

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
        defaults = parser.get_defaults().get("network", Namespace())
        named = inspect.signature(source).parameters
        given = network.get("init_args", Namespace())
        for name, value in list(vars(given).items()):
            if name not in named and _plain(value) == _plain(defaults.get(name)):
                del given[name]

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Make the trainer with what every run has: its callbacks, logs and checkpoints."""
        config, folder = self.config_init["trainer"], self.folder
        self.chosen = Checkpoints(
            folder.best, folder.last, folder.previous, self.config["checkpoint_every"]
        )
        self.size_log = SizeLog(folder.sizes)
        self.trainer_defaults["callbacks"] = [
            self.size_log,
            KeepLimits(),
            RandomState(),
            StaysStopped(),
            self.timer,
            *([] if config["enable_progress_bar"] is False else [SizeBar(leave=True)]),
            self.chosen,
        ]
        plugins = config["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if config["logger"] in {None, True}:
            logs = folder.path / "logs"
            kwargs["logger"] = [TensorBoardLogger(logs, "tensorboard"), CSVLogger(logs, "csv")]
        return super().instantiate_trainer(
            default_root_dir=folder.path, plugins=[*plugins, SafeCheckpointIO()], **kwargs
        )

    def yaml(self) -> str:
        """Return the full configuration."""
        return cast(str, self.parser.dump(self.config))


def _render_for(network: nn.Module, factor: float) -> None:
    if factor != 1 and any(row.kind == "kernel size" for row in sizes(network)):
        change_resolution_(network, factor)


def _take_whole_numbers_as_such(parser: LightningArgumentParser) -> None:
    """Try int before float wherever the trainer takes both: 1 batch is not 1.0, all of them.

    ``typing`` gives equal unions as one object, in the order of whichever was written first, in
    any package; the parser tries the types in that order.
    """
    actions: list[Any] = parser._actions
    for action in actions:
        if getattr(action, "_typehint", None) == int | float | None:
            action._typehint = int | float | None


def _plain(value: Any) -> Any:
    """Return ``value`` as the parser would: it makes lists of tuples."""
    return list(value) if isinstance(value, tuple) else value
