from __future__ import annotations

import pytest
import torch

from sizeless.train.data.image_sequences import RowsThenNoise, Scan, permutation


def test_the_permuted_order_is_the_same_for_ever():
    assert permutation(784)[:10].tolist() == [319, 576, 323, 107, 355, 716, 197, 20, 625, 60]
    assert permutation(784).sort().values.tolist() == list(range(784))


def test_a_scan_goes_row_by_row_through_every_channel():
    images = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)
    sequences = Scan(16)(images)
    assert sequences.shape == (2, 3, 16)
    assert all(torch.equal(sequences[..., 4 * row + 1], images[..., row, 1]) for row in range(4))


def test_a_permuted_scan_shows_every_image_in_one_order():
    images = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)
    assert torch.equal(Scan(16, permuted=True)(images), images.flatten(-2)[..., permutation(16)])


def test_rows_are_steps_and_noise_is_one_block():
    images = torch.arange(2.0 * 3 * 4 * 4).view(2, 3, 4, 4)
    made = RowsThenNoise(channels=3, side=4, length=1000)
    sequences = made(images)
    assert sequences.shape == (2, 12, 1000)
    for row in range(4):
        assert sequences[1, :, row].tolist() == images[1, :, row].flatten().tolist()
    noise = sequences[0, :, 4:]
    assert torch.equal(noise, sequences[1, :, 4:])
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05
    assert torch.equal(RowsThenNoise(3, 4, 1000).noise, made.noise)


def test_rows_must_fit():
    with pytest.raises(ValueError, match=r"length must be at least 32, the rows.*got 31"):
        RowsThenNoise(3, 32, 31)
