"""Training moves sizes to a known optimum, and no start makes them NaN."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sizeless

Task = Callable[[], Tensor]


def train(model: nn.Module, loss: Task, steps: int, size_lr: float = 0.1) -> None:
    optimizer = torch.optim.Adam(sizeless.param_groups(model, lr=0.01, size_lr=size_lr))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()
        sizeless.project_sizes_(model)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("start", [3, 5, 64])
def test_causal_kernel_finds_the_lag(start: int, seed: int) -> None:
    """The answer depends on the last 13 of up to 65 samples, equally."""
    torch.manual_seed(seed)
    longest, lag = 65, 12
    age = torch.arange(longest).flip(0)
    teacher = (age <= lag).float() / (lag + 1) ** 0.5
    layer = sizeless.FlexConv1d(
        1, 1, longest, init_size=start, causal=True, bias=False, look_ahead=4
    )

    def loss() -> Tensor:
        x = torch.randn(8, 1, 128)
        y = F.conv1d(F.pad(x, (longest - 1, 0)), teacher[None, None])
        price = 0.01 * layer.window.relaxed_size().sum() / longest
        return F.mse_loss(layer(x), y) + price

    train(layer, loss, steps=500)
    assert 11 <= layer.size[0] <= 18
    x = torch.randn(8, 1, 128)
    y = F.conv1d(F.pad(x, (longest - 1, 0)), teacher[None, None])
    assert F.mse_loss(layer(x), y) < 0.15


@pytest.mark.parametrize("start", [3, 21])
def test_image_kernel_finds_the_scale_of_a_blob(start: int) -> None:
    """The answer is the image under a Gaussian of two pixels' standard deviation."""
    torch.manual_seed(1)
    profile = torch.exp(-0.5 * (torch.arange(-10.0, 11.0) / 2).square())
    teacher = torch.outer(profile, profile)
    teacher = teacher / teacher.norm()
    layer = sizeless.FlexConv2d(
        1, 1, 21, init_size=start, bias=False, look_ahead=2, learn_center=False
    )

    def loss() -> Tensor:
        x = torch.randn(2, 1, 32, 32)
        y = F.conv2d(x, teacher[None, None], padding=10)
        return F.mse_loss(layer(x), y) + 0.01 * layer.window.relaxed_size().sum() / 21

    train(layer, loss, steps=250)
    assert all(7 <= size <= 13 for size in layer.size)
    assert all(1.5 < width < 3.0 for width in layer.describe_size().window or ())


@pytest.mark.parametrize("rule", ["exact", "paper"])
@pytest.mark.parametrize("start", [1.0, 2.0, 12.0])
def test_stride_finds_the_bandwidth(start: float, rule: str) -> None:
    """Signals hold nothing above 9 cycles per map, so the ramp should begin there."""
    torch.manual_seed(0)
    samples, highest = 96, 9
    pool = sizeless.DiffStride1d(start, size_rule=rule)

    def loss() -> Tensor:
        spectrum = torch.randn(16, highest + 1, dtype=torch.complex64)
        x = torch.fft.irfft(F.pad(spectrum, (0, samples // 2 - highest)), n=samples)[:, None]
        x = x / x.std()
        error = F.mse_loss(sizeless.functional.resample(pool(x), samples), x)
        return error + 0.1 * pool.inverse_area()

    train(pool, loss, steps=300)
    cutoff = 0.75 if rule == "exact" else 1.0
    assert pool.stride[0] == pytest.approx(cutoff * samples / (2 * highest), rel=0.05)


def hostile_layer(generator: torch.Generator, index: int) -> tuple[nn.Module, Tensor]:
    """A small layer with size parameters drawn from far beyond any sensible range."""
    ndim = 1 + index % 3
    extent = int(torch.randint(1, 9, (), generator=generator))
    x = torch.randn(1, 2, *[extent] * ndim, generator=generator)
    x = x * 10 ** float(torch.randn((), generator=generator))
    if index % 2:
        causal = {"causal": True} if ndim == 1 and index % 4 == 1 else {}
        layer = getattr(sizeless, f"FlexConv{ndim}d")(
            2, 2, 5, groups=2, look_ahead=index % 5, **causal
        )
    else:
        layer = getattr(sizeless, f"DiffStride{ndim}d")(
            2.0, size_rule="exact" if index % 4 else "paper", shared=index % 8 == 0
        )
    for module in layer.modules():
        if isinstance(module, sizeless.nn.SizeParameters):
            for parameter in module.size_parameters():
                draw = torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(draw * 10 ** torch.randint(0, 4, (), generator=generator))
    return layer, x


@pytest.mark.parametrize("share", range(4))
def test_no_hostile_start_makes_a_nan(share: int) -> None:
    generator = torch.Generator().manual_seed(share)
    for index in range(share * 250, (share + 1) * 250):
        torch.manual_seed(index)
        layer, x = hostile_layer(generator, index)
        optimizer = torch.optim.SGD(sizeless.param_groups(layer, lr=0.1, size_lr=10.0))
        for _ in range(2):
            y = layer(x)
            (y / (1 + y.detach().abs().max())).square().sum().backward()
            for name, parameter in layer.named_parameters():
                assert parameter.grad is not None
                assert parameter.grad.isfinite().all(), (index, name)
            optimizer.step()
            optimizer.zero_grad()
            assert y.isfinite().all(), index
            row = sizeless.sizes(layer)[0]
            assert all(
                low <= size <= high for size, (low, high) in zip(row.size, row.limits, strict=True)
            )
