"""What a network costs at its present sizes, differentiable in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from sizeless._example import arguments_of, evaluating, tensors_in
from sizeless._validate import module as check_module
from sizeless.nn import DiffStrideNd, FlexConvNd, NIFFConvNd, SpectralPoolNd

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
COUNTED = (*CONVOLUTIONS, nn.Linear, FlexConvNd, NIFFConvNd, DiffStrideNd, SpectralPoolNd)
OPAQUE = (FlexConvNd, NIFFConvNd)

Strides = dict[tuple[DiffStrideNd, int], tuple[int, ...]]
"""Learned strides that a tensor has passed: (module, 1 for its first pass), and the map."""


@dataclass(frozen=True)
class CostRow:
    """Cost of one call of one layer.

    Attributes:
        name: Path of the layer in the model.
        layer: Name of its class.
        macs: Multiply-accumulates for the whole example input, differentiable in the sizes.
        input_shape: Shape of the input.
        output_shape: Shape of the output.
        strides: The learned strides upstream, ``(module, pass)``, with the input size of each: a
            shared module that is passed again on the way counts again.
    """

    name: str
    layer: str
    macs: Tensor
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    strides: Strides


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass.

    Attributes:
        rows: One row per call of a counted layer, in the order of the calls.
    """

    rows: tuple[CostRow, ...]

    @property
    def macs(self) -> Tensor:
        """Multiply-accumulates of all rows, a tensor of shape ``()``."""
        return torch.stack([row.macs for row in self.rows]).sum()


class _Flow(TorchFunctionMode):
    """Remembers for every tensor which learned strides it has passed through."""

    def __init__(self) -> None:
        super().__init__()
        self.strides = WeakTensorKeyDictionary()

    def of(self, *values: Any) -> Strides:
        """Union of the strides of all tensors in nested ``values``."""
        found: Strides = {}
        for tensor in tensors_in(values):
            found.update(self.strides.get(tensor, {}))
        return found

    def mark(self, value: Any, strides: Strides) -> None:
        """Set the strides of all tensors in ``value``."""
        for tensor in tensors_in(value):
            self.strides[tensor] = strides

    def mark_unseen(self, value: Any, strides: Strides) -> None:
        """Set the strides of tensors in ``value`` that no function seen here has made."""
        self.mark([tensor for tensor in tensors_in(value) if tensor not in self.strides], strides)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        changed = args[0] if func is Tensor.__setitem__ else output
        if any(True for _ in tensors_in(changed)):
            with torch._C.DisableTorchFunction():
                fixed = _fixes_the_size(func, *args, **kwargs)
                self.mark(changed, {} if fixed else self.of(args, kwargs))
        return output


def _fixes_the_size(func: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether the output is as large as asked for, whatever the strides before it."""
    name = getattr(func, "__name__", "")
    if name == "interpolate":
        return (args[1] if len(args) > 1 else kwargs.get("size")) is not None
    if "adaptive_" not in name:
        return False
    size = args[1] if len(args) > 1 else kwargs.get("output_size")
    return not (isinstance(size, (tuple, list)) and None in size)


def cost(model: nn.Module, example_input: Tensor | tuple[Any, ...]) -> Cost:
    r"""Count the multiply-accumulates of a network at its present sizes.

    The value is that of the network as it stands, with integer sizes. Its gradient is that of the
    sizes before rounding: for a layer after strides $S_i$ with a kernel of
    $s$ taps, $d \log$ MACs is the sum of $d \log$ of all relaxed sizes. Which
    strides lie upstream is found from the flow of tensors through one forward pass.

    Counted are convolutions (also transposed), linear layers, NIFF layers (real transforms at
    $2.5\, n \log_2 n$ operations), learned strides and spectral pools (matrix products).
    Not counted is what is done once per forward, whatever the batch: rendering kernels.

    Args:
        model: Any module; its training mode, statistics and gradients are left as they are.
        example_input: Input tensor, or a tuple of all positional arguments.

    Returns:
        A ``Cost`` with ``macs`` and ``rows``.

    Raises:
        TypeError: If ``model`` is no module, or ``example_input`` neither tensor nor tuple.
        ValueError: If no layer that is counted was called.

    Examples:
        >>> import sizeless, torch
        >>> model = torch.nn.Sequential(sizeless.DiffStride1d(2.0), torch.nn.Conv1d(1, 1, 3))
        >>> result = cost(model, torch.zeros(1, 1, 64))
        >>> result.macs.backward()
        >>> int(result.macs), model[0].log2_stride.grad.item() < 0
        (2674, True)
    """
    check_module("model", model)
    arguments = arguments_of(example_input)
    flow, rows, handles = _Flow(), [], []
    inside = {
        child
        for module in model.modules()
        if isinstance(module, OPAQUE)
        for child in module.modules()
        if child is not module
    }

    def follow(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
            strides = flow.of(args, kwargs)
            flow.mark_unseen(output, strides)
            if not isinstance(module, COUNTED):
                return
            input = next(tensors_in((args, kwargs)))
            linear = isinstance(module, nn.Linear)
            positions = math.prod(output.shape[1:-1] if linear else output.shape[2:])
            with torch.enable_grad():
                macs = _macs(module, input, output)
                # Where one position is left, no stride upstream changes the work.
                macs = macs * _relaxation(output, strides if positions > 1 else {})
            shapes = tuple(input.shape), tuple(output.shape)
            rows.append(CostRow(name, type(module).__name__, macs, *shapes, strides))
            if isinstance(module, DiffStrideNd):
                key = module, passes(module, strides) + 1
                flow.mark(output, {**strides, key: tuple(input.shape[2:])})
            elif isinstance(module, SpectralPoolNd) and module.stride is None:
                flow.mark(output, {})

        return hook

    for name, module in model.named_modules():
        if module not in inside:
            handles.append(module.register_forward_hook(follow(name), with_kwargs=True))
    try:
        eager = torch.compiler.set_stance("force_eager")
        with eager, evaluating(model), torch.no_grad(), flow:
            model(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    if not rows:
        raise ValueError(
            f"model {type(model).__name__} called no layer that is counted: convolutions, linear "
            "layers and the layers of sizeless"
        )
    return Cost(tuple(rows))


def passes(pool: DiffStrideNd, strides: Strides) -> int:
    """How many times a tensor with these ``strides`` has passed ``pool``."""
    return sum(module is pool for module, _ in strides)


def _relaxation(output: Tensor, strides: Strides) -> Tensor:
    """A factor of value 1 whose gradient is that of the relaxed map size."""
    factor = torch.ones((), device=output.device)
    for (pool, _), input_size in strides.items():
        factor = factor * _one(pool.relaxed_size(input_size)).prod()
    return factor


def _one(relaxed: Tensor) -> Tensor:
    """Ones whose gradients are those of the logarithms of ``relaxed``."""
    ratio: Tensor = relaxed / relaxed.detach()
    return ratio.float()


def _macs(module: nn.Module, input: Tensor, output: Tensor) -> Tensor:
    count = torch.ones((), device=output.device)
    if isinstance(module, FlexConvNd):
        taps = module.in_channels // module.groups * math.prod(module.size)
        return count * output.numel() * taps * _one(module.window.relaxed_size()).prod()
    if isinstance(module, NIFFConvNd):
        positions = output.numel() // module.out_channels
        return count * positions * module.describe_size().cost
    if isinstance(module, DiffStrideNd):
        return _matrix_macs(input, output, _one(module.relaxed_size(tuple(input.shape[2:]))))
    if isinstance(module, SpectralPoolNd):
        return _matrix_macs(input, output, count.expand(input.dim() - 2))
    if isinstance(module, CONVOLUTIONS):
        side, channels = output, module.in_channels
        if module.transposed:
            side, channels = input, module.out_channels
        taps = channels // module.groups * math.prod(module.kernel_size)
        return count * side.numel() * taps
    return count * output.numel() * input.shape[-1]


def _matrix_macs(input: Tensor, output: Tensor, ones: Tensor) -> Tensor:
    """Work of one matrix product per axis, in the order in which they are done.

    ``ones`` holds for each axis a 1 with the gradient of the output's relaxed size.
    """
    shape, total = list(input.shape), torch.zeros((), device=input.device)
    for axis, one in enumerate(ones.cumprod(dim=0), start=2):
        length, shape[axis] = shape[axis], output.shape[axis]
        total = total + math.prod(shape) * length * one
    return total
