"""Official FlexNet and FlexTCN: golden arrays, and their program written out tap by tap."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizeless import FlexConv1d, FlexConv2d
from sizeless.compat import load_official_flexconv
from sizeless.kernels import Gabor
from sizeless.models import FlexNet, FlexTCN, flexnet3, flextcn2
from sizeless.nn import FlexConvNd

State = dict[str, Tensor]
TO_OFFICIAL = {"stem": "cconv1", "blocks": "blocks", "conv1": "cconv1", "conv2": "cconv2"}


def part(arrays: dict[str, Tensor], prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def official_names(model: FlexNet | FlexTCN) -> dict[str, FlexConvNd]:
    """Layers under the names that the authors gave them."""
    top = {"blocks": "backbone"} if isinstance(model, FlexTCN) else {}
    names = {}
    for name, layer in model.named_modules():
        if isinstance(layer, FlexConvNd):
            parts = [top.get(p, TO_OFFICIAL.get(p, p)) for p in name.split(".")]
            names[".".join(parts)] = layer
    return names


def window_gradient(layer: FlexConvNd) -> Tensor:
    """The gradient of (centre, width) per axis; the width is stored as its logarithm."""
    width = layer.window.log_sigma.grad / layer.window.sigma.detach()
    return torch.stack([layer.window.raw_center.grad, width], dim=1)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare relative to the largest expected value."""
    assert actual.shape == expected.shape
    error = (actual.detach() - expected).abs().max().item()
    assert error <= tolerance * expected.abs().max().item()


GOLDEN = {
    "flexnet3_official": lambda: flexnet3(kernel_size=33),
    "flextcn2_official": lambda: flextcn2(kernel_size=161),
}


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-5), (torch.float32, 1e-4)],
    ids=["float64", "float32"],
)
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_network(
    golden: Callable[..., dict[str, Tensor]], name: str, dtype: torch.dtype, tolerance: float
) -> None:
    case = golden(name)
    model = load_official_flexconv(GOLDEN[name]().to(dtype), part(case, "state_dict/")).eval()
    layers = official_names(model)
    shapes = part(case, "kernel_shape/")
    assert layers.keys() == shapes.keys()
    for key, layer in layers.items():
        assert list(layer.weight.shape) == shapes[key].tolist()
    input = case["input"].to(dtype).requires_grad_()
    logits = model(input)
    (logits * case["loss_weight"]).sum().backward()
    assert_near(logits, case["logits"], tolerance)
    assert_near(input.grad, case["grad_input"], tolerance)
    for key, layer in layers.items():
        assert_near(window_gradient(layer), case[f"grad/{key}.mask_params"], 10 * tolerance)


# ---- the authors' program, from its formulas -----------------------------------------------------

HIDDEN, LAYERS, THRESHOLD = 32, 3, 0.1


def random_layer(
    prefix: str, in_channels: int, out_channels: int, mask: list[list[float]]
) -> State:
    ndim = len(mask)
    ones = (1,) * ndim
    shapes = {"bias": (out_channels,)}
    for index in range(LAYERS):
        shapes[f"Kernel.linear.{index}.weight"] = (HIDDEN, HIDDEN, *ones)
        shapes[f"Kernel.linear.{index}.bias"] = (HIDDEN,)
    shapes["Kernel.output_linear.weight"] = (out_channels * in_channels, HIDDEN, *ones)
    shapes["Kernel.output_linear.bias"] = (out_channels * in_channels,)
    for index in range(LAYERS + 1):
        shapes[f"Kernel.filters.{index}.mu"] = (HIDDEN, ndim)
        shapes[f"Kernel.filters.{index}.gamma"] = (HIDDEN, ndim)
        shapes[f"Kernel.filters.{index}.linear.weight"] = (HIDDEN, ndim, *ones)
        shapes[f"Kernel.filters.{index}.linear.bias"] = (HIDDEN,)
    state = {f"{prefix}.{key}": 0.5 * torch.randn(shape) for key, shape in shapes.items()}
    state[f"{prefix}.mask_params"] = torch.tensor(mask)
    state[f"{prefix}.train_length"] = torch.zeros(1, dtype=torch.int32)
    state[f"{prefix}.temperature"] = torch.tensor([15.0])
    state[f"{prefix}.mask_threshold"] = torch.tensor([THRESHOLD])
    return state


def random_norm(prefix: str, channels: int) -> State:
    return {
        f"{prefix}.weight": torch.rand(channels) + 0.5,
        f"{prefix}.bias": torch.randn(channels),
        f"{prefix}.running_mean": torch.randn(channels),
        f"{prefix}.running_var": torch.rand(channels) + 0.5,
        f"{prefix}.num_batches_tracked": torch.tensor(3),
    }


def random_linear(prefix: str, n: int, m: int, ndim: int) -> State:
    weight = torch.randn(m, n, *(1,) * ndim)
    return {f"{prefix}.weight": weight, f"{prefix}.bias": torch.randn(m)}


def kept_taps(mask: list[list[float]], axes: list[list[float]]) -> list[list[int]]:
    """Indices that the crop keeps: symmetric in images, cut in the past in sequences."""
    reach = math.sqrt(-2 * math.log(THRESHOLD))
    if len(axes) == 1:
        mu, sigma = mask[0]
        root = min(mu - reach * sigma, mu + reach * sigma)
        everything = list(range(len(axes[0])))
        return [[i for i in everything if axes[0][i] > root] if abs(root) < 1 else everything]
    kept = []
    for (mu, sigma), axis in zip(mask, axes, strict=True):
        root = max(abs(mu - reach * sigma), abs(mu + reach * sigma))
        n, start = len(axis), 0
        if root < 1:
            start = next(i for i in range((n + 1) // 2) if -root < axis[i])
        kept.append(list(range(start, n - start)))
    return kept


def official_kernel(state: State, prefix: str, horizon: int) -> Tensor:
    """The kernel network times the mask, at each kept tap."""

    def get(key: str) -> Tensor:
        return state[f"{prefix}.{key}"].double()

    mask = get("mask_params").tolist()
    axis = [-1 + 2 * i / (horizon - 1) for i in range(horizon)]
    kept = kept_taps(mask, [axis] * len(mask))
    lines = [torch.tensor([axis[i] for i in k], dtype=torch.float64) for k in kept]
    taps = torch.cartesian_prod(*lines).reshape(-1, len(mask))

    def wave(index: int) -> Tensor:
        name = f"Kernel.filters.{index}"
        offset = taps[:, None, :] - get(f"{name}.mu")
        envelope = (-0.5 * (get(f"{name}.gamma") * offset).square().sum(dim=-1)).exp()
        angle = taps @ get(f"{name}.linear.weight").reshape(HIDDEN, -1).T
        return envelope * (angle + get(f"{name}.linear.bias")).sin()

    def linear(name: str, values: Tensor) -> Tensor:
        return values @ get(f"{name}.weight").flatten(1).T + get(f"{name}.bias")

    hidden = wave(0)
    for index in range(LAYERS):
        hidden = linear(f"Kernel.linear.{index}", hidden) * wave(index + 1)
    values = linear("Kernel.output_linear", hidden)
    for d, (mu, sigma) in enumerate(mask):
        values = values * (-0.5 * ((taps[:, d] - mu) / sigma).square()).exp()[:, None]
    out_channels = state[f"{prefix}.bias"].numel()
    return values.T.reshape(out_channels, -1, *map(len, kept))


def official_layer(state: State, prefix: str, horizon: int, x: Tensor) -> Tensor:
    kernel, bias = official_kernel(state, prefix, horizon), state[f"{prefix}.bias"].double()
    if x.dim() == 3:
        return F.conv1d(F.pad(x, (kernel.shape[-1] - 1, 0)), kernel, bias)
    return F.conv2d(x, kernel, bias, padding=[(k - 1) // 2 for k in kernel.shape[2:]])


def official_norm(state: State, prefix: str, x: Tensor) -> Tensor:
    keys = ("running_mean", "running_var", "weight", "bias")
    mean, variance, weight, bias = (state[f"{prefix}.{key}"].double() for key in keys)
    return F.batch_norm(x, mean, variance, weight, bias)


def official_tcn(state: State, horizon: int, x: Tensor) -> Tensor:
    """One residual block, and a linear map of its last time step."""
    block, hidden = "backbone.0", x
    for index in (1, 2):
        hidden = official_layer(state, f"{block}.cconv{index}", horizon, hidden)
        hidden = official_norm(state, f"{block}.norm{index}", hidden).relu()
    key = f"{block}.shortcut.0"
    shortcut = F.conv1d(x, state[f"{key}.weight"].double(), state[f"{key}.bias"].double())
    last = (hidden + shortcut).relu()[..., -1]
    return F.linear(last, state["finallyr.weight"].double(), state["finallyr.bias"].double())


def official_net(state: State, horizon: int, x: Tensor) -> Tensor:
    """The stem, one residual block without a projection, the average, a 1x1 classifier."""
    x = official_norm(state, "norm1", official_layer(state, "cconv1", horizon, x)).relu()
    hidden = official_layer(state, "blocks.0.cconv1", horizon, x)
    hidden = official_norm(state, "blocks.0.norm1", hidden).relu()
    hidden = official_layer(state, "blocks.0.cconv2", horizon, hidden)
    hidden = (official_norm(state, "blocks.0.norm2", hidden) + x).relu()
    pooled = hidden.mean(dim=(2, 3), keepdim=True)
    weight, bias = state["out_layer.weight"].double(), state["out_layer.bias"].double()
    return F.conv2d(pooled, weight, bias)[:, :, 0, 0]


def tcn_state(first: list[float], second: list[float]) -> State:
    state = random_layer("backbone.0.cconv1", 2, 3, [first])
    state |= random_layer("backbone.0.cconv2", 3, 3, [second])
    state |= random_norm("backbone.0.norm1", 3) | random_norm("backbone.0.norm2", 3)
    state |= random_linear("backbone.0.shortcut.0", 2, 3, 1)
    return state | random_linear("finallyr", 3, 4, 0)


def net_state(*masks: list[list[float]]) -> State:
    state = random_layer("cconv1", 2, 3, masks[0]) | random_norm("norm1", 3)
    for index, mask in enumerate(masks[1:], start=1):
        state |= random_layer(f"blocks.0.cconv{index}", 3, 3, mask)
        state |= random_norm(f"blocks.0.norm{index}", 3)
    return state | random_linear("out_layer", 3, 4, 2)


SEQUENCE_MASKS = {
    "even kernel": ([1.0, 0.1], [0.9, 0.2]),
    "one tap": ([1.0, 0.02], [0.99, 0.03]),
    "next to nothing": ([1.0, 1e-3], [0.98, 5e-3]),
    "negative width": ([1.0, -0.2], [0.7, -0.3]),
    "beyond the present": ([1.3, 0.5], [2.5, 0.4]),
    "beyond the past": ([-1.2, 0.05], [-0.9, 0.05]),
    "everything": ([0.5, 1.5], [1.0, 30.0]),
}


@pytest.mark.parametrize("horizon", [24, 25])
@pytest.mark.parametrize("masks", SEQUENCE_MASKS.values(), ids=SEQUENCE_MASKS)
def test_sequence_network(masks: tuple[list[float], list[float]], horizon: int) -> None:
    state = tcn_state(*masks)
    model = FlexTCN(2, 4, kernel_size=horizon, blocks=1, width=3).double().eval()
    load_official_flexconv(model, state)
    check_kernels(model, state, horizon)
    for length in (horizon, 7):
        x = torch.randn(2, 2, length, dtype=torch.float64)
        torch.testing.assert_close(model(x), official_tcn(state, horizon, x))


IMAGE_MASKS = {
    "rectangles": ([[0.0, 0.1], [0.0, 0.3]], [[0.1, 0.2], [-0.2, 0.1]], [[0.0, 0.6], [0.3, 0.05]]),
    "one tap": ([[0.0, 0.02], [0.0, 0.03]], [[0.0, 0.04], [0.0, 0.2]], [[0.01, 1e-3], [0.0, 1e-4]]),
    "negative widths": (
        [[0.0, -0.1], [0.1, 0.2]],
        [[0.1, -0.2], [-0.1, -0.3]],
        [[0, 0.1], [0, -2.0]],
    ),
    "off the grid": (
        [[1.2, 0.3], [0.0, 0.1]],
        [[-1.5, 0.9], [2.0, 0.5]],
        [[0.0, 0.1], [-1.05, 0.2]],
    ),
    "everything": ([[0.5, 0.5], [0.0, 0.5]], [[0.0, 15.0], [0.0, 0.1]], [[0.0, 1.0], [0.0, 99.0]]),
}


@pytest.mark.parametrize("masks", IMAGE_MASKS.values(), ids=IMAGE_MASKS)
def test_image_network(masks: tuple[list[list[float]], ...]) -> None:
    state = net_state(*masks)
    model = FlexNet(2, 4, kernel_size=17, widths=(3,)).double().eval()
    load_official_flexconv(model, state)
    check_kernels(model, state, 17)
    for size in ((16, 16), (5, 9)):
        x = torch.randn(2, 2, *size, dtype=torch.float64)
        torch.testing.assert_close(model(x), official_net(state, 17, x))


def check_kernels(model: FlexNet | FlexTCN, state: State, horizon: int) -> None:
    for name, layer in official_names(model).items():
        expected = official_kernel(state, name, horizon)
        assert layer.size == tuple(expected.shape[2:])
        torch.testing.assert_close(layer.weight, expected)


# ---- loading -------------------------------------------------------------------------------------


def small_tcn() -> FlexTCN:
    return FlexTCN(2, 4, kernel_size=20, blocks=1, width=3).eval()


def test_names_of_a_parallel_run_are_understood() -> None:
    state = tcn_state([1.0, 0.1], [1.0, 0.2])
    x = torch.randn(1, 2, 20)
    plain = load_official_flexconv(small_tcn(), state)(x)
    parallel = {f"module.{key}": value for key, value in state.items()}
    assert torch.equal(load_official_flexconv(small_tcn(), parallel)(x), plain)


def test_the_model_itself_comes_back_and_trains_on() -> None:
    model = small_tcn()
    assert load_official_flexconv(model, tcn_state([1.0, 0.1], [1.3, -0.2])) is model
    model.train()(torch.randn(3, 2, 20)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_other_models_are_refused() -> None:
    state = tcn_state([1.0, 0.1], [1.0, 0.2])
    with pytest.raises(TypeError, match=r"model must be a .*got Linear"):
        load_official_flexconv(nn.Linear(1, 1), state)
    model = FlexTCN(2, 4, kernel_size=20, blocks=1, width=3, kernel=Gabor)
    with pytest.raises(TypeError, match=r"MAGNet kernels.*Gabor"):
        load_official_flexconv(model, state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.0.cconv1.bias": None}, r"missing 'backbone\.0\.cconv1\.bias'"),
        ({"extra.weight": torch.zeros(1)}, "left over 'extra.weight'"),
        ({"finallyr.weight": torch.zeros(5, 3)}, r"shape \(5, 3\), the model wants \(4, 3\)"),
        ({"backbone.0.cconv1.mask_params": torch.ones(2, 2)}, r"has shape \(2, 2\)"),
        ({"backbone.0.cconv1.mask_params": torch.tensor([[1.0, 0.0]])}, "not 0"),
        ({"backbone.0.cconv1.mask_threshold": torch.tensor([0.2])}, "crop threshold of 0.1"),
    ],
)
def test_states_that_do_not_fit_are_refused(change: dict[str, Tensor | None], message: str) -> None:
    state = tcn_state([1.0, 0.1], [1.0, 0.2]) | change
    with pytest.raises(ValueError, match=message):
        load_official_flexconv(small_tcn(), {k: v for k, v in state.items() if v is not None})


def test_layers_take_any_window() -> None:
    for layer in (FlexConv1d(1, 1, 9, causal=True), FlexConv2d(1, 1, 9)):
        layer.window.assign_(torch.full((layer.ndim,), 1.4), torch.full((layer.ndim,), 0.01))
        assert layer.window.center.tolist() == pytest.approx([1.4] * layer.ndim)
        assert layer.weight.isfinite().all()
