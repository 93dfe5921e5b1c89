from __future__ import annotations

import sys
from itertools import chain

import pytest
import torch

from sizeless.train.data.timeseries import CharacterTrajectories, TimeSeries
from sizeless.train.data.ts_files import padded, read_header, read_ts

from .tiny_sounds import ready, whole

UNEQUAL = """\
# A comment
%another
@problemName Toy
@timeStamps false
@missing true
@univariate false
@dimensions 2
@equalLength false
@classLabel true b a

@data
1.0,2.0,3.0:10,20,30:a
4,?:NaN,50:b
-5e-1:6:a
"""

EQUAL = """\
@problemname Toy
@univariate true
@equallength true
@serieslength 3
@classlabel true 10 9
@data
1,2,3:9
4,5,6:10
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="Toy_TRAIN.ts"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


def series_file(levels, classes=("x", "y"), channels=2, length=6):
    """Series that are known by their first value; the class changes from one to the next."""
    head = f"@problemName Toy\n@equalLength true\n@seriesLength {length}\n"
    head += f"@classLabel true {' '.join(classes)}\n@data\n"
    lines = []
    for place, level in enumerate(levels):
        series = [
            [(channel + 1) * (level + step) for step in range(length)]
            for channel in range(channels)
        ]
        values = ":".join(",".join(map(str, channel)) for channel in series)
        lines.append(f"{values}:{classes[place % len(classes)]}\n")
    return head + "".join(lines)


@pytest.fixture
def root(write, tmp_path):
    write(series_file(range(100, 140)), "Toy/Toy_TRAIN.ts")
    write(series_file(range(200, 220)), "Toy/Toy_TEST.ts")
    return str(tmp_path)


def known_by(samples):
    return samples.inputs[:, 0, 0].tolist()


def test_series_of_several_lengths_and_channels_are_read(write):
    header, cases = read_ts(write(UNEQUAL))
    assert header.classes == ("a", "b")
    assert header.length is None
    assert [case.target for case in cases] == [0, 1, 0]
    assert [[len(channel) for channel in case.channels] for case in cases] == [
        [3, 3],
        [2, 2],
        [1, 1],
    ]
    assert cases[1].channels[0].nan_to_num(-1).tolist() == [4, -1]
    assert padded(cases, 4).tolist() == [
        [[1, 2, 3, 3], [10, 20, 30, 30]],
        [[4, 4, 4, 4], [50, 50, 50, 50]],
        [[-0.5] * 4, [6] * 4],
    ]


def test_a_channel_without_values_is_zero(write):
    _, cases = read_ts(write(UNEQUAL.replace("4,?", "?,?")))
    assert padded(cases, 3)[1, 0].tolist() == [0, 0, 0]


def test_classes_are_numbered_in_the_order_of_their_numbers(write):
    path = write(EQUAL)
    assert read_header(path) == (("9", "10"), 3)
    assert [case.target for case in read_ts(path)[1]] == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("@data", "data"), "Toy_TRAIN.ts is no .ts file: it must have a head"),
        (("@classlabel true 10 9", "@targetlabel true"), "must name its classes.*no set for class"),
        (("@univariate true", "@timestamps true"), "has time stamps, which are not supported"),
        (
            ("4,5,6:10", "4,5,6:8"),
            "line 8 of .*Toy_TRAIN.ts must end with one of .* 9, 10, got '8'",
        ),
        (("4,5,6:10", "4,5,6"), "line 8 of .* must end with one of the classes 9, 10, got '4,5,6'"),
        (("4,5,6:10", "4,5:10"), r"line 8 of .* must have 3 values in each channel.*got \[2\]"),
        (("4,5,6:10", "4,five,6:10"), "line 8 of .* must hold numbers.*five"),
        (
            ("4,5,6:10", "4,5,6:7,8,9:10"),
            r"must hold series of one number of channels, got \[1, 2\]",
        ),
        (("1,2,3:9\n4,5,6:10\n", ""), "must hold series of one number of channels, got none"),
        ((EQUAL, "\0\1\2"), "is no .ts file"),
    ],
)
def test_foreign_and_damaged_files_are_refused(write, change, message):
    with pytest.raises(ValueError, match=message):
        read_ts(write(EQUAL.replace(*change)))


def test_bytes_that_are_no_text_are_refused(write):
    path = write(EQUAL)
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match=r"is no .ts file"):
        read_ts(path)


def test_the_official_split_is_kept(root):
    splits = ready(TimeSeries("Toy", root)).splits
    assert known_by(splits.test) == list(range(200, 220))
    assert sorted(known_by(splits.train) + known_by(splits.validation)) == list(range(100, 140))
    assert splits.validation.targets.bincount().tolist() == [4, 4]
    assert splits.test.targets.tolist() == [0, 1] * 10
    other = ready(TimeSeries("Toy", root, split_seed=1)).splits
    assert known_by(other.validation) != known_by(splits.validation)
    assert known_by(ready(TimeSeries("Toy", root)).splits.validation) == known_by(splits.validation)


def test_the_merged_split_takes_its_parts_of_all_series(root):
    splits = ready(TimeSeries("Toy", root, split="merged")).splits
    parts = [known_by(samples) for samples in splits]
    assert sorted(chain(*parts)) == [*range(100, 140), *range(200, 220)]
    assert [samples.targets.bincount().tolist() for samples in splits] == [[21, 21], [5, 5], [4, 4]]


def test_channels_are_standardised_and_time_steps_are_not(root):
    data = ready(TimeSeries("Toy", root))
    assert data.num_classes == 2
    train, _ = whole(data.splits.train)
    assert train.shape == (32, 2, 6)
    torch.testing.assert_close(train.mean((0, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std((0, 2), correction=0), torch.ones(2))
    assert (train.diff(dim=-1) > 0).all()


def test_dropped_steps_are_marked(root):
    inputs, _ = whole(ready(TimeSeries("Toy", root, drop=0.5)).splits.test)
    assert inputs.shape == (20, 3, 6)
    assert (inputs[:, 2].sum(1) == 3).all()


def test_series_are_padded_to_the_longest_of_the_set(write, tmp_path):
    lines = "1,2,3:x\n4,5,6,7:y\n" * 10
    head = "@problemName Toy\n@equalLength false\n@classLabel true x y\n@data\n"
    write(head + lines)
    write(head + "1,2,3,4,9:x\n", "Toy_TEST.ts")
    splits = ready(TimeSeries("Toy", str(tmp_path))).splits
    assert splits.train.inputs[splits.train.targets == 0][0].tolist() == [[1, 2, 3, 3, 3]]
    assert splits.test.inputs.tolist() == [[[1, 2, 3, 4, 9]]]


def test_character_trajectories_are_merged(write, tmp_path):
    letters = tuple(str(letter) for letter in range(1, 21))
    for name, start in (("TRAIN", 0), ("TEST", 200)):
        text = series_file(range(start, start + 200), letters, channels=3)
        write(text, f"CharacterTrajectories/CharacterTrajectories_{name}.ts")
    data = ready(CharacterTrajectories(str(tmp_path), drop=0.3))
    assert data.num_classes == 20
    assert [len(samples) for samples in data.splits] == [280, 60, 60]
    inputs, _ = next(iter(data.train_dataloader()))
    assert inputs.shape == (32, 4, 6)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Toy_TRAIN.ts and Toy_TEST.ts must lie.*download"):
        TimeSeries("Toy", str(tmp_path))


def test_parts_of_different_sets_are_refused(write, root):
    write(series_file(range(20), classes=("x", "z")), "Toy/Toy_TEST.ts")
    with pytest.raises(ValueError, match=r"Toy_TEST.ts must have the classes .* got x, z and 2"):
        ready(TimeSeries("Toy", root))
    write(series_file(range(20), channels=1), "Toy/Toy_TEST.ts")
    with pytest.raises(ValueError, match=r"Toy_TEST.ts must have the classes .* got x, y and 1"):
        ready(TimeSeries("Toy", root))


def test_sets_too_small_to_split_are_refused(write, tmp_path):
    write(series_file(range(4)))
    write(series_file(range(4)), "Toy_TEST.ts")
    with pytest.raises(
        ValueError, match=r"Toy has too few samples to split: 4 .* 0 for validation"
    ):
        ready(TimeSeries("Toy", str(tmp_path)))


@pytest.fixture
def aeon(tmp_path, monkeypatch):
    """A stand-in for the aeon package, which ships one set and can download another."""
    package = tmp_path / "site" / "aeon"
    shipped = package / "datasets" / "data" / "Shipped"
    shipped.mkdir(parents=True)
    for part in ("TRAIN", "TEST"):
        (shipped / f"Shipped_{part}.ts").write_text(series_file(range(20)))
    (package / "__init__.py").write_text("")
    (package / "datasets" / "__init__.py").write_text(
        "from pathlib import Path\n"
        "def load_classification(name, split, extract_path):\n"
        "    if name != 'Toy':\n"
        "        raise ValueError('no such set')\n"
        "    folder = Path(extract_path) / name\n"
        "    folder.mkdir()\n"
        "    for part in ('TRAIN', 'TEST'):\n"
        f"        (folder / f'Toy_{{part}}.ts').write_text({series_file(range(20))!r})\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    for name in [name for name in sys.modules if name.split(".")[0] == "aeon"]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "aeon"]:
        del sys.modules[name]


def test_sets_that_aeon_ships_need_no_files(aeon, tmp_path):
    assert len(ready(TimeSeries("Shipped", str(tmp_path))).splits.test) == 20


def test_sets_are_downloaded_through_aeon(aeon, tmp_path):
    assert len(ready(TimeSeries("Toy", str(tmp_path / "new"), download=True)).splits.test) == 20
    assert sorted(path.name for path in (tmp_path / "new").rglob("*")) == [
        "Toy",
        "Toy_TEST.ts",
        "Toy_TRAIN.ts",
    ]
    # What is there is not downloaded again.
    (tmp_path / "new" / "Toy" / "mine").touch()
    TimeSeries("Toy", str(tmp_path / "new"), download=True)
    assert (tmp_path / "new" / "Toy" / "mine").exists()


def test_failed_downloads_name_the_remedy(aeon, tmp_path):
    with pytest.raises(
        OSError, match=r"could not download Nothing \(no such set\): check the name"
    ):
        TimeSeries("Nothing", str(tmp_path / "new"), download=True)
    assert list((tmp_path / "new").iterdir()) == []


def test_downloads_need_aeon(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'sizeless\[timeseries\]'"):
        TimeSeries("NoSuchSet", str(tmp_path), download=True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "random"}, ValueError, "split must be 'official' or 'merged', got 'random'"),
        ({"download": 1}, TypeError, "download must be True or False, got 1"),
        ({"validation": 0.0}, ValueError, "validation must lie between 0 and 1"),
    ],
)
def test_wrong_arguments_are_refused(root, options, error, message):
    with pytest.raises(error, match=message):
        TimeSeries("Toy", root, **options)
