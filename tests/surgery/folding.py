"""What the tests of ``fold`` share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import sizeless


def error_of(output: Any, expected: Any) -> float:
    """Relative error of a tensor."""
    output, expected = output.detach().double(), expected.detach().double()
    difference, norm = (output - expected).norm(), expected.norm()
    return float(difference / norm) if norm else float(difference)


def assert_folds(
    model: nn.Module, input: Tensor, tolerance: float, **options: Any
) -> tuple[nn.Module, sizeless.surgery.Report]:
    """Fold a model and compare it, with one sample and with five; return what ``fold`` does."""
    model.eval()
    plain, report = sizeless.fold(model, input, **options)
    assert not ours_in(plain)
    for batch in (1, 5):
        other = torch.randn(batch, *input.shape[1:], dtype=input.dtype)
        output, expected = plain(other), model(other)
        assert output.dtype == expected.dtype
        assert output.shape == expected.shape
        assert error_of(output, expected) < tolerance
    assert report.error < tolerance
    return plain, report


def ours_in(model: nn.Module) -> list[str]:
    """Paths of modules that this library defines."""
    return [
        path
        for path, module in model.named_modules()
        if type(module).__module__.startswith("sizeless")
    ]
