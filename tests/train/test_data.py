from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from sizeless.train.data import MNIST1D, Batches, Digits, circular_shift, stratified_split


@pytest.fixture(scope="module")
def mnist():
    data = MNIST1D(shift=2)
    data.setup("fit")
    return data


def rows(tensor):
    return {tuple(row.flatten().tolist()) for row in tensor}


def test_mnist1d_is_the_benchmarks_own(mnist):
    from mnist1d.data import get_dataset_args, make_dataset

    reference = make_dataset(get_dataset_args())
    inputs, targets = mnist.splits["test"]
    expected = torch.as_tensor(reference["x_test"], dtype=torch.float32)
    # Standardisation keeps the shape of a signal.
    assert torch.corrcoef(torch.stack([inputs.flatten(), expected.flatten()]))[0, 1] > 1 - 1e-6
    assert targets.tolist() == reference["y_test"].tolist()
    assert sum(len(mnist.splits[name][1]) for name in ("train", "validation")) == 4000


@pytest.mark.parametrize("make", [MNIST1D, Digits])
def test_splits_are_disjoint_and_standardised_by_the_training_split(make):
    data = make(split_seed=1)
    data.setup("fit")
    train, held_out, test = (data.splits[name][0] for name in ("train", "validation", "test"))
    assert not rows(train) & rows(held_out)
    assert not rows(train) & rows(test)
    assert not rows(held_out) & rows(test)
    assert abs(train.mean()) < 1e-5
    assert abs(train.std() - 1) < 1e-5
    assert abs(test.std() - 1) > 1e-5


def test_splits_follow_their_own_seed_and_leave_other_generators_alone(mnist):
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    again, other = MNIST1D(), MNIST1D(split_seed=1)
    for data in (again, other):
        data.setup("fit")
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert torch.equal(again.splits["validation"][0], mnist.splits["validation"][0])
    assert not torch.equal(other.splits["validation"][1], mnist.splits["validation"][1])


def test_training_batches_hold_every_sample_once(mnist):
    inputs, targets = mnist.splits["train"]
    batches = list(mnist.train_dataloader())
    assert len(batches) == len(mnist.train_dataloader())
    seen = torch.cat([target for _, target in batches])
    assert seen.bincount().tolist() == targets.bincount().tolist()
    assert seen.tolist() != targets.tolist()
    shifted = torch.cat([values for values, _ in batches])
    torch.testing.assert_close(
        shifted.sum(-1).flatten().sort().values, inputs.sum(-1).flatten().sort().values
    )


def test_evaluation_batches_keep_their_order(mnist):
    inputs = torch.cat([values for values, _ in mnist.test_dataloader()])
    assert torch.equal(inputs, mnist.splits["test"][0])


def test_batches_of_one_size_and_a_rest():
    split = torch.arange(5.0)[:, None, None], torch.arange(5)
    assert [targets.tolist() for _, targets in Batches(split, 2)] == [[0, 1], [2, 3], [4]]


def test_circular_shifts_stay_in_range():
    inputs = torch.zeros(200, 2, 3, 10)
    inputs[..., 4] = 1.0
    shifted = circular_shift(inputs, 2, torch.Generator().manual_seed(0))
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
    with pytest.raises(ValueError, match="shift must be at least 0 samples, got -1"):
        MNIST1D(shift=-1)
