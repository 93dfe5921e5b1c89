"""What a network's outputs must be, how wrong they are, and when they count as right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

TOLERANCE = 0.04
"""Largest error of a number that counts as right (the adding problem's usual limit)."""

UNLABELLED = -1
"""Target of a sample that has no label for a task."""


class OutputError(ValueError):
    """A network whose outputs are not those that the data ask for."""


def outputs_of(result: Any, count: int, classes: Sequence[int]) -> list[Tensor]:
    """Return the logits of each task.

    Args:
        result: What a network returned: a tensor ``(N, classes)``, with further axes where every
            position has a target; one for each task; or for several tasks the answers at every
            step, ``(N, classes, L)``, of which the last ones are meant. ``(N,)`` is ``(N, 1)``.
        count: Number of samples.
        classes: Number of classes of each task.

    Raises:
        OutputError: If their number is not that of the classes.
    """
    several = len(classes) > 1
    if isinstance(result, Tensor) and result.dim() == 3 and several:
        result = result[..., -len(classes) :].unbind(-1)
    parts = [result] if isinstance(result, Tensor) else list(result)
    parts = [part.unsqueeze(1) if part.dim() == 1 else part for part in parts]
    shapes = [tuple(part.shape) for part in parts]
    if [shape[:2] for shape in shapes] != [(count, number) for number in classes]:
        raise OutputError(
            f"the data have {' and '.join(map(str, classes))} classes, so the network must return "
            f"logits of shape {_shown([('N', number) for number in classes])}, got "
            f"{_shown(shapes)} for N = {count}; set num_classes in model.network.init_args"
        )
    return parts


def _shown(shapes: Sequence[Sequence[object]]) -> str:
    return " and ".join(f"({', '.join(map(str, shape))})" for shape in shapes)


def losses_of(
    logits: Sequence[Tensor], targets: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the mean loss of each task over its labelled samples, and how many these are.

    Args:
        logits: ``(N, classes)`` for each task.
        targets: ``(N,)``, with the further axes of the logits; ``(N, tasks)``; or shares of
            classes, ``(N, classes)``, for one task.
        smoothing: Label smoothing.
    """
    columns = _columns(logits, targets)
    losses = [_mean(*pair, smoothing) for pair in zip(logits, columns, strict=True)]
    counts = [(len(c) if c.is_floating_point() else (c != UNLABELLED).sum()) for c in columns]
    return torch.stack(losses), torch.stack([torch.as_tensor(c).to(losses[0]) for c in counts])


def right_ones(logits: Sequence[Tensor], targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return for each task which samples are right, and which have a label."""
    found = []
    for part, column in zip(logits, _columns(logits, targets), strict=True):
        known = column != UNLABELLED
        if column.is_floating_point():
            right = (part.squeeze(-1) - column).abs() <= TOLERANCE
        else:
            right = part.argmax(1) == column
        found.append((right & known, known))
    return found


def _columns(logits: Sequence[Tensor], targets: Tensor) -> Sequence[Tensor]:
    """The targets of each task; shares of classes, and one for every position, are of one task."""
    one = targets.is_floating_point() or targets.dim() == logits[0].dim() - 1
    return [targets] if one and len(logits) == 1 else targets.unbind(1)


def _mean(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy, or the squared error of numbers; 0 where no sample has a label."""
    if targets.dim() == 1 and targets.is_floating_point():
        return functional.mse_loss(logits.squeeze(-1), targets)
    if not targets.is_floating_point() and bool((targets == UNLABELLED).all()):
        return logits.sum() * 0.0
    return functional.cross_entropy(
        logits, targets, ignore_index=UNLABELLED, label_smoothing=smoothing
    )
