"""State dicts of the NIFF authors' layers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sizeless._validate import feature_map
from sizeless._validate import state_dict as check_state_dict
from sizeless.functional import circular_convolve
from sizeless.kernels import MLP
from sizeless.kernels.base import linears
from sizeless.nn import NIFFConv2d

FILTER_KEY = re.compile(r"mlp_(real|imag)\.layer_mpl(\d+)\.(weight|bias)")
POINTWISE_KEY = "mlp.weight"
FULL_LAYERS = 2
"""Linear maps of the network in the authors' full layers; depthwise layers have 3 or 4."""

Weights = dict[str, Tensor]


class OfficialFullNIFF2d(nn.Module):
    """The authors' full NIFF layer: every input channel to every output channel.

    Their state dict holds the product of both channel counts and not the counts, so the number of
    outputs follows from the input at each call.

    Args:
        layer: A NIFF layer of one input channel whose outputs are the filters of all pairs, in
            the authors' order.

    Source: Grabinski et al. 2024, arXiv 2307.10001, the full convolution.
    """

    def __init__(self, layer: NIFFConv2d) -> None:
        super().__init__()
        self.filters = layer

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, filters / C, H, W)``."""
        feature_map("input", input, 2)
        filters, channels = self.filters.out_channels, input.shape[1]
        if channels < 1 or filters % channels:
            raise ValueError(
                f"input must have a number of channels that divides the {filters} filters, got "
                f"{channels} in shape {tuple(input.shape)}"
            )
        numbers = torch.arange(filters, device=input.device)
        order = _rolled(numbers.view(channels, filters // channels)).T
        real, imag = self.filters.half_spectrum(tuple(input.shape[2:]))
        return circular_convolve(input, real[:, 0][order], imag[:, 0][order])


def niff_from_official(state_dict: Mapping[str, Tensor]) -> nn.Module:
    r"""Build the layer that an official NIFF state dict describes.

    Accepted are one layer (depthwise, full, or 1x1 "in the frequency domain"), bare or as the only
    member of an ``nn.Sequential``, and a sequential of two: the split layer, a depthwise filter
    followed by a 1x1. The result computes the same function of real maps.

    The authors' ``fftshift`` also rolls the channels, so that filter
    $(c + \lfloor C / 2 \rfloor) \bmod C$ acts on channel $c$; here the filters are
    stored in the order in which they act. A 1x1 between the shifts has its rows and columns
    rolled, and is an ordinary 1x1 convolution.

    Args:
        state_dict: The official state dict, with keys such as ``mlp_real.layer_mpl1.weight``.

    Returns:
        A ``NIFFConv2d`` (depthwise), an ``nn.Conv2d`` of size 1, an
        ``nn.Sequential`` of both (split), or an ``OfficialFullNIFF2d``; in the dtype and on
        the device of the state dict.

    Raises:
        TypeError: If ``state_dict`` does not map names to tensors.
        ValueError: If keys or shapes do not belong to such a layer.

    Source: Grabinski et al. 2024, arXiv 2307.10001, and the authors' program.

    Examples:
        >>> import torch
        >>> niff_from_official({"mlp.weight": torch.zeros(7, 4)})
        Conv2d(4, 7, kernel_size=(1, 1), stride=(1, 1), bias=False)
    """
    members = _members(check_state_dict(state_dict))
    if len(members) == 1:
        (weights,) = members
        return _pointwise(weights[POINTWISE_KEY]) if POINTWISE_KEY in weights else _filter(weights)
    first, second = members
    if POINTWISE_KEY in first or POINTWISE_KEY not in second:
        raise ValueError(
            "state_dict of two layers must be a depthwise filter (mlp_real, mlp_imag) followed by "
            f"a 1x1 (mlp.weight), got {sorted(first)[0]!r} before {sorted(second)[0]!r}"
        )
    depthwise = _filter(first)
    matrix = second[POINTWISE_KEY]
    if not isinstance(depthwise, NIFFConv2d) or matrix.shape[1] != depthwise.out_channels:
        raise ValueError(
            f"state_dict's 1x1 of shape {tuple(matrix.shape)} does not follow its filter layer; "
            "a split layer is a depthwise filter and a 1x1 of as many input channels"
        )
    return nn.Sequential(depthwise, _pointwise(_rolled(matrix)))


def _members(state_dict: Mapping[str, Tensor]) -> list[Weights]:
    """Split a state dict by the leading index of an ``nn.Sequential``."""
    members: dict[int, Weights] = {}
    for key, value in state_dict.items():
        index, _, rest = key.partition(".") if key[:1].isdigit() else ("0", "", key)
        if not (rest == POINTWISE_KEY or FILTER_KEY.fullmatch(rest)):
            raise ValueError(
                f"state_dict key {key!r} belongs to no official NIFF layer; expected keys such as "
                "'mlp_real.layer_mpl1.weight' or 'mlp.weight'"
            )
        dims = (1,) if rest.endswith("bias") else (2,) if rest == POINTWISE_KEY else (2, 4)
        if value.dim() not in dims:
            raise ValueError(
                f"state_dict[{key!r}] must have {' or '.join(map(str, dims))} dimensions, got "
                f"shape {tuple(value.shape)}"
            )
        members.setdefault(int(index), {})[rest] = value
    if len(members) not in (1, 2):
        raise ValueError(f"state_dict must hold one or two layers, got {len(members)}")
    return [members[index] for index in sorted(members)]


def _rolled(matrix: Tensor) -> Tensor:
    """Undo the roll by half of both axes."""
    shifts = [-(n // 2) for n in matrix.shape]
    return matrix.roll(shifts, dims=tuple(range(matrix.dim())))


def _pointwise(matrix: Tensor) -> nn.Conv2d:
    out_channels, in_channels = matrix.shape
    layer = nn.Conv2d(
        in_channels, out_channels, 1, bias=False, device=matrix.device, dtype=matrix.dtype
    )
    with torch.no_grad():
        layer.weight.copy_(matrix[..., None, None])
    return layer


def _filter(weights: Weights) -> NIFFConv2d | OfficialFullNIFF2d:
    """A depthwise layer with its filters in acting order, or a full layer."""
    count = len(weights) // 4
    names = [
        f"mlp_{part}.layer_mpl{layer}.{kind}"
        for part in ("real", "imag")
        for layer in range(1, count + 1)
        for kind in ("weight", "bias")
    ]
    missing = [name for name in names if name not in weights]
    if missing or count < FULL_LAYERS or len(weights) != len(names):
        raise ValueError(
            "state_dict must hold layers 1, 2, ... of both mlp_real and mlp_imag, got "
            f"{sorted(weights)}"
        )
    hidden = tuple(len(weights[f"mlp_real.layer_mpl{i}.bias"]) for i in range(1, count))
    like = weights[f"mlp_real.layer_mpl{count}.weight"]
    filters, full = len(like), count == FULL_LAYERS
    layer = NIFFConv2d(
        1 if full else filters,
        filters,
        1 if full else filters,
        hidden=hidden,
        half_sample_grid=True,
        device=like.device,
        dtype=like.dtype,
    )
    for part, network in (("real", layer.real), ("imag", layer.imag)):
        _load(network, weights, part, roll=not full)
    return OfficialFullNIFF2d(layer) if full else layer


def _load(network: MLP, weights: Weights, part: str, roll: bool) -> None:
    layers = [*linears(network.linears), network.output]
    with torch.no_grad():
        for index, linear in enumerate(layers, start=1):
            weight = weights[f"mlp_{part}.layer_mpl{index}.weight"].flatten(1)
            bias = weights[f"mlp_{part}.layer_mpl{index}.bias"]
            if index == 1:
                weight = weight.flip(1)  # their coordinates are (x, y), ours (y, x)
            if index == len(layers) and roll:
                weight, bias = (value.roll(-(len(bias) // 2), dims=0) for value in (weight, bias))
            if weight.shape != linear.weight.shape or bias.shape != linear.bias.shape:
                raise ValueError(
                    f"state_dict's mlp_{part} layer {index} has shapes {tuple(weight.shape)} and "
                    f"{tuple(bias.shape)}, expected {tuple(linear.weight.shape)} and "
                    f"{tuple(linear.bias.shape)}"
                )
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
