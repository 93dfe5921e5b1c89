from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sizeless.nn import DiffStride2d, FlexConv2d
from sizeless.penalties import aliasing_penalty, complexity_penalty, kernel_norm_penalty
from sizeless.train.data.loading import BatchOrder
from sizeless.train.objective import OutputError, losses_of, outputs_of, right_ones
from sizeless.train.schedules import Plateau, schedule_factor
from sizeless.train.task import Classifier


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

    def log_dict(self, metrics, **options):
        values.update(metrics)

    monkeypatch.setattr(Classifier, "log", log)
    monkeypatch.setattr(Classifier, "log_dict", log_dict)
    return values


def step(task, batch):
    return task.training_step(batch, 0)


def test_the_loss_is_the_sum_of_its_terms(network, batch):
    network(batch[0])
    loss = step(Classifier(network, 3), batch)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(network(batch[0]), batch[1]))
    weights = {"aliasing_weight": 0.5, "aliasing_window": True, "complexity_weight": 2.0}
    both = step(Classifier(network, 3, **weights), batch)
    expected = 0.5 * aliasing_penalty(network, include_window=True) + 2.0 * complexity_penalty(
        network, batch[0][:1]
    )
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
    task.on_test_epoch_end()
    torch.testing.assert_close(
        logged["test/loss"], nn.functional.cross_entropy(network(batch[0]), batch[1])
    )


def test_metrics_are_means_over_samples(network, batch, logged):
    inputs, targets = batch
    scores = network(inputs)
    task = Classifier(network, 3)
    for part in (slice(0, 3), slice(3, 4)):
        task.validation_step((inputs[part], targets[part]), 0)
    task.on_validation_epoch_end()
    torch.testing.assert_close(logged["val/loss"], nn.functional.cross_entropy(scores, targets))
    assert logged["val/accuracy"] == (scores.argmax(1) == targets).float().mean()
    task.validation_step((inputs[:1], targets[:1]), 0)
    task.on_validation_epoch_end()
    assert logged["val/accuracy"] == float(scores[0].argmax() == targets[0])


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 3)])

    def forward(self, inputs):
        return tuple(head(inputs.flatten(1)) for head in self.heads)


def test_several_tasks_count_the_samples_that_have_their_label(logged):
    network, inputs = TwoHeads(), torch.randn(4, 1, 4)
    targets = torch.tensor([[0, -1], [1, 2], [-1, 0], [1, -1]])
    first, second = network(inputs)
    expected = nn.functional.cross_entropy(first[[0, 1, 3]], targets[[0, 1, 3], 0])
    expected = expected + nn.functional.cross_entropy(second[[1, 2]], targets[[1, 2], 1])
    task = Classifier(network, (2, 3))
    torch.testing.assert_close(step(task, (inputs, targets)), expected)
    task.validation_step((inputs, targets), 0)
    task.on_validation_epoch_end()
    correct = (first[[0, 1, 3]].argmax(1) == targets[[0, 1, 3], 0]).float().mean()
    assert logged["val/accuracy_0"] == correct
    both = torch.stack([logged["val/accuracy_0"], logged["val/accuracy_1"]]).mean()
    assert logged["val/accuracy"] == both


def test_a_task_without_labels_in_a_batch_adds_nothing():
    network, inputs = TwoHeads(), torch.randn(2, 1, 4)
    targets = torch.tensor([[0, -1], [1, -1]])
    loss = step(Classifier(network, (2, 3)), (inputs, targets))
    torch.testing.assert_close(loss, nn.functional.cross_entropy(network(inputs)[0], targets[:, 0]))
    loss.backward()
    assert network.heads[1].weight.grad.abs().sum() == 0


def test_numbers_are_regressed(logged):
    network, inputs = nn.Linear(3, 1), torch.randn(4, 3)
    error = torch.tensor([0.0, 0.03, -0.05, 2.0])
    targets = network(inputs).detach().squeeze(-1) + error
    task = Classifier(network, 1)
    torch.testing.assert_close(step(task, (inputs, targets)), error.square().mean())
    task.test_step((inputs, targets), 0)
    task.on_test_epoch_end()
    assert logged["test/accuracy"] == 0.5


def test_a_task_that_validation_says_nothing_about_does_not_count(logged):
    network, inputs = TwoHeads(), torch.randn(2, 1, 4)
    targets = torch.tensor([[0, -1], [1, -1]])
    task = Classifier(network, (2, 3))
    task.validation_step((inputs, targets), 0)
    task.on_validation_epoch_end()
    assert logged["val/accuracy"] == logged["val/accuracy_0"]
    assert logged["val/accuracy_1"].isnan()


def test_kernel_norms_and_mixed_samples_enter_the_loss(network, batch):
    inputs, targets = batch
    scores = network(inputs)
    shares = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1], [0.2, 0.3, 0.5]])
    task = Classifier(network, 3, kernel_norm_weight=0.1, mix=lambda x, _: (x, shares))
    expected = nn.functional.cross_entropy(scores, shares) + 0.1 * kernel_norm_penalty(network)
    torch.testing.assert_close(step(task, (inputs, targets)), expected)


def test_the_schedule_rises_and_falls_to_zero():
    factor = schedule_factor("cosine", steps=100, warmup=0.1)
    factors = [factor(step) for step in range(101)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert (factors[0], factors[10], factors[100]) == (1 / 11, 1.0, 0.0)
    assert schedule_factor("cosine", steps=100, warmup=0.0)(0) == 1.0
    assert math.isfinite(schedule_factor("cosine", steps=0, warmup=0.5)(0))


def test_a_plateau_lowers_the_rate_and_goes_on_from_its_state():
    plateau = Plateau(decay=0.2, patience=1)
    factor = schedule_factor("plateau", steps=10, warmup=0.0, plateau=plateau)
    for accuracy in (0.5, 0.4):
        plateau.update(accuracy)
    assert factor(3) == 1.0
    again = Plateau(decay=0.2, patience=1)
    again.load_state_dict(plateau.state_dict())
    for one in (plateau, again):
        one.update(0.4)
        assert one.factor == pytest.approx(0.2)
    assert factor(3) == pytest.approx(0.2)


def test_milestones_go_with_steps_alone(network):
    for arguments in ({"schedule": "steps"}, {"milestones": (0.5,)}):
        with pytest.raises(ValueError, match="milestones go with schedule='steps'"):
            Classifier(network, 3, **arguments)


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
        ("kernel_norm_weight", -1.0, "at least 0"),
        ("optimizer", "lion", "'adamw', 'adam' or 'sgd'"),
        ("schedule", "linear", "'cosine', 'plateau'"),
    ],
)
def test_arguments_out_of_range_are_refused(network, argument, value, allowed):
    with pytest.raises(ValueError, match=f"{argument}.*{allowed}.*{value}"):
        Classifier(network, **{"num_classes": 3, argument: value})


def test_outputs_must_be_those_of_the_classes(network, batch):
    with pytest.raises(OutputError) as raised:
        step(Classifier(network, 10), batch)
    assert str(raised.value) == (
        "the data have 10 classes, so the network must return logits of shape (N, 10), got (4, 3) "
        "for N = 4; set num_classes in model.network.init_args"
    )
    with pytest.raises(OutputError, match=r"5 and 3 classes.*\(N, 5\) and \(N, 3\), got \(4, 3\)"):
        step(Classifier(network, [5, 3]), batch)


def test_several_tasks_may_be_the_last_steps_of_a_sequence():
    sequences, targets = torch.randn(5, 3, 12), torch.randint(4, (5, 2))
    network = nn.Conv1d(3, 4, 1)
    loss = step(Classifier(network, [4, 4]), (sequences, targets))
    answers = network(sequences)[..., -2:]
    expected = 2 * nn.functional.cross_entropy(answers, targets)
    torch.testing.assert_close(loss, expected)


def test_accumulated_batches_weigh_by_their_samples_and_penalties_once_a_step():
    class Trainer:
        strategy = None
        accumulate_grad_batches = 3
        num_training_batches = 5

        class train_dataloader:  # noqa: N801
            batch_sampler = BatchOrder(18, 4)

    task = Classifier(nn.Flatten(), 3)
    task._trainer = Trainer()
    weights = [task._weights(number) for number in range(5)]
    # The trainer divides by 3: whole windows are means, and the last one has 4 and 2 samples.
    assert weights[:3] == [(1.0, 1.0)] * 3
    assert weights[3:] == [(3 * 4 / 6, 3 / 2), (3 * 2 / 6, 3 / 2)]


def test_one_task_may_have_a_column_of_targets():
    logits, targets = torch.randn(4, 3), torch.tensor([[0], [2], [-1], [1]])
    loss, count = losses_of([logits], targets)
    expected = nn.functional.cross_entropy(logits, targets[:, 0], ignore_index=-1)
    torch.testing.assert_close(loss, expected[None])
    assert count.tolist() == [3]


@pytest.mark.parametrize(
    ("logits", "targets"),
    [((4, 3, 6), (4, 6)), ((4, 3, 2, 5), (4, 2, 5))],
    ids=["sequence", "image"],
)
def test_every_position_may_have_a_target(logits, targets):
    answers, wanted = torch.randn(logits), torch.randint(-1, 3, targets)
    parts = outputs_of(answers, 4, [3])
    loss, count = losses_of(parts, wanted)
    expected = nn.functional.cross_entropy(answers, wanted, ignore_index=-1)
    torch.testing.assert_close(loss, expected[None])
    assert count.item() == (wanted >= 0).sum()
    ((right, known),) = right_ones(parts, wanted)
    assert torch.equal(right, (answers.argmax(1) == wanted) & known)


def test_numbers_may_come_without_an_axis_for_classes():
    answers, wanted = torch.randn(5), torch.randn(5)
    loss, _ = losses_of(outputs_of(answers, 5, [1]), wanted)
    torch.testing.assert_close(loss, nn.functional.mse_loss(answers, wanted)[None])
