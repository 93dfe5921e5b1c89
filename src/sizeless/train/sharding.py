"""Training in shards: ordinary weights are cut over the processes, what learns a size stays whole.

Layers read their sizes as numbers, and keep kernels for as long as their parameters do not change;
both need the parameters themselves. Theirs are few: those of ordinary layers are what is large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from sizeless.nn.caching import Caching
from sizeless.nn.sized import SizeParameters

LEAST = 1_000_000
"""Parameters from which a block is gathered, used and given back for itself."""


class Sharded(ModelParallelStrategy):
    """Fully sharded data parallelism (FSDP2); ``trainer.strategy: sharded``.

    Each process holds a part of every ordinary weight, of its gradient and its optimiser state, and
    gathers a block's weights while it computes. Layers of this library stay whole in all processes,
    so all have the same sizes. Checkpoints are those of one process.

    Args:
        process_group_backend: Backend of ``torch.distributed``; ``None`` is that of the device.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
        )

    def setup_environment(self) -> None:
        """Start the processes as one group over which the data, and nothing else, are divided."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
        task = self.lightning_module
        if task is None:
            raise RuntimeError("a trainer sets the strategy up for a task")

        def configure_model() -> None:
            if not is_sharded(task.parameters()):
                shard(task.get_submodule("network"), self.device_mesh["data_parallel"])

        # For this strategy alone: callbacks ask whether a task has this hook.
        task.configure_model = configure_model  # type: ignore[method-assign]


StrategyRegistry.register("sharded", Sharded, description="FSDP2 that keeps learned sizes whole")


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Cut the weights of ordinary layers over the processes of a mesh, in place.

    Args:
        network: Any network.
        mesh: One axis of processes.
    """
    whole = set(_whole(network))
    for block in _blocks(network, whole):
        fully_shard(block, mesh=mesh, ignored_params=whole)


def is_sharded(parameters: Iterable[Tensor]) -> bool:
    """Return whether any of the parameters is held in parts."""
    return any(isinstance(parameter, DTensor) for parameter in parameters)


def check_callbacks(trainer: pl.Trainer) -> None:
    """Raise if a callback cannot work with a sharded network.

    Raises:
        ValueError: If so.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(trainer.strategy, Sharded) and isinstance(callback, WeightAveraging):
            raise ValueError(
                f"{type(callback).__name__} keeps a copy of the whole network, which "
                "--trainer.strategy sharded does not have: leave one of them out"
            )


def share_buffers(network: nn.Module) -> None:
    """Give all processes the buffers of the first."""
    for buffer in network.buffers():
        distributed.broadcast(buffer, 0)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients of whole parameters by their means over the processes, in place."""
    whole = (p.grad for p in parameters if not isinstance(p, DTensor))
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for grad in whole:
        if grad is not None:
            by_dtype.setdefault(grad.dtype, []).append(grad)
    for grads in by_dtype.values():
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))


def clip_gradients(parameters: Iterable[Tensor], limit: float, algorithm: str) -> None:
    """Clip the gradients of parameters of both kinds, in place.

    Args:
        parameters: Those whose gradients to clip.
        limit: Largest norm of all together, or largest absolute value of each element.
        algorithm: ``"norm"`` or ``"value"``.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if algorithm == "value":
        for grad in grads:
            grad.clamp_(-limit, limit)
        return
    squares = math.fsum(float(_norm(grad)) ** 2 for grad in grads)
    factor = limit / (math.sqrt(squares) + 1e-6)
    if factor < 1:
        for grad in grads:
            grad.mul_(factor)


def _norm(grad: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(grad)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _whole(network: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of layers with sizes or kernels of their own."""
    for module in network.modules():
        if isinstance(module, (Caching, SizeParameters)):
            yield from module.parameters()


def _blocks(network: nn.Module, whole: set[nn.Parameter]) -> list[nn.Module]:
    """The large blocks among the items of lists and sequences, inner ones first, and all."""
    items = [
        item
        for module in network.modules()
        if isinstance(module, (nn.Sequential, nn.ModuleList))
        for item in module
        if _count(item, whole) >= LEAST and type(item).forward is not nn.Module.forward
    ]
    return [*reversed(dict.fromkeys(items)), network]


def _count(module: nn.Module, whole: set[nn.Parameter]) -> int:
    parameters: Sequence[nn.Parameter] = [p for p in module.parameters() if p not in whole]
    return sum(parameter.numel() for parameter in parameters)
