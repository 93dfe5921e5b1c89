from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sizeless.train.data.augment import Augmentation, Modern
from sizeless.train.data.image_data import (
    CONSTANTS,
    ImageData,
    Resize,
    standardisation,
    stratified_sample,
)
from sizeless.train.data.loading import Draw

from .tiny_images import bytes_of, labels_of


class Pictures(ImageData):
    """Forty training and twenty test images of 3×16×16."""

    num_classes = 10
    train = torch.from_numpy(bytes_of(40, 3, 16, 16, seed=0))
    test = torch.from_numpy(bytes_of(20, 3, 16, 16, seed=1))

    def read(self):
        targets = torch.from_numpy(labels_of(40)).long()
        return (self.train, targets), (self.test, targets[:20])


class Record(Augmentation):
    """Remembers what its steps see."""

    def __init__(self):
        self.seen = []

    def pixels(self, side, interpolation="bilinear"):
        return [self.look]

    def values(self):
        return [self.look]

    def look(self, image):
        self.seen.append((tuple(image.shape), image.dtype))
        return image


def ready(**options):
    data = Pictures(**{"batch_size": 8, "validation": 0.25, **options})
    data.setup("fit")
    return data


def inputs_of(samples):
    return samples.__getitems__([Draw(index, 0) for index in range(len(samples))])[0]


def test_splits_are_disjoint_stratified_and_follow_their_own_seed():
    parts = {seed: ready(split_seed=seed, workers=0).splits for seed in (0, 1)}
    for train, validation, test in parts.values():
        indices = [*train.indices.tolist(), *validation.indices.tolist()]
        assert sorted(indices) == list(range(40))
        assert validation.targets[validation.indices].bincount().tolist() == [1] * 10
        assert len(test) == 20
    torch.manual_seed(9)
    before = torch.get_rng_state()
    again = ready(split_seed=0).splits
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.validation.indices, parts[0].validation.indices)
    assert not torch.equal(again.validation.indices, parts[1].validation.indices)


def test_training_images_are_standardised_with_their_own_statistics():
    train, _, test = ready().splits
    inputs = inputs_of(train)
    assert inputs.dtype == torch.float32
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    deviation = inputs.std((0, 2, 3), correction=0)
    torch.testing.assert_close(deviation, torch.ones(3), atol=1e-5, rtol=0)
    pixels = Pictures.train[train.indices].double() / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3), correction=0)
    expected = (Pictures.test.double() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(inputs_of(test).double(), expected, atol=1e-5, rtol=0)


def test_statistics_are_those_of_resized_images_and_of_the_training_split_alone():
    for augment in ("none", "flip_crop"):
        data = ready(size=4, augment=augment)
        pixels = Resize(4)(Pictures.train[data.splits.train.indices]).double() / 255
        scale = data.splits.test.view.steps[-1]
        expected = 255 * pixels.mean((0, 2, 3))
        torch.testing.assert_close(scale.mean.flatten().double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["imagenet", "cifar", "stl10"])
def test_the_papers_constants_go_by_name(name):
    inputs = inputs_of(ready(normalise=name).splits.test)
    mean, deviation = (torch.tensor(part).view(3, 1, 1) for part in CONSTANTS[name])
    torch.testing.assert_close(inputs, (Pictures.test / 255 - mean) / deviation)


def test_figures_of_ones_own():
    inputs = inputs_of(ready(normalise=([0.0] * 3, [1 / 255] * 3)).splits.test)
    torch.testing.assert_close(inputs, Pictures.test.float())


def test_a_channel_without_contrast_keeps_its_scale():
    image = torch.full((2, 1, 3, 3), 51, dtype=torch.uint8)
    assert standardisation("train", 1, [image])(image).unique().tolist() == [0.0]
    brighter = standardisation("train", 1, [image])(image + 51)
    torch.testing.assert_close(brighter, torch.full((2, 1, 3, 3), 0.2))


@pytest.mark.parametrize("side", [5, 24])
def test_resizing_is_that_of_pil(side):
    made = Resize(side)(Pictures.test[:4])
    for image, original in zip(made, Pictures.test, strict=False):
        picture = Image.fromarray(original.permute(1, 2, 0).numpy())
        expected = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
        assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_images_are_augmented_as_they_are_and_then_resized():
    record = Record()
    data = ready(size=4, augment=record)
    data.splits.train[Draw(0, 0)]
    assert record.seen == [((3, 16, 16), torch.uint8), ((3, 4, 4), torch.float32)]
    record.seen.clear()
    assert data.splits.validation[Draw(0, 0)][0].shape == (3, 4, 4)
    assert data.splits.test[Draw(0, 0)][0].shape == (3, 4, 4)
    assert record.seen == []


def test_an_augmentation_that_changes_nothing_gives_what_none_gives():
    plain, recorded = (ready(size=4, augment=value) for value in ("none", Record()))
    for one, other in zip(plain.splits, recorded.splits, strict=True):
        torch.testing.assert_close(inputs_of(one), inputs_of(other))


@pytest.mark.parametrize("augment", ["flip_crop", "jitter", "modern"])
def test_augmentation_follows_the_sample_and_its_seed_alone(augment):
    samples = ready(augment=augment).splits.train
    draws = [Draw(index, 100 + index) for index in range(20)]
    state = torch.get_rng_state()
    inputs, targets = samples.__getitems__(draws)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    back, labels = samples.__getitems__(draws[::-1])
    assert torch.equal(back.flip(0), inputs)
    assert torch.equal(labels.flip(0), targets)
    alone, label = samples[draws[7]]
    assert torch.equal(alone, inputs[7])
    assert label == targets[7]
    others, _ = samples.__getitems__([Draw(index, 200 + index) for index in range(20)])
    assert not torch.equal(others, inputs)


def test_an_epoch_follows_the_seed_of_the_run():
    data = ready(augment=Modern(erase=1.0))

    def epoch(seed):
        torch.manual_seed(seed)
        batches = list(data.train_dataloader())
        return torch.cat([inputs for inputs, _ in batches])

    first = epoch(3)
    assert len(first) == 30
    assert torch.equal(epoch(3), first)
    assert not torch.equal(epoch(4), first)


@pytest.mark.slow
def test_workers_change_nothing():
    epochs = []
    for workers in (0, 2):
        torch.manual_seed(3)
        loader = ready(augment="rand", workers=workers).train_dataloader()
        epochs.append(list(loader))
    for (inputs, targets), (others, labels) in zip(*epochs, strict=True):
        assert torch.equal(inputs, others)
        assert torch.equal(targets, labels)


def test_sequences_are_scans_of_the_augmented_images():
    images, sequences = (
        ready(size=6, augment="flip_crop", sequential=flag).splits.train for flag in (False, True)
    )
    assert torch.equal(inputs_of(sequences), inputs_of(images).flatten(-2))
    permuted = ready(sequential=True, permuted=True).splits.test
    plain = ready().splits.test
    assert inputs_of(permuted).shape == (20, 3, 256)
    assert torch.equal(
        inputs_of(permuted).sort().values, inputs_of(plain).flatten(-2).sort().values
    )
    assert not torch.equal(inputs_of(permuted), inputs_of(plain).flatten(-2))


def test_fewer_training_samples_keep_the_share_of_every_class():
    train, validation, test = ready(train_samples=20, validation=0.5).splits
    assert len(test) == 20
    chosen = torch.cat([train.indices, validation.indices])
    assert train.targets[chosen].bincount().tolist() == [2] * 10
    assert train.targets[train.indices].bincount().tolist() == [1] * 10
    other = ready(train_samples=20, validation=0.5, split_seed=1).splits
    assert set(chosen.tolist()) != {*other.train.indices.tolist(), *other[1].indices.tolist()}


@pytest.mark.parametrize("count", [1, 7, 30, 40])
def test_a_stratified_sample_has_exactly_the_size_asked_for(count):
    targets = torch.tensor([0] * 20 + [1] * 12 + [2] * 8)
    chosen = stratified_sample(targets, count, seed=5)
    assert len(set(chosen.tolist())) == count
    shares = targets[chosen].bincount(minlength=3) - count * torch.tensor([0.5, 0.3, 0.2])
    assert shares.abs().max() <= 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ValueError, "size must be at least 1, got 0"),
        ({"normalise": "mean"}, ValueError, "normalise must be 'train', 'imagenet'.*got 'mean'"),
        ({"normalise": ([0.5], [0.1, 0.2])}, ValueError, "a mean and a deviation for each"),
        ({"normalise": ([0.5], [0.0])}, ValueError, r"normalise \(deviation\) must be.*above 0"),
        ({"augment": "all"}, ValueError, "augment must be 'none'.*got 'all'"),
        ({"permuted": True}, ValueError, "permuted=True.*give sequential=True too"),
        ({"sequential": 1}, TypeError, "sequential must be True or False, got 1"),
        ({"train_samples": 0}, ValueError, "train_samples must be at least 1, got 0"),
        ({"validation": 1.0}, ValueError, "validation must lie between 0 and 1"),
        ({"workers": -1}, ValueError, "workers must be at least 0, got -1"),
        ({"root": "."}, TypeError, "root"),
    ],
)
def test_wrong_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Pictures(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalise": "mnist"}, "figures for 3 channels, got 1 in 'mnist'"),
        ({"train_samples": 41}, "train_samples must be at most 40, got 41"),
    ],
)
def test_arguments_that_do_not_fit_the_images_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ready(**options)
