from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sizeless.nn import DiffStride2d, FlexConv2d
from sizeless.penalties import aliasing_penalty, complexity_penalty
from sizeless.train.task import Classifier, warmup_cosine


@pytest.fixture
def network():
    return nn.Sequential(
        FlexConv2d(1, 2, 5), DiffStride2d(2.0, size_rule="exact"), nn.Flatten(), nn.LazyLinear(3)
    )


@pytest.fixture
def batch():
    return torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])


@pytest.fixture(autouse=True)
def logged(monkeypatch):
    """What tasks log, without a trainer."""
    values = {}

    def log(self, name, value, **options):
        values[name] = value

    monkeypatch.setattr(Classifier, "log", log)
    return values


def step(task, batch):
    return task.training_step(batch, 0)


def test_the_loss_is_the_sum_of_its_terms(network, batch):
    network(batch[0])
    loss = step(Classifier(network, 3), batch)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(network(batch[0]), batch[1]))
    both = step(Classifier(network, 3, aliasing_weight=0.5, complexity_weight=2.0), batch)
    expected = 0.5 * aliasing_penalty(network) + 2.0 * complexity_penalty(network, batch[0][:1])
    torch.testing.assert_close(both, loss + expected)
    assert expected > 0


def test_the_complexity_penalty_reaches_the_stride(network, batch):
    network(batch[0])
    plain, penalised = (
        torch.autograd.grad(
            step(Classifier(network, 3, complexity_weight=weight), batch),
            list(network[1].parameters()),
        )[0]
        for weight in (0.0, 1.0)
    )
    assert (penalised < plain).all()


def test_labels_are_smoothed_in_training_only(network, batch, logged):
    network(batch[0])
    task = Classifier(network, 3, label_smoothing=0.2)
    smoothed = nn.functional.cross_entropy(network(batch[0]), batch[1], label_smoothing=0.2)
    torch.testing.assert_close(step(task, batch), smoothed)
    task.test_step(batch, 0)
    torch.testing.assert_close(
        logged["test/loss"], nn.functional.cross_entropy(network(batch[0]), batch[1])
    )


def test_the_schedule_rises_and_falls_to_zero():
    factor = warmup_cosine(steps=100, warmup=0.1)
    factors = [factor(step) for step in range(101)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert (factors[0], factors[10], factors[100]) == (1 / 11, 1.0, 0.0)
    assert warmup_cosine(steps=100, warmup=0.0)(0) == 1.0
    assert math.isfinite(warmup_cosine(steps=0, warmup=0.5)(0))


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("num_classes", 0, "at least 1"),
        ("lr", 0.0, "above 0"),
        ("size_lr", -1.0, "at least 0"),
        ("weight_decay", -1.0, "at least 0"),
        ("warmup", 1.0, "below 1"),
        ("label_smoothing", -0.1, "at least 0"),
        ("aliasing_weight", -1.0, "at least 0"),
        ("complexity_weight", float("nan"), "at least 0"),
    ],
)
def test_arguments_out_of_range_are_refused(network, argument, value, allowed):
    with pytest.raises(ValueError, match=f"{argument}.*{allowed}.*{value}"):
        Classifier(network, **{"num_classes": 3, argument: value})
