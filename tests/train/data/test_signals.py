from __future__ import annotations

import pytest
import torch

from sizeless.train.data.base import check_parts
from sizeless.train.data.signals import (
    SignalData,
    channel_statistics,
    drop_mask,
    three_parts,
)

from .tiny_sounds import ready, whole


class Sequences(SignalData):
    def read(self):
        generator = torch.Generator().manual_seed(0)
        scale = torch.tensor([[1.0], [5.0]])
        return [
            (scale * torch.randn(count, 2, 50, generator=generator) + 3, torch.arange(count))
            for count in (40, 10, 20)
        ]


def test_each_channel_is_standardised_by_the_training_split():
    splits = ready(Sequences()).splits
    train, _ = whole(splits.train)
    torch.testing.assert_close(train.mean((0, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std((0, 2), correction=0), torch.ones(2))
    for samples, (inputs, targets) in zip(splits, Sequences().read(), strict=True):
        raw = Sequences().read()[0][0]
        deviation, mean = torch.std_mean(raw, (0, 2), correction=0, keepdim=True)
        torch.testing.assert_close(whole(samples)[0], (inputs - mean) / deviation)
        assert torch.equal(whole(samples)[1], targets)


def test_time_steps_keep_their_own_level():
    class Rising(SignalData):
        def read(self):
            return [(torch.arange(4.0).expand(3, 1, 4), torch.arange(3))] * 3

    inputs, _ = whole(ready(Rising()).splits.train)
    assert (inputs.diff(dim=-1) > 0).all()


def test_dropped_steps_are_zero_and_marked():
    plain, dropped = ready(Sequences()), ready(Sequences(drop=0.3))
    for samples, (raw, _) in zip(dropped.splits, Sequences().read(), strict=True):
        inputs, _ = whole(samples)
        values, known = inputs[:, :2], inputs[:, 2:]
        assert inputs.shape == (len(raw), 3, 50)
        assert known.unique().tolist() == [0, 1]
        assert (known.sum(-1) == 35).all()
        assert (values[(known == 0).expand_as(values)] == 0).all()
        assert len({tuple(row) for row in known[:, 0].tolist()}) == len(raw)
    # The known steps have mean 0 and deviation 1, not all steps.
    inputs, _ = whole(dropped.splits.train)
    values = inputs[:, :2].transpose(0, 1)[:, inputs[:, 2] == 1]
    torch.testing.assert_close(values.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.std(1, correction=0), torch.ones(2))
    assert whole(plain.splits.train)[0].shape[1] == 2


def test_the_same_steps_are_dropped_every_time():
    torch.manual_seed(1)
    first, _ = whole(ready(Sequences(drop=0.5)).splits.test)
    torch.manual_seed(2)
    second, _ = whole(ready(Sequences(drop=0.5)).splits.test)
    assert torch.equal(first, second)


def test_batches_hold_inputs_and_targets():
    data = Sequences(drop=0.2, batch_size=8)
    inputs, targets = next(iter(data.val_dataloader()))
    assert inputs.shape == (8, 3, 50)
    assert inputs.dtype == torch.float32
    assert targets.tolist() == list(range(8))


def test_statistics_of_integers_and_of_a_constant_channel():
    inputs = torch.tensor([[[30000, -30000], [7, 7]]], dtype=torch.int16)
    mean, deviation = channel_statistics(inputs.repeat(3000, 1, 1))
    assert mean.tolist() == [0, 7]
    assert deviation.tolist() == [30000, 1]


def test_statistics_of_known_steps_only():
    inputs = torch.tensor([[[1.0, 3.0, 100.0]]])
    mean, deviation = channel_statistics(inputs, torch.tensor([[[True, True, False]]]))
    assert (mean.item(), deviation.item()) == (2, 1)


def test_nothing_is_dropped_by_default():
    assert drop_mask(torch.zeros(2, 1, 3), 0.0, torch.Generator()) is None


def test_three_parts_are_disjoint_stratified_and_follow_their_seed():
    targets = torch.tensor([0] * 100 + [1] * 40)
    parts = three_parts(targets, seed=3)
    assert torch.cat(parts).sort().values.tolist() == list(range(140))
    assert [targets[part].bincount().tolist() for part in parts] == [[70, 28], [15, 6], [15, 6]]
    assert all(map(torch.equal, parts, three_parts(targets, seed=3)))
    assert not torch.equal(parts[2], three_parts(targets, seed=4)[2])


def test_empty_parts_are_refused():
    with pytest.raises(ValueError, match=r"sounds has too few samples to split: 3 .* 0 for valid"):
        check_parts("sounds", [3, 0, 1])


@pytest.mark.parametrize(
    ("drop", "error", "message"),
    [
        (1.0, ValueError, "drop must be below 1, got 1.0: it is a part"),
        (-0.1, ValueError, "drop must be a finite number of at least 0"),
        ("half", TypeError, "drop must be a number"),
    ],
)
def test_wrong_parts_to_drop_are_refused(drop, error, message):
    with pytest.raises(error, match=message):
        Sequences(drop=drop)
