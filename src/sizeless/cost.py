"""What a network costs at its present sizes, differentiable in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sizeless._amounts import Amount, bytes_of, macs_of, total
from sizeless._calls import Call, Strides, calls_of
from sizeless._validate import module as check_module
from sizeless.machine import Machine

QUANTITIES = ("macs", "bytes", "latency")


@dataclass(frozen=True)
class CostRow:
    """Cost of one call of one layer.

    Attributes:
        name: Path of the layer in the model.
        layer: Name of its class.
        macs: Multiply-accumulates for the whole example input, differentiable in the sizes.
        bytes: Bytes of input, weights and output, differentiable in the sizes.
        latency: Estimated seconds, differentiable in the sizes.
        input_shape: Shape of the input.
        output_shape: Shape of the output.
        strides: The learned strides upstream, ``(module, pass)``, with the input size of each: a
            shared module that is passed again on the way counts again.
    """

    name: str
    layer: str
    macs: Tensor
    bytes: Tensor
    latency: Tensor
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

    @property
    def bytes(self) -> Tensor:
        """Bytes that all rows read and write, a tensor of shape ``()``."""
        return torch.stack([row.bytes for row in self.rows]).sum()

    @property
    def latency(self) -> Tensor:
        """Estimated seconds of all rows, one after the other, a tensor of shape ``()``."""
        return torch.stack([row.latency for row in self.rows]).sum()


def cost(
    model: nn.Module,
    example_input: Tensor | tuple[Any, ...],
    *,
    machine: Machine | None = None,
) -> Cost:
    r"""Count operations and memory traffic of a network at its present sizes, and estimate a time.

    The value is that of the network as it stands, with integer sizes. Its gradient is that of the
    sizes before rounding: for a layer after strides $S_i$ with a kernel of
    $s$ taps, $d \log$ MACs is the sum of $d \log$ of all relaxed sizes. Which
    strides lie upstream is found from the flow of tensors through one forward pass.

    Counted are convolutions (also transposed), linear layers, NIFF layers (real transforms at
    $2.5\, n \log_2 n$ operations), learned strides and spectral pools (matrix products).
    Not counted is what is done once per forward, whatever the batch: rendering kernels.

    ``bytes`` are those of the input, the weights and the output of each counted layer, each once,
    in the element size that it has: of a FlexConv the rendered kernel, of a NIFF layer the filters'
    spectra, of strides and pools their matrices. Not counted is what a layer keeps to itself, and
    what others (normalisation, activations) read and write. Each of the three follows its own
    relaxed sizes: input and output those of their maps, weights that of the kernel.

    ``latency`` is a roofline, in seconds:

    $$
    \sum_l \max\Big(\frac{\text{MACs}_l}{\text{MACs per second}},\;
    \frac{\text{bytes}_l}{\text{bytes per second}}\Big)
    $$

    The maximum is hard: a layer that memory holds up has the gradient of its bytes, any other that
    of its MACs.

    Args:
        model: Any module; its training mode, statistics and gradients are left as they are.
        example_input: Input tensor, or a tuple of all positional arguments.
        machine: Rates for the latency; ``None`` is ``Machine()``, one core of a server.

    Returns:
        A ``Cost`` with ``macs``, ``bytes``, ``latency`` and ``rows``.

    Raises:
        TypeError: If ``model`` is no module, ``example_input`` neither tensor nor tuple, or
            ``machine`` no ``Machine``.
        ValueError: If no layer that is counted was called.

    Source: of the roofline, Williams, Waterman and Patterson 2009, Communications of the ACM 52(4).

    Examples:
        >>> import sizeless, torch
        >>> model = torch.nn.Sequential(sizeless.DiffStride1d(2.0), torch.nn.Conv1d(1, 1, 3))
        >>> result = cost(model, torch.zeros(1, 1, 64))
        >>> result.macs.backward()
        >>> int(result.macs), model[0].log2_stride.grad.item() < 0
        (2674, True)
        >>> int(cost(torch.nn.Linear(10, 5), torch.zeros(1, 10)).bytes) == 4 * (10 + 55 + 5)
        True
    """
    check_module("model", model)
    rates = check_machine(machine)
    rows = []
    for call in calls_of(model, example_input):
        macs, moved, seconds = (
            amount_of(call, quantity, rates).tensor(call.device) for quantity in QUANTITIES
        )
        rows.append(
            CostRow(
                name=call.name,
                layer=type(call.module).__name__,
                macs=macs,
                bytes=moved,
                latency=seconds,
                input_shape=call.input_shape,
                output_shape=call.output_shape,
                strides=call.strides,
            )
        )
    return Cost(tuple(rows))


def check_machine(machine: Machine | None) -> Machine:
    """Return the machine, or that of the defaults."""
    if machine is None:
        return Machine()
    if not isinstance(machine, Machine):
        raise TypeError(f"machine must be a sizeless.Machine or None, got {machine!r}")
    return machine


def amount_of(call: Call, quantity: str, machine: Machine) -> Amount:
    """One of ``QUANTITIES`` of a call."""
    if quantity == "macs":
        return macs_of(call)
    if quantity == "bytes":
        return bytes_of(call)
    computing = macs_of(call).times(1 / machine.macs_per_second)
    moving = bytes_of(call).times(1 / machine.bytes_per_second)
    return computing if computing.value >= moving.value else moving


def whole_amount(calls: tuple[Call, ...], quantity: str, machine: Machine) -> Amount:
    """One of ``QUANTITIES`` of all calls."""
    return total(amount_of(call, quantity, machine) for call in calls)
