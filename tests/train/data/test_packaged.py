from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from sizeless.train.data import MNIST1D, Digits
from sizeless.train.data.base import stratified_split
from sizeless.train.data.packaged import circular_shift


@pytest.fixture(scope="module")
def mnist():
    data = MNIST1D(shift=2)
    data.setup("fit")
    return data.splits


def rows(samples):
    return {tuple(row.flatten().tolist()) for row in samples.inputs}


def test_mnist1d_is_the_benchmarks_own(mnist):
    from mnist1d.data import get_dataset_args, make_dataset

    reference = make_dataset(get_dataset_args())
    expected = torch.as_tensor(reference["x_test"], dtype=torch.float32)
    # Standardisation keeps the shape of a signal.
    pair = torch.stack([mnist.test.inputs.flatten(), expected.flatten()])
    assert torch.corrcoef(pair)[0, 1] > 1 - 1e-6
    assert mnist.test.targets.tolist() == reference["y_test"].tolist()
    assert len(mnist.train) + len(mnist.validation) == 4000


@pytest.mark.parametrize("make", [MNIST1D, Digits])
def test_splits_are_disjoint_and_standardised_by_the_training_split(make):
    data = make(split_seed=1)
    data.setup("fit")
    train, held_out, test = data.splits
    assert not rows(train) & rows(held_out)
    assert not rows(train) & rows(test)
    assert not rows(held_out) & rows(test)
    assert abs(train.inputs.mean()) < 1e-5
    assert abs(train.inputs.std() - 1) < 1e-5
    assert abs(test.inputs.std() - 1) > 1e-5


def test_splits_follow_their_own_seed_and_leave_other_generators_alone(mnist):
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    again, other = MNIST1D(), MNIST1D(split_seed=1)
    for data in (again, other):
        data.setup("fit")
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert torch.equal(again.splits.validation.inputs, mnist.validation.inputs)
    assert not torch.equal(other.splits.validation.targets, mnist.validation.targets)


def test_training_batches_hold_every_sample_once_shifted():
    data = MNIST1D(shift=2)
    batches = list(data.train_dataloader())
    inputs, targets = data.splits.train.inputs, data.splits.train.targets
    assert len(batches) == len(data.train_dataloader())
    seen = torch.cat([target for _, target in batches])
    assert seen.bincount().tolist() == targets.bincount().tolist()
    assert seen.tolist() != targets.tolist()
    shifted = torch.cat([values for values, _ in batches])
    torch.testing.assert_close(
        shifted.sum(-1).flatten().sort().values, inputs.sum(-1).flatten().sort().values
    )
    assert not torch.isin(shifted[:, 0, 0], inputs[:, 0, 0]).all()


def test_evaluation_batches_keep_their_order():
    data = MNIST1D(shift=2)
    inputs = torch.cat([values for values, _ in data.test_dataloader()])
    assert torch.equal(inputs, data.splits.test.inputs)


def test_circular_shifts_stay_in_range():
    inputs = torch.zeros(200, 2, 3, 10)
    inputs[..., 4] = 1.0
    shifted = circular_shift(2, inputs, torch.Generator().manual_seed(0))
    positions = shifted.argmax(-1)
    assert torch.equal(positions, positions[:, :1, :1].expand_as(positions))
    assert positions.unique().tolist() == [2, 3, 4, 5, 6]


def test_a_split_takes_its_part_of_every_class():
    targets = torch.tensor([0] * 10 + [1] * 30)
    kept, held_out = stratified_split(targets, 0.2, seed=3)
    assert targets[held_out].bincount().tolist() == [2, 6]
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(40))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"validation": 0.0}, "validation must lie between 0 and 1.*got 0"),
        ({"test": 1.0}, "test must lie between 0 and 1.*got 1"),
        ({"size": 7}, "size must be at least 8.*got 7"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Digits(**arguments)


def test_negative_shifts_are_refused():
    with pytest.raises(ValueError, match="shift must be at least 0, got -1"):
        MNIST1D(shift=-1)
