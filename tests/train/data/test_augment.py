from __future__ import annotations

import itertools
import pickle

import pytest
import torch
from jsonargparse import ArgumentParser
from torch.nn import functional

from sizeless.train.data.augment import (
    AUGMENTATIONS,
    Augmentation,
    BatchMix,
    FlipCrop,
    Jitter,
    Modern,
    augmentation,
)
from sizeless.train.data.image_data import Steps

NAMES = [name for name, value in AUGMENTATIONS.items() if value is not None]


def image(channels=3, side=16):
    return torch.randint(0, 256, (channels, side, side), dtype=torch.uint8)


def drawn(steps, images, seed):
    torch.manual_seed(seed)
    return Steps(steps)(images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_changed_by_its_seed_alone(name, channels):
    value, picture = augmentation(name), image(channels)
    before = picture.clone()
    steps = pickle.loads(pickle.dumps(value)).pixels(16)
    made = [drawn(steps, picture, seed) for seed in range(8)]
    assert all(one.shape == picture.shape and one.dtype == torch.uint8 for one in made)
    assert torch.equal(picture, before)
    assert all(torch.equal(drawn(steps, picture, seed), made[seed]) for seed in (3, 0))
    assert any(not torch.equal(one, made[0]) for one in made)


def test_no_augmentation_is_none():
    assert augmentation("none") is None


def test_flip_crop_gives_every_crop_and_its_mirror_image_and_nothing_else():
    picture = image(side=8)
    padded = functional.pad(picture, [1] * 4)
    crops = [padded[:, i : i + 8, j : j + 8] for i, j in itertools.product(range(3), repeat=2)]
    expected = {tuple(part.flatten().tolist()) for crop in crops for part in (crop, crop.flip(-1))}
    steps = FlipCrop().pixels(8)  # An eighth of 8 is 1.
    made = {tuple(drawn(steps, picture, seed).flatten().tolist()) for seed in range(300)}
    assert made == expected


def test_flip_crop_without_flip_or_padding():
    picture = image(side=4)
    [step] = FlipCrop(padding=0, flip=False).pixels(4)
    assert all(torch.equal(step(picture), picture) for _ in range(8))


def test_jitter_shifts_half_of_the_images_by_whole_pixels():
    picture = torch.zeros(1, 11, 11, dtype=torch.uint8)
    picture[0, 5, 5] = 255
    [step] = Jitter(degrees=0.0, shift=2, scale=1.0, square=0).pixels(11)
    made = [step(picture).nonzero().tolist() for _ in range(200)]
    assert all(len(places) == 1 for places in made)
    shifts = [(row - 5, column - 5) for ((_, row, column),) in made]
    assert {row for row, _ in shifts} == {column for _, column in shifts} == set(range(-2, 3))
    assert 80 <= sum(shift == (0, 0) for shift in shifts) <= 136


def test_jitter_blackens_a_square_in_half_of_the_images():
    picture = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    [step] = Jitter(degrees=0.0, shift=0, scale=1.0, square=4).pixels(8)
    black = [int((step(picture) == 0).sum()) for _ in range(100)]
    assert set(black) == {0, 16}
    assert 30 <= black.count(16) <= 70


def test_jitter_shrinks_and_turns_in_its_range():
    picture = torch.full((1, 40, 40), 255, dtype=torch.uint8)
    [shrink] = Jitter(degrees=0.0, shift=0, scale=0.5, square=0).pixels(40)
    parts = [float(shrink(picture).double().mean() / 255) for _ in range(60)]
    assert min(parts) > 0.22
    assert 0.22 < min(parts) < 0.35
    assert max(parts) == 1.0
    arm = torch.zeros(1, 41, 41, dtype=torch.uint8)
    arm[0, 20, 30] = 255
    [turn] = Jitter(degrees=30.0, shift=0, scale=1.0, square=0).pixels(41)
    places = [turn(arm).flatten().argmax().item() for _ in range(60)]
    angles = [
        torch.rad2deg(torch.atan2(torch.tensor(20.0 - at // 41), torch.tensor(at % 41 - 20.0)))
        for at in places
    ]
    assert max(angles) < 34
    assert min(angles) > -34
    assert max(angles) > 15
    assert min(angles) < -15


def test_modern_has_the_steps_it_is_asked_for():
    def names(**options):
        value = Modern(**options)
        return [type(step).__name__ for step in (*value.pixels(16), *value.values())]

    off = {"crop": "none", "flip": False, "policy": "none", "erase": 0.0}
    assert names(**off) == []
    assert names(**{**off, "flip": True}) == ["RandomHorizontalFlip"]
    assert names(**{**off, "policy": "trivial"}) == ["TrivialAugmentWide"]
    assert names(crop="resized", colours=0.4) == [
        "RandomResizedCrop",
        "RandomHorizontalFlip",
        "RandAugment",
        "ColorJitter",
        "RandomErasing",
    ]
    assert Modern(crop="resized").sized
    assert not Modern().sized


def test_resized_crops_have_the_side_and_the_interpolation_asked_for():
    value = Modern(crop="resized", policy="none", flip=False)
    [step] = value.pixels(10, interpolation="bicubic")
    assert step(image(side=33)).shape == (3, 10, 10)
    assert step.interpolation.value == "bicubic"


def test_erasing_puts_noise_in():
    [step] = Modern(erase=1.0).values()
    values = torch.zeros(3, 16, 16)
    noise = step(values)[step(values) != 0]
    changed = drawn([step], values, 0)
    assert 0 < (changed != 0).float().mean() < 0.5
    assert noise.unique().numel() > 10


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (FlipCrop, {"padding": -1}, "padding must be at least 0, got -1"),
        (Jitter, {"scale": 0.0}, "scale must be a finite number above 0 and at most 1, got 0"),
        (Jitter, {"degrees": 200}, "degrees must be.*at most 180, got 200"),
        (Modern, {"crop": "half"}, "crop must be 'padded', 'resized' or 'none', got 'half'"),
        (Modern, {"policy": "auto"}, "policy must be 'rand', 'trivial' or 'none', got 'auto'"),
        (Modern, {"magnitude": 31}, "magnitude must be at most 30, got 31"),
        (Modern, {"erase": 1.5}, "erase must be.*at most 1, got 1.5"),
        (BatchMix, {"num_classes": 0}, "num_classes must be at least 1, got 0"),
        (BatchMix, {"num_classes": 2, "mixup": 0, "cutmix": 0}, "must not both be 0"),
        (BatchMix, {"num_classes": 2, "mixup": -1.0}, "mixup must be.*at least 0, got -1"),
        (BatchMix, {"num_classes": 2, "switch": 2.0}, "switch must be.*at most 1, got 2"),
        (augmentation, {"value": "mirror"}, "augment must be 'none', 'flip_crop'.*got 'mirror'"),
    ],
)
def test_arguments_out_of_range_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("flip_crop", "flip_crop"),
        (
            '{"class_path": "sizeless.train.data.augment.FlipCrop", "init_args": {"padding": 3}}',
            FlipCrop(padding=3),
        ),
        (
            '{"class_path": "sizeless.train.data.augment.Modern", "init_args": {"policy": "none"}}',
            Modern(policy="none"),
        ),
    ],
)
def test_recipes_name_augmentations_or_give_their_options(given, expected):
    def train(augment: str | Augmentation = "none"):
        return augment

    parser = ArgumentParser()
    parser.add_function_arguments(train)
    parsed = parser.instantiate(parser.parse_args([f"--augment={given}"]))
    assert parsed.augment == expected


def batch(count=6):
    return torch.rand(count, 3, 8, 8), torch.arange(count) % 4


def test_mixup_averages_each_image_with_the_one_before():
    inputs, targets = batch()
    mixed, weights = BatchMix(4, mixup=0.4, cutmix=0.0)(inputs, targets)
    own = weights[0, targets[0]]
    assert 0 < own < 1
    expected = own * inputs + (1 - own) * inputs.roll(1, 0)
    torch.testing.assert_close(mixed, expected)
    labels = functional.one_hot(targets, 4).float()
    torch.testing.assert_close(weights, own * labels + (1 - own) * labels.roll(1, 0))


def test_cutmix_weighs_targets_by_area():
    inputs, targets = batch()
    mix = BatchMix(4, mixup=0.0, cutmix=1.0)
    for _ in range(20):
        mixed, weights = mix(inputs, targets)
        kept = (mixed == inputs).all(1).float().mean((1, 2))
        torch.testing.assert_close(weights[torch.arange(6), targets], kept)


def test_both_mixtures_take_turns_and_leave_some_batches_alone():
    inputs, targets = batch()
    mix = BatchMix(4, probability=0.5, switch=0.5)
    kinds = []
    for _ in range(100):
        mixed, weights = mix(inputs, targets)
        torch.testing.assert_close(weights.sum(1), torch.ones(6))
        same = (mixed == inputs).all(1).float().mean()
        kinds.append("none" if same == 1 else "mixup" if same == 0 else "cutmix")
    assert 25 <= kinds.count("none") <= 75
    assert kinds.count("mixup") > 5
    assert kinds.count("cutmix") > 5


def test_mixing_follows_the_global_generator():
    inputs, targets = batch()
    mix = BatchMix(4)
    made = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        made.append(mix(inputs, targets))
    assert all(torch.equal(*pair) for pair in zip(made[0], made[2], strict=True))
    assert not torch.equal(made[0][0], made[1][0])


def test_sequences_can_be_mixed_but_not_cut():
    inputs, targets = torch.rand(4, 2, 30), torch.tensor([0, 1, 2, 3])
    mixed, weights = BatchMix(4, cutmix=0.0)(inputs, targets)
    own = weights[0, 0]
    torch.testing.assert_close(mixed, own * inputs + (1 - own) * inputs.roll(1, 0))
    with pytest.raises(ValueError, match=r"cutmix cuts rectangles.*set it to 0"):
        BatchMix(4)(inputs, targets)


def test_targets_of_several_tasks_cannot_be_mixed():
    with pytest.raises(ValueError, match=r"targets must be .* shape \(N,\), got \(2, 3\)"):
        BatchMix(4)(torch.rand(2, 3, 8, 8), torch.zeros(2, 3, dtype=torch.long))
