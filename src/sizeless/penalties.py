"""What to add to a loss so that kernels do not alias and networks stay cheap."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sizeless._calls import Strides, passes
from sizeless._validate import boolean, number, one_of
from sizeless._validate import module as check_module
from sizeless.cost import Cost, cost
from sizeless.nn import DiffStrideNd, FlexConvNd

GIGA = 1e9


def aliasing_penalty(
    model: nn.Module,
    *,
    form: str = "together",
    include_window: bool = False,
    bound: str = "tight",
    stddevs: float = 2.0,
) -> Tensor:
    r"""Penalty on kernels that hold frequencies above the Nyquist frequency of their taps.

    With $f_l$ the highest frequency of factor $l = 0 \dots L$ of a kernel network,
    $f_w$ that of the window, and $f_{Nyq} = (N - 1) / 4$ cycles per unit coordinate
    for a largest kernel of $N$ taps,

    $$
    \text{together:}\quad \sum_l \max\Big(0,\; f_l + \frac{f_w}{L + 1}
    - \frac{f_{Nyq}}{L + 1}\Big)^2
    \qquad \text{summed:}\quad \max\Big(0,\; \sum_l f_l + f_w - f_{Nyq}\Big)^2
    $$

    summed over all FlexConv layers; $f_w$ only with ``include_window``. Frequencies of
    factors add, so either form at 0 means that the kernel is free of aliasing and may be rendered
    at a finer resolution. On several axes the one with the largest excess counts.

    Args:
        model: A module with FlexConv layers.
        form: ``"together"``, the authors', or ``"summed"``, the paper's equation 25.
        include_window: Whether the window's own frequency counts.
        bound: ``"tight"`` for $\max_i (|w_i| + s |\gamma_i|) / 2 \pi$, or ``"official"``,
            the authors' program, which maximises the two terms over separate units and axes.
        stddevs: Where Gaussian spectra are cut off, in standard deviations.

    Returns:
        Tensor of shape ``()``; multiply it by a weight (the paper's is 0.1).

    Raises:
        TypeError: If ``model`` is no module, ``include_window`` no bool or ``stddevs`` no number.
        ValueError: If there is no FlexConv layer, or a kernel network has no analytic frequency.

    Source: Romero et al. 2022, arXiv 2110.08059, section 3.3 and equation 25.

    Examples:
        >>> import sizeless
        >>> penalty = aliasing_penalty(sizeless.FlexConv2d(1, 1, 33))
        >>> penalty.shape, bool(penalty > 0)
        (torch.Size([]), True)
    """
    one_of("form", form, ("together", "summed"))
    one_of("bound", bound, ("tight", "official"))
    boolean("include_window", include_window)
    number("stddevs", stddevs, minimum=0)
    terms = []
    for name, layer in _flexconvs(model):
        try:
            factors = layer.kernel.frequency_bounds(stddevs, formula=bound)
        except ValueError as error:
            where = f"layer {name!r}" if name else "model"
            raise ValueError(f"{where}: {error}") from error
        window = layer.window.max_frequency(stddevs).to(factors.dtype)
        if bound == "official":
            window = window.amax().expand_as(window)
        terms.append(_excess(factors, window * include_window, layer.nyquist(), form))
    return torch.stack(terms).sum()


def _excess(factors: Tensor, window: Tensor, nyquist: tuple[float, ...], form: str) -> Tensor:
    """Squared excess of one layer; ``factors`` is ``(L + 1, ndim)``."""
    limit = factors.new_tensor(nyquist)
    if form == "summed":
        return (factors.sum(dim=0) + window - limit).amax().relu().square()
    share = (limit - window) / len(factors)
    return (factors - share).amax(dim=1).relu().square().sum()


def complexity_penalty(
    model: nn.Module, example_input: Tensor | tuple[Tensor, ...], *, form: str = "cumulative"
) -> Tensor:
    r"""Penalty on the work that learned strides leave to a network.

    $$
    \text{cumulative:}\quad \sum_l \prod_{i \preceq l} \prod_d \frac{1}{S_{i,d}}
    \qquad \text{macs:}\quad \text{multiply-accumulates} / 10^9
    $$

    The cumulative form takes each learned stride $l$ with all strides $i$ that its
    input has passed through, and knows neither channels nor kernels. The second form is the true
    count of ``sizeless.cost``, for all layers at their present sizes; it is differentiable in
    kernel sizes as well as strides. Both are prices: the cost ends wherever their weight leads. For
    a limit there is ``sizeless.CostBudget``.

    Args:
        model: A module with learned strides (form ``"macs"``: with any counted layer).
        example_input: Input tensor, or a tuple of all positional arguments; a batch of one will do.
        form: ``"cumulative"`` or ``"macs"``.

    Returns:
        Tensor of shape ``()``.

    Raises:
        TypeError: If ``model`` is no module, or ``example_input`` neither tensor nor tuple.
        ValueError: If nothing in the model has a learned stride (form ``"cumulative"``).

    Source: Riad et al. 2022, arXiv 2202.01653, section 3.3.

    Examples:
        >>> import sizeless, torch
        >>> model = torch.nn.Sequential(sizeless.DiffStride1d(2.0), sizeless.DiffStride1d(2.0))
        >>> complexity_penalty(model, torch.zeros(1, 1, 64)).item()
        0.75
    """
    one_of("form", form, ("cumulative", "macs"))
    counted = cost(model, example_input)
    return counted.macs / GIGA if form == "macs" else _cumulative(model, counted)


def _cumulative(model: nn.Module, counted: Cost) -> Tensor:
    modules = dict(model.named_modules())
    upstream: dict[tuple[DiffStrideNd, int], Strides] = {}
    for row in counted.rows:
        pool = modules[row.name]
        if isinstance(pool, DiffStrideNd):
            upstream.setdefault((pool, passes(pool, row.strides) + 1), row.strides)
    if not upstream:
        raise ValueError(
            f"model {type(model).__name__} has no DiffStride layer, whose strides this penalty is "
            "about; use form='macs' for the whole cost"
        )
    return torch.stack(
        [
            torch.stack([pool.inverse_area() for pool, _ in (last, *before)]).prod()
            for last, before in upstream.items()
        ]
    ).sum()


def kernel_norm_penalty(model: nn.Module) -> Tensor:
    r"""Norms of the kernels as they are convolved with: what FlexConv decays in place of weights.

    $$
    \sum_l \lVert K_l \rVert_2 + \lVert b_l \rVert_2
    $$

    over all FlexConv layers, with $K_l$ the rendered, windowed and cropped kernel and $b_l$ the
    bias; norms, not their squares.

    Args:
        model: A module with FlexConv layers.

    Returns:
        Tensor of shape ``()``; multiply it by a weight (the authors' are 1e-6 to 1e-4).

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If there is no FlexConv layer.

    Source: Romero et al. 2022, arXiv 2110.08059, the authors' experiments.

    Examples:
        >>> import sizeless
        >>> layer = sizeless.FlexConv1d(2, 3, kernel_size=33)
        >>> expected = layer.weight.norm() + layer.bias.norm()
        >>> bool(torch.isclose(kernel_norm_penalty(layer), expected))
        True
    """
    layers = [layer for _, layer in _flexconvs(model)]
    norms = [layer.weight.norm() for layer in layers]
    norms += [layer.bias.norm() for layer in layers if layer.bias is not None]
    return torch.stack(norms).sum()


def aliasing_margins(model: nn.Module, *, stddevs: float = 2.0) -> dict[str, float]:
    r"""How far the kernels stay below the Nyquist frequency of their taps, in parts of it.

    $$
    1 - \max_d \frac{\sum_l f_{l,d} + f_{w,d}}{f_{Nyq,d}}
    $$

    Below 0 a kernel may alias when it is rendered at another resolution; see
    ``aliasing_penalty``.

    Args:
        model: Any module.
        stddevs: Where Gaussian spectra are cut off, in standard deviations.

    Returns:
        The margin of each FlexConv layer whose kernel network has an analytic frequency, by the
        layer's path.

    Raises:
        TypeError: If ``model`` is no module or ``stddevs`` no number.

    Examples:
        >>> import sizeless
        >>> margins = aliasing_margins(sizeless.FlexConv1d(1, 1, kernel_size=1025))
        >>> list(margins), margins[""] < 1
        ([''], True)
    """
    number("stddevs", stddevs, minimum=0)
    margins = {}
    for name, layer in check_module("model", model).named_modules():
        if not isinstance(layer, FlexConvNd):
            continue
        try:
            factors = layer.kernel.frequency_bounds(stddevs)
        except ValueError:
            continue
        highest = factors.sum(dim=0) + layer.window.max_frequency(stddevs).to(factors.dtype)
        limit = factors.new_tensor(layer.nyquist())
        margins[name] = 1 - (highest / limit).amax().item()
    return margins


def _flexconvs(model: nn.Module) -> list[tuple[str, FlexConvNd]]:
    modules = check_module("model", model).named_modules()
    layers = [(name, module) for name, module in modules if isinstance(module, FlexConvNd)]
    if not layers:
        raise ValueError(
            f"model {type(model).__name__} has no FlexConv layer, whose kernels this penalty is "
            "about"
        )
    return layers
