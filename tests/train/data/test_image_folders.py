from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sizeless.train.data.augment import FlipCrop, Modern
from sizeless.train.data.image_folders import FitSquare, ImageFolder, ImageNet, MultiTaskImages
from sizeless.train.data.loading import Draw

from .tiny_images import bytes_of, write_folders

PIXELS = ([0.0] * 3, [1 / 255] * 3)
WNIDS = ("n01440764", "n01443537", "n02979186")


def ready(data):
    data.setup("fit")
    return data


def whole(samples):
    inputs, targets = samples.__getitems__([Draw(index, 0) for index in range(len(samples))])
    return inputs, targets


def paths(samples):
    return samples.source.files.paths


@pytest.fixture
def imagenet(tmp_path):
    return {
        part: write_folders(tmp_path / part, WNIDS, count, side=20)
        for part, count in (("train", 10), ("val", 4))
    }


def test_imagenet_tests_on_its_validation_images_and_holds_training_images_out(imagenet, tmp_path):
    data = ready(ImageNet(str(tmp_path), size=16, validation=0.2))
    train, validation, test = data.splits
    assert data.num_classes == 3
    assert (len(train), len(validation), len(test)) == (24, 6, 12)
    assert not set(paths(train)) & set(paths(validation))
    assert all("/val/" in path for path in paths(test))
    inputs, targets = whole(test)
    assert inputs.shape == (12, 3, 16, 16)
    assert targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert whole(validation)[1].bincount().tolist() == [2, 2, 2]


def test_evaluation_resizes_and_cuts_out_the_middle(imagenet, tmp_path):
    data = ready(ImageNet(str(tmp_path), size=14, crop_ratio=0.7, normalise=PIXELS))
    inputs, _ = whole(data.splits.test)
    # 14 / 0.7 is the side of the images: nothing is left to resize.
    expected = imagenet["val"][WNIDS[0]][0][:, 3:17, 3:17]
    np.testing.assert_allclose(inputs[0].numpy(), expected)
    constants = ready(ImageNet(str(tmp_path), size=14, crop_ratio=0.7)).splits.test
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    scaled = (inputs / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    torch.testing.assert_close(whole(constants)[0], scaled)


@pytest.mark.parametrize("as_file", [True, False])
def test_a_subset_of_imagenet_counts_its_classes_anew(as_file, imagenet, tmp_path):
    classes = [WNIDS[2], WNIDS[0]]
    if as_file:
        listing = tmp_path / "imagenet100.txt"
        listing.write_text("\n".join(classes), encoding="utf-8")
        classes = str(listing)
    data = ready(ImageNet(str(tmp_path), classes, size=16, validation=0.2))
    assert data.num_classes == 2
    assert data.classes == [WNIDS[0], WNIDS[2]]
    targets = [(WNIDS[2] in path) for path in paths(data.splits.train)]
    assert whole(data.splits.train)[1].tolist() == targets
    assert len(data.splits.test) == 8
    with pytest.raises(ValueError, match=r"classes must be folders of .*; it has no \['n0'\]"):
        ImageNet(str(tmp_path), ["n0"])


def test_missing_parts_of_imagenet_are_explained(imagenet, tmp_path):
    for wanted, folder in (("train/", tmp_path / "no"), ("val/", tmp_path / "half")):
        (tmp_path / "half" / "train").mkdir(parents=True, exist_ok=True)
        message = f"ImageNet found no {wanted} .* in {folder}: get ILSVRC2012 from image-net.org"
        with pytest.raises(FileNotFoundError, match=message):
            ImageNet(str(folder))
    flat = tmp_path / "flat"
    write_folders(flat / "train", WNIDS, 2)
    (flat / "val").mkdir()
    Image.fromarray(bytes_of(8, 8, 3)).save(flat / "val" / "ILSVRC2012_val_00000001.png")
    with pytest.raises(FileNotFoundError, match="no image in a folder named after a class"):
        ready(ImageNet(str(flat)))


def test_one_folder_is_split_by_its_seed(tmp_path):
    made = write_folders(tmp_path, count=20)
    options = {"size": 12, "normalise": PIXELS, "test": 0.25, "validation": 0.2}
    data, again, other = (
        ready(ImageFolder(str(tmp_path), split_seed=seed, **options)) for seed in (0, 0, 1)
    )
    parts = [paths(samples) for samples in data.splits]
    assert [len(part) for part in parts] == [24, 6, 10]
    assert len({path for part in parts for path in part}) == 40
    assert parts == [paths(samples) for samples in again.splits]
    assert all(part != paths(samples) for part, samples in zip(parts, other.splits, strict=True))
    inputs, targets = whole(data.splits.test)
    assert targets.bincount().tolist() == [5, 5]
    for path, image, target in zip(parts[2], inputs, targets, strict=True):
        name, number = path.split("/")[-2:]
        assert ["ant", "bee"][target] == name
        np.testing.assert_allclose(image.numpy(), made[name][int(number[:3])])


@pytest.mark.parametrize("with_validation", [True, False])
def test_folders_of_splits_are_kept_as_they_are(with_validation, tmp_path):
    parts = {"train": 10, "test": 4, **({"val": 3} if with_validation else {})}
    for name, count in parts.items():
        write_folders(tmp_path / name, count=count)
    data = ready(ImageFolder(str(tmp_path), size=8, validation=0.2))
    lengths = [len(samples) for samples in data.splits]
    assert lengths == ([20, 6, 8] if with_validation else [16, 4, 8])
    assert data.num_classes == 2
    assert all("/test/" in path for path in paths(data.splits.test))


def test_a_test_set_may_lack_a_class_but_have_none_of_its_own(tmp_path):
    write_folders(tmp_path / "train", ("ant", "bee"))
    write_folders(tmp_path / "test", ("bee",), count=3)
    data = ready(ImageFolder(str(tmp_path), size=8))
    assert whole(data.splits.test)[1].tolist() == [1, 1, 1]
    write_folders(tmp_path / "test", ("cat",), count=1)
    with pytest.raises(ValueError, match=r"must have the classes of .* but has \['cat'\] too"):
        ready(ImageFolder(str(tmp_path)))


def test_folders_without_images_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no folder of a class in {tmp_path}"):
        ImageFolder(str(tmp_path))
    write_folders(tmp_path, count=2)
    (tmp_path / "cat").mkdir()
    with pytest.raises(FileNotFoundError, match=r"images for every class.*no valid file.*cat"):
        ready(ImageFolder(str(tmp_path)))
    write_folders(tmp_path / "own" / "train")
    with pytest.raises(FileNotFoundError, match=r"no test/ beside train/ .*rename val/"):
        ImageFolder(str(tmp_path / "own"))


def test_statistics_are_those_of_the_training_images(tmp_path):
    write_folders(tmp_path, count=10)
    data = ready(ImageFolder(str(tmp_path), size=8))
    inputs, _ = whole(data.splits.train)
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    deviation = inputs.std((0, 2, 3), correction=0)
    torch.testing.assert_close(deviation, torch.ones(3), atol=1e-4, rtol=0)


def test_images_keep_their_size_only_if_all_have_one(tmp_path):
    made = write_folders(tmp_path, count=5)
    options = {"size": None, "normalise": PIXELS, "validation": 0.4}
    data = ready(ImageFolder(str(tmp_path), **options))
    assert whole(data.splits.train)[0].shape[1:] == (3, 12, 12)
    Image.fromarray(bytes_of(9, 12, 3)).save(tmp_path / "bee" / "other.png")
    message = r"size=None needs images of one size, got \(12, 12\) and \(9, 12\): give the side"
    with pytest.raises(ValueError, match=message):
        [whole(samples) for samples in ready(ImageFolder(str(tmp_path), **options)).splits]
    with pytest.raises(ValueError, match=r"cuts squares of a given side.*give size"):
        ImageFolder(str(tmp_path), size=None, augment="modern")
    assert made["ant"].shape == (5, 3, 12, 12)


def test_grey_pictures_and_other_formats_are_read(tmp_path):
    write_folders(tmp_path, count=5)
    for number, (mode, end) in enumerate((("L", "png"), ("RGBA", "png"), ("RGB", "jpg"))):
        Image.new(mode, (30, 20)).save(tmp_path / "ant" / f"new{number}.{end}")
    (tmp_path / "ant" / "notes.txt").write_text("no image", encoding="utf-8")
    splits = ready(ImageFolder(str(tmp_path), size=10)).splits
    assert sum(len(samples) for samples in splits) == 13
    assert all(whole(samples)[0].shape[1:] == (3, 10, 10) for samples in splits)


@pytest.mark.parametrize("augment", [FlipCrop(), Modern(crop="resized", erase=1.0)])
def test_augmentation_follows_the_seed_and_serves_training_alone(augment, tmp_path):
    write_folders(tmp_path, count=10)
    train, validation, _ = ready(ImageFolder(str(tmp_path), size=8, augment=augment)).splits
    state = torch.get_rng_state()
    first, again, other = (train[Draw(0, seed)][0] for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (3, 8, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(validation[Draw(0, 5)][0], validation[Draw(0, 6)][0])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_epoch_of_training_batches(workers, tmp_path):
    write_folders(tmp_path, count=10)
    data = ready(ImageFolder(str(tmp_path), size=8, batch_size=4, augment="rand", workers=workers))
    epochs = []
    for _ in range(2):
        torch.manual_seed(2)
        epochs.append(list(data.train_dataloader()))
    inputs, targets = (torch.cat(parts) for parts in zip(*epochs[0], strict=True))
    assert inputs.shape == (len(data.splits.train), 3, 8, 8)
    assert targets.bincount().tolist() == whole(data.splits.train)[1].bincount().tolist()
    assert torch.equal(inputs, torch.cat([part for part, _ in epochs[1]]))


def test_several_folders_are_tasks_with_a_column_each(tmp_path):
    write_folders(tmp_path / "insects", ("ant", "bee"), count=10)
    for part, count in (("train", 10), ("test", 5)):
        write_folders(tmp_path / "tools" / part, ("axe", "bit", "saw"), count=count)
    roots = [str(tmp_path / name) for name in ("insects", "tools")]
    data = ready(MultiTaskImages(roots, size=8, test=0.3, validation=0.2))
    assert data.num_classes == (2, 3)
    for samples in data.splits:
        _, targets = whole(samples)
        assert targets.shape == (len(samples), 2)
        for path, target in zip(paths(samples), targets.tolist(), strict=True):
            name = path.split("/")[-2]
            if "/insects/" in path:
                assert target == [["ant", "bee"].index(name), -1]
            else:
                assert target == [-1, ["axe", "bit", "saw"].index(name)]
    assert [len(samples) for samples in data.splits] == [12 + 24, 2 + 6, 6 + 15]
    batch = next(iter(data.train_dataloader()))
    assert batch[1].shape == (36, 2)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squares_are_resized_as_pil_does(interpolation):
    original = bytes_of(20, 40, 3)
    made = FitSquare(10, interpolation=interpolation)(
        torch.from_numpy(original).permute(2, 0, 1).contiguous()
    )
    mode = Image.Resampling[interpolation.upper()]
    resized = np.asarray(Image.fromarray(original).resize((20, 10), mode))
    assert np.abs(made.permute(1, 2, 0).numpy().astype(int) - resized[:, 5:15]).max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"crop_ratio": 1.5}, "crop_ratio must be.*at most 1, got 1.5"),
        ({"interpolation": "cubic"}, "interpolation must be 'bilinear' or 'bicubic', got"),
        ({"test": 0.0}, "test must lie between 0 and 1"),
        ({"roots": []}, "roots must be a list of folders"),
        ({"roots": "folder"}, "roots must be a list of folders.*got 'folder'"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message, tmp_path):
    write_folders(tmp_path)
    make = MultiTaskImages if "roots" in options else ImageFolder
    with pytest.raises(ValueError, match=message):
        make(**{**({} if "roots" in options else {"root": str(tmp_path)}), **options})
