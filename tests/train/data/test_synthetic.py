from __future__ import annotations

import numpy as np
import pytest
import torch

from sizeless.train.data.packaged import MNIST1D
from sizeless.train.data.synthetic import AddingProblem, CopyMemory, ShuffledMNIST1D

from .tiny_sounds import ready

FEW = {"samples": 200, "test_samples": 50}


def test_copy_memory_says_the_symbols_again():
    data = ready(CopyMemory(delay=7, memory=3, symbols=4, **FEW))
    inputs, targets = data.splits.train.inputs, data.splits.train.targets
    assert inputs.shape == (180, 6, 13)
    assert data.num_classes == (4, 4, 4)
    assert (inputs.sum(1) == 1).all()
    symbols = inputs.argmax(1)
    assert torch.equal(symbols[:, :3], targets)
    assert torch.equal(symbols[:, 3:9], torch.full((180, 6), 4))
    assert (symbols[:, 9] == 5).all()
    assert torch.equal(symbols[:, 10:], torch.full((180, 3), 4))
    assert targets.flatten().bincount().min() > 100


def test_copy_memory_is_a_shift_by_the_best_reach():
    data = ready(CopyMemory(delay=7, memory=3, symbols=4, **FEW))
    symbols = data.splits.test.inputs.argmax(1)
    answers = symbols.roll(data.best_reach, dims=1)[:, -3:]
    assert torch.equal(answers, data.splits.test.targets)
    shorter = symbols.roll(data.best_reach - 1, dims=1)[:, -3:]
    assert (shorter == data.splits.test.targets).float().mean() < 0.4


def test_adding_problem_marks_one_number_of_each_half():
    data = ready(AddingProblem(length=11, samples=2000, test_samples=50))
    inputs, targets = data.splits.train.inputs, data.splits.train.targets
    numbers, marks = inputs.unbind(1)
    assert inputs.shape == (1800, 2, 11)
    assert targets.shape == (1800,)
    assert marks.unique().tolist() == [0, 1]
    assert (marks[:, :5].sum(1) == 1).all()
    assert (marks[:, 5:].sum(1) == 1).all()
    assert (marks.sum(0) > 0).all()
    torch.testing.assert_close((numbers * marks).sum(1), targets)
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert (targets - 1).square().mean().item() == pytest.approx(1 / 6, abs=0.015)


def test_shuffled_mnist1d_is_mnist1d_in_another_order():
    plain, shuffled = ready(MNIST1D()), ready(ShuffledMNIST1D())
    order = np.random.RandomState(42).permutation(40)
    assert list(ShuffledMNIST1D.ORDER) == order.tolist()
    for samples, others in zip(shuffled.splits, plain.splits, strict=True):
        assert torch.equal(samples.targets, others.targets)
        torch.testing.assert_close(samples.inputs, others.inputs[..., order])


@pytest.mark.parametrize("make", [CopyMemory, AddingProblem])
def test_data_follow_their_seed_alone(make):
    torch.manual_seed(1)
    first = ready(make(**FEW)).splits
    state = torch.manual_seed(2).get_state()
    again = ready(make(**FEW)).splits
    assert torch.equal(torch.get_rng_state(), state)
    other = ready(make(split_seed=1, **FEW)).splits
    for samples, same in zip(first, again, strict=True):
        assert torch.equal(samples.inputs, same.inputs)
        assert torch.equal(samples.targets, same.targets)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert [len(samples) for samples in first] == [180, 20, 50]
    rows = [set(map(str, samples.inputs.flatten(1).tolist())) for samples in first]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (CopyMemory, {"delay": 0}, "delay must be at least 1, got 0"),
        (CopyMemory, {"memory": 0}, "memory must be at least 1, got 0"),
        (CopyMemory, {"symbols": 1}, "symbols must be at least 2, got 1"),
        (AddingProblem, {"length": 1}, "length must be at least 2, got 1"),
        (AddingProblem, {"samples": 1}, "samples must be at least 2, got 1"),
        (AddingProblem, {"test_samples": 0}, "test_samples must be at least 1, got 0"),
        (AddingProblem, {"validation": 1.0}, "validation must lie between 0 and 1"),
    ],
)
def test_arguments_out_of_range_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
