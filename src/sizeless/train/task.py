"""The classification task: loss, optimiser, schedule and metrics around any network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import MulticlassAccuracy

from sizeless._validate import positive_int
from sizeless.penalties import aliasing_penalty, complexity_penalty
from sizeless.sizes import param_groups


class Classifier(pl.LightningModule):
    """Train a network to classify, its sizes with a learning rate of their own.

    The loss is cross-entropy, plus ``aliasing_weight * aliasing_penalty(network)`` and
    ``complexity_weight * complexity_penalty(network, sample)`` where those weights are not 0. The
    optimiser is AdamW on ``sizeless.param_groups``; sizes have no weight decay. The learning
    rates rise linearly over the first ``warmup`` part of all steps, then follow a cosine to 0.

    Args:
        network: Maps inputs ``(N, C, *spatial)`` to logits ``(N, num_classes)``.
        num_classes: Number of classes.
        lr: Learning rate of the weights.
        size_lr: Learning rate of the sizes; ``None`` takes that of ``sizeless.param_groups``,
            0 keeps them as they start.
        weight_decay: Decoupled weight decay of the weights.
        warmup: Part of all steps in which the learning rates rise.
        label_smoothing: Part of every target spread over all classes, in training only.
        aliasing_weight: Weight of the aliasing penalty; 0 leaves it out.
        complexity_weight: Weight of the complexity penalty; 0 leaves it out.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> task = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(40, 10)), num_classes=10)
        >>> task(torch.zeros(2, 1, 40)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        lr: float = 1e-2,
        size_lr: float | None = None,
        weight_decay: float = 0.0,
        warmup: float = 0.05,
        label_smoothing: float = 0.0,
        aliasing_weight: float = 0.0,
        complexity_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.lr = _positive("lr", lr)
        self.size_lr = None if size_lr is None else _not_negative("size_lr", size_lr)
        self.weight_decay = _not_negative("weight_decay", weight_decay)
        self.warmup = _part("warmup", warmup)
        self.aliasing_weight = _not_negative("aliasing_weight", aliasing_weight)
        self.complexity_weight = _not_negative("complexity_weight", complexity_weight)
        self.training_loss = nn.CrossEntropyLoss(
            label_smoothing=_part("label_smoothing", label_smoothing)
        )
        self.loss = nn.CrossEntropyLoss()
        positive_int("num_classes", num_classes)
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of ``inputs``."""
        return self.network(inputs)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch, penalties included."""
        inputs, targets = batch
        loss = self.training_loss(self(inputs), targets)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(targets))
        if self.aliasing_weight:
            loss = loss + self.aliasing_weight * aliasing_penalty(self.network)
        if self.complexity_weight:
            loss = loss + self.complexity_weight * complexity_penalty(self.network, inputs[:1])
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add one batch to the validation metrics."""
        self._evaluate("val", self.val_accuracy, batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add one batch to the test metrics."""
        self._evaluate("test", self.test_accuracy, batch)

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and cosine, stepped after every batch."""
        groups = param_groups(
            self.network, self.lr, size_lr=self.size_lr, weight_decay=self.weight_decay
        )
        optimizer = torch.optim.AdamW(groups, lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        # The factor is no part of the state: a run resumed with more epochs follows their cosine.
        schedule = LambdaLR(optimizer, warmup_cosine(steps, self.warmup))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _evaluate(
        self, stage: str, accuracy: MulticlassAccuracy, batch: tuple[Tensor, Tensor]
    ) -> None:
        inputs, targets = batch
        logits = self(inputs)
        accuracy(logits, targets)
        self.log(f"{stage}/loss", self.loss(logits, targets), batch_size=len(targets))
        self.log(f"{stage}/accuracy", accuracy, prog_bar=True, batch_size=len(targets))


def warmup_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """Return the learning rate's factor as a function of the step: a linear rise, then a cosine.

    Args:
        steps: Steps of the whole training.
        warmup: Part of them in which the factor rises to 1.

    Examples:
        >>> factor = warmup_cosine(steps=10, warmup=0.2)
        >>> [round(factor(step), 2) for step in (0, 1, 2, 6, 10)]
        [0.33, 0.67, 1.0, 0.5, 0.0]
    """
    rising = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        progress = (step - rising) / max(1, steps - rising)
        return (1 + math.cos(math.pi * min(1.0, progress))) / 2

    return factor


def _positive(name: str, value: float) -> float:
    if not value > 0.0:
        raise ValueError(f"{name} must be above 0, got {value}")
    return value


def _not_negative(name: str, value: float) -> float:
    if not value >= 0.0:
        raise ValueError(f"{name} must be at least 0, got {value}; 0 switches it off")
    return value


def _part(name: str, value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
    return value
