"""The classification task: loss, optimiser, schedule and metrics around any network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, distributed, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from sizeless._validate import boolean, one_of, positive_int
from sizeless.penalties import aliasing_penalty, complexity_penalty, kernel_norm_penalty
from sizeless.sizes import param_groups
from sizeless.train.budget import BudgetOptions, RunBudget
from sizeless.train.data.loading import BatchOrder
from sizeless.train.objective import losses_of, outputs_of, right_ones
from sizeless.train.schedules import SCHEDULES, Plateau, schedule_factor
from sizeless.train.sharding import Sharded, average_gradients, clip_gradients, share_buffers

OPTIMIZERS = ("adamw", "adam", "sgd")

Batch = tuple[Tensor, Tensor]
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Mixes the samples of a training batch; targets become shares of classes ``(N, classes)``."""


class Classifier(pl.LightningModule):
    """Train a network to classify, its sizes with a learning rate of their own.

    The loss is cross-entropy, plus weighted penalties: ``aliasing_penalty``,
    ``complexity_penalty`` and ``kernel_norm_penalty`` of the network, and the term of a
    ``CostBudget``. The optimiser works on ``sizeless.param_groups``; sizes have no weight decay.
    The learning rates rise linearly over the first ``warmup`` part of all steps, then follow the
    schedule.

    With several tasks the network returns logits for each, targets have a column for each with -1
    for no label, and the loss is the sum over tasks of the mean over labelled samples. Targets that
    are no integers are regressed: the loss is the mean squared error, and accuracy the share of
    samples within ``TOLERANCE``.

    Args:
        network: Maps inputs ``(N, C, *spatial)`` to logits ``(N, num_classes)``.
        num_classes: Number of classes; a sequence for several tasks.
        lr: Learning rate of the weights.
        size_lr: Learning rate of the sizes; ``None`` takes that of ``sizeless.param_groups``,
            0 keeps them as they start.
        weight_decay: Weight decay of the weights, decoupled from the gradient with ``"adamw"``.
        optimizer: ``"adamw"``, ``"adam"`` or ``"sgd"`` with momentum 0.9.
        schedule: ``"cosine"`` to 0, ``"steps"`` (a tenth at each milestone), ``"plateau"`` (a
            fifth after 20 epochs without a better validation accuracy) or ``"constant"``.
        milestones: Parts of all steps, for ``"steps"``.
        warmup: Part of all steps in which the learning rates rise.
        label_smoothing: Part of every target spread over all classes, in training only.
        aliasing_weight: Weight of the aliasing penalty; 0 leaves it out.
        aliasing_window: Whether the frequency of the window counts in it.
        complexity_weight: Weight of the complexity penalty; 0 leaves it out.
        kernel_norm_weight: Weight of the penalty on the norms of kernels; 0 leaves it out.
        budget: What the network may cost; ``None`` sets no limit.
        mix: Mixes the samples of training batches, such as
            ``sizeless.train.data.BatchMix``; one task only.
        compiled: Whether to compile the network with ``torch.compile``.

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
        num_classes: int | Sequence[int],
        lr: float = 1e-2,
        size_lr: float | None = None,
        weight_decay: float = 0.0,
        optimizer: str = "adamw",
        schedule: str = "cosine",
        milestones: Sequence[float] = (),
        warmup: float = 0.05,
        label_smoothing: float = 0.0,
        aliasing_weight: float = 0.0,
        aliasing_window: bool = False,
        complexity_weight: float = 0.0,
        kernel_norm_weight: float = 0.0,
        budget: BudgetOptions | None = None,
        mix: Mix | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        classes = [num_classes] if isinstance(num_classes, int) else list(num_classes)
        for count in classes:
            positive_int("num_classes", count)
        self.classes = classes
        self.lr = _positive("lr", lr)
        self.size_lr = None if size_lr is None else _not_negative("size_lr", size_lr)
        self.weight_decay = _not_negative("weight_decay", weight_decay)
        self.optimizer_name = one_of("optimizer", optimizer, OPTIMIZERS)
        self.schedule = one_of("schedule", schedule, SCHEDULES)
        self.milestones = tuple(_part("milestones", milestone) for milestone in milestones)
        if bool(self.milestones) != (schedule == "steps"):
            raise ValueError(
                f"milestones go with schedule='steps' and with no other, got {milestones!r} and "
                f"{schedule!r}"
            )
        self.plateau = Plateau() if schedule == "plateau" else None
        self.warmup = _part("warmup", warmup)
        self.label_smoothing = _part("label_smoothing", label_smoothing)
        self.aliasing_weight = _not_negative("aliasing_weight", aliasing_weight)
        self.aliasing_window = boolean("aliasing_window", aliasing_window)
        self.complexity_weight = _not_negative("complexity_weight", complexity_weight)
        self.kernel_norm_weight = _not_negative("kernel_norm_weight", kernel_norm_weight)
        self.budget = None if budget is None else RunBudget(budget)
        self.over_budget = 0.0
        self.cost_shares: dict[str, float] = {}
        if mix is not None and len(classes) > 1:
            raise ValueError(f"mix serves one task, got {len(classes)}; leave it out")
        self.mix = mix
        self.compiled = compiled
        if compiled:
            self.network.compile()
        self.accuracies = nn.ModuleDict(
            {stage: nn.ModuleList(MeanMetric() for _ in classes) for stage in ("val", "test")}
        )
        self.losses = nn.ModuleDict({stage: MeanMetric() for stage in ("val", "test")})

    @property
    def in_shards(self) -> bool:
        """Whether the strategy cuts the network over the processes."""
        return self._trainer is not None and isinstance(self._trainer.strategy, Sharded)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let all processes have the statistics of the first, which is saved."""
        if self.in_shards:
            share_buffers(self.network)

    def on_validation_start(self) -> None:
        """Validate what is saved."""
        if self.in_shards:
            share_buffers(self.network)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move the budget's multiplier; average gradients of what a sharded network keeps whole."""
        if self.budget is not None:
            self.budget.step()
        if self.in_shards:
            average_gradients(self.network.parameters())

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says."""
        if gradient_clip_val and self.in_shards:
            algorithm = gradient_clip_algorithm or "norm"
            clip_gradients(self.network.parameters(), gradient_clip_val, str(algorithm))
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def forward(self, inputs: Tensor) -> Any:
        """Return what the network makes of ``inputs``: logits, or some for each task."""
        return self.network(inputs)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch, penalties included."""
        inputs, targets = batch
        if self.mix is not None:
            inputs, targets = self.mix(inputs, targets)
        logits = outputs_of(self(inputs), len(inputs), self.classes)
        losses, counts = losses_of(logits, targets, self.label_smoothing)
        self.log("train/loss", losses.detach().sum(), prog_bar=True, batch_size=len(targets))
        mine, whole = self._weights(batch_idx)
        loss = (losses * _shares(counts)).sum() * mine
        if self.aliasing_weight:
            penalty = aliasing_penalty(self.network, include_window=self.aliasing_window)
            loss = loss + self.aliasing_weight * whole * penalty
        if self.complexity_weight:
            penalty = complexity_penalty(self.network, inputs[:1])
            loss = loss + self.complexity_weight * whole * penalty
        if self.kernel_norm_weight:
            loss = loss + self.kernel_norm_weight * whole * kernel_norm_penalty(self.network)
        if self.budget is not None:
            budget = self.budget.of(self.network, inputs)
            loss = loss + whole * budget(self.network)
            self.log("train/cost_share", budget.spent / budget.whole, batch_size=len(targets))
            self.log("train/multiplier", budget.multiplier, batch_size=len(targets))
        return loss

    def _weights(self, batch_idx: int) -> tuple[float, float]:
        """Weights of a batch's loss and of penalties, where several batches make one step.

        The trainer divides by their usual number, whatever their sizes and however many are left
        at the end of an epoch.
        """
        usual = self._trainer.accumulate_grad_batches if self._trainer else 1
        if usual == 1:
            return 1.0, 1.0
        first = batch_idx - batch_idx % usual
        last = int(min(first + usual, self.trainer.num_training_batches))
        order = getattr(self.trainer.train_dataloader, "batch_sampler", None)
        if not isinstance(order, BatchOrder):
            return usual / (last - first), usual / (last - first)
        together = sum(order.size_of(number) for number in range(first, last))
        return usual * order.size_of(batch_idx) / together, usual / (last - first)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the validation metrics."""
        if batch_idx == 0:
            self._look_at_cost("val", batch[0])
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the test metrics."""
        # Without the cost at the start, as at another resolution, there is nothing to compare with.
        if batch_idx == 0 and self.budget is not None and self.budget.is_known:
            self._look_at_cost("test", batch[0])
        self._evaluate("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._report("test")

    def on_train_epoch_end(self) -> None:
        """Let the plateau know how validation went."""
        metric = self.trainer.callback_metrics.get("val/accuracy")
        if self.plateau is not None and metric is not None:
            self.plateau.update(float(metric))

    def on_train_start(self) -> None:
        """Take rates and decay of this configuration: those of a checkpoint may be others."""
        for config in self.trainer.lr_scheduler_configs:
            schedule: Any = config.scheduler
            factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
            groups = schedule.optimizer.param_groups
            for group, asked, factor in zip(groups, self._groups(), factors, strict=True):
                group["initial_lr"] = asked.get("lr", self.lr)
                group["weight_decay"] = asked["weight_decay"]
                group["lr"] = group["initial_lr"] * factor
            schedule.base_lrs = [group["initial_lr"] for group in groups]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the plateau and the budget."""
        if self.budget is not None:
            checkpoint["budget"] = self.budget.state_dict()
        if self.plateau is not None:
            checkpoint["plateau"] = self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the plateau and the budget."""
        if self.budget is not None:
            self.budget.load_state_dict(checkpoint.get("budget", {}))
        if self.plateau is not None and "plateau" in checkpoint:
            self.plateau.load_state_dict(checkpoint["plateau"])

    def configure_optimizers(self) -> Any:
        """Return the optimiser with warm-up and schedule, stepped after every batch."""
        groups = self._groups()
        steps = int(self.trainer.estimated_stepping_batches)
        # The factor is no part of the state: a run resumed with more epochs follows their cosine.
        factor = schedule_factor(self.schedule, steps, self.warmup, self.milestones, self.plateau)
        # One operation cannot take parameters that are whole and those that are cut.
        together = False if self.in_shards else None
        optimizer = _optimizer(self.optimizer_name, groups, self.lr, together)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
        }

    def _groups(self) -> list[dict[str, Any]]:
        return param_groups(
            self.network, self.lr, size_lr=self.size_lr, weight_decay=self.weight_decay
        )

    def _look_at_cost(self, stage: str, inputs: Tensor) -> None:
        """Note what the network costs, as a share of the start, and what is beyond the limit."""
        if self.budget is not None:
            budget = self.budget.of(self.network, inputs)
            self.cost_shares[stage] = budget.share_of(self.network)
            self.over_budget = max(0.0, budget.excess_of(self.network))

    def _evaluate(self, stage: str, batch: Batch) -> None:
        inputs, targets = batch
        logits = outputs_of(self(inputs), len(inputs), self.classes)
        # A process that has no more samples is given one of another's, without its target.
        if len(targets) == 0:
            return
        self._loss_of(stage).update(losses_of(logits, targets)[0].sum(), len(targets))
        for accuracy, pair in zip(self._of(stage), right_ones(logits, targets), strict=True):
            right, known = (part.sum() for part in pair)
            # A weight of 0 keeps a batch without labels out of the mean, in all processes alike.
            accuracy.update(right / known.clamp(min=1), known)

    def _of(self, stage: str) -> Any:
        return self.accuracies[stage]

    def _loss_of(self, stage: str) -> Any:
        return self.losses[stage]

    def _report(self, stage: str) -> None:
        """Log the mean accuracy over tasks, and each task's own if there are several."""
        values = [accuracy.compute() for accuracy in self._of(stage)]
        metrics = {f"{stage}/loss": self._loss_of(stage).compute()}
        if stage in self.cost_shares:
            metrics[f"{stage}/cost_share"] = torch.tensor(self.cost_shares[stage])
        if len(values) > 1:
            metrics |= {f"{stage}/accuracy_{k}": value for k, value in enumerate(values)}
        # The metrics have been gathered from all processes, which Lightning does not know.
        self.log_dict(metrics, sync_dist=True)
        accuracy = torch.stack(values).nanmean()
        self.log(f"{stage}/accuracy", accuracy, prog_bar=True, sync_dist=True)
        for metric in (self.losses[stage], *self._of(stage)):
            metric.reset()


def _shares(counts: Tensor) -> float | Tensor:
    """What makes the mean over processes a mean over samples, where shares differ."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1.0
    totals = counts.clone()
    distributed.all_reduce(totals)
    return counts * distributed.get_world_size() / totals.clamp(min=1)


def _optimizer(
    name: str, groups: list[dict[str, Any]], lr: float, together: bool | None
) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, foreach=together)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=lr, foreach=together)


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
