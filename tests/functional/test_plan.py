"""Which way each product of a convolution takes, and how to force one."""

from __future__ import annotations

import pytest
import torch

from sizeless.functional import Plan, convolve, plan, use_method
from sizeless.functional.geometry import Geometry
from sizeless.functional.plans import plan_for


def geometry(batch: int, channels: int, groups: int, size: int, side: int, ndim: int) -> Geometry:
    arm = (side - 1) // 2
    return Geometry(
        batch,
        channels,
        channels,
        groups,
        (size,) * ndim,
        (side,) * ndim,
        (1,) * ndim,
        (1,) * ndim,
        ((arm, side - 1 - arm),) * ndim,
    )


@pytest.mark.parametrize(
    ("shape", "output", "input_gradient", "weight_gradient"),
    [
        ((8, 64, 64, 56, 7, 2), "direct", "direct", "fft"),
        ((8, 64, 64, 56, 31, 2), "fft", "fft", "fft"),
        ((8, 64, 64, 56, 3, 2), "direct", "direct", "direct"),
        ((8, 64, 1, 28, 3, 2), "direct", "direct", "direct"),
        ((8, 64, 1, 28, 15, 2), "fft", "fft", "fft"),
        ((4, 64, 64, 4096, 511, 1), "fft", "fft", "fft"),
        ((1, 32, 1, 65536, 127, 1), "fft", "fft", "fft"),
        ((2, 16, 16, 32, 3, 3), "direct", "direct", "channels_last"),
        ((2, 16, 16, 32, 15, 3), "fft", "fft", "fft"),
    ],
)
def test_the_model_knows_the_measured_regimes(
    shape: tuple[int, int, int, int, int, int],
    output: str,
    input_gradient: str,
    weight_gradient: str,
) -> None:
    chosen = plan_for(geometry(*shape), "cpu")
    assert [step.method for step in chosen] == [output, input_gradient, weight_gradient]


def test_long_axes_are_cut_into_blocks_for_short_kernels() -> None:
    step = plan_for(geometry(1, 32, 1, 65536, 127, 1), "cpu").output
    assert 127 < step.lengths[0] < 4096
    step = plan_for(geometry(1, 32, 1, 65536, 65535, 1), "cpu").output
    assert step.lengths[0] >= 65536


def test_devices_without_complex_numbers_stay_direct() -> None:
    assert {step.method for step in plan_for(geometry(8, 64, 1, 28, 15, 2), "mps")} == {"direct"}


@pytest.mark.parametrize("method", ["auto", "direct", "fft"])
def test_plans_of_a_gpu_are_shown_without_one(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1 / 0)
    chosen = plan((8, 64, 1024), (64, 1, 31), groups=64, method=method, device_type="cuda")
    assert method in ("auto", chosen.output.method)


def test_a_plan_reads_as_one_line() -> None:
    shown = str(plan((8, 64, 56, 56), (64, 1, 31, 31), padding="same", groups=64))
    assert shown.startswith("output: fft ")
    assert "weight_gradient: fft" in shown


def test_plan_takes_tensors_or_shapes_and_the_arguments_of_convolve() -> None:
    input, weight = torch.zeros(2, 4, 300), torch.zeros(6, 2, 255)
    by_shape = plan(tuple(input.shape), tuple(weight.shape), padding="same", groups=2)
    assert isinstance(by_shape, Plan)
    assert plan(input, weight, padding="same", groups=2) == by_shape


def test_a_forced_method_holds_in_the_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = (8, 64, 56, 56), (64, 1, 31, 31)
    with use_method("direct"):
        assert plan(*shapes, padding="same", groups=64).output.method == "direct"
        with use_method("auto"):
            assert plan(*shapes, padding="same", groups=64).output.method == "fft"
    assert plan(*shapes, padding="same", groups=64).output.method == "fft"
    monkeypatch.setenv("SIZELESS_METHOD", "channels_last")
    assert plan(*shapes, padding="same", groups=64).output.method == "channels_last"


def test_a_forced_method_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("the transform ran")

    input, weight = torch.randn(8, 32, 500), torch.randn(32, 32, 401)
    monkeypatch.setattr("sizeless.functional.spectral.output", refuse)
    with pytest.raises(AssertionError, match="the transform ran"):
        convolve(input, weight, padding="same")
    with use_method("direct"):
        convolve(input, weight, padding="same")


def test_a_wrong_method_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"method must be 'auto', .* got 'winograd'"):
        use_method("winograd").__enter__()
    monkeypatch.setenv("SIZELESS_METHOD", "slow")
    with pytest.raises(ValueError, match=r"SIZELESS_METHOD must be 'auto', .* got 'slow'"):
        convolve(torch.zeros(1, 1, 8), torch.zeros(1, 1, 3))
