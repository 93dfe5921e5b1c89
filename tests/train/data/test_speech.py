from __future__ import annotations

import hashlib
import tarfile
from itertools import chain

import pytest
import torch

from sizeless.train.data import speech
from sizeless.train.data.sound_features import MFCC, LogMel
from sizeless.train.data.speech import SpeechCommands

from .tiny_sounds import ready, whole, write_wav

WORDS = ["yes", "no"]


def clip(number, length=16000):
    """A clip that is known by its first samples."""
    samples = torch.randint(-99, 99, (length,), generator=torch.Generator().manual_seed(number))
    samples[:2] = torch.tensor([number, -number])
    return samples


@pytest.fixture
def root(tmp_path):
    """20 clips of each of two words and of one that is not asked for; a clip of each is short."""
    folder = tmp_path / speech.NAME
    for place, word in enumerate(("yes", "no", "cat")):
        for number in range(20):
            length = 9000 if number == 0 else 16000
            write_wav(
                folder / word / f"{number:02}_nohash_0.wav", clip(100 * place + number, length)
            )
    write_wav(folder / "_background_noise_" / "hum.wav", clip(0, 30000))
    lists = {"validation_list.txt": ("05", "06"), "testing_list.txt": ("00", "07", "08")}
    for name, numbers in lists.items():
        lines = [
            f"{word}/{number}_nohash_0.wav" for word in ("yes", "no", "cat") for number in numbers
        ]
        (folder / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def numbers(samples):
    """Which clips these are, from inputs as they are stored."""
    return samples.inputs[:, 0, 0].tolist()


def test_the_official_lists_make_the_splits(root):
    splits = ready(SpeechCommands(str(root), words=WORDS)).splits
    assert numbers(splits.validation) == [5, 6, 105, 106]
    assert numbers(splits.test) == [0, 7, 8, 100, 107, 108]
    held_out = {0, 5, 6, 7, 8}
    assert numbers(splits.train) == [
        100 * word + number for word in (0, 1) for number in range(20) if number not in held_out
    ]
    assert splits.test.targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_classes_follow_the_order_of_the_words(root):
    data = ready(SpeechCommands(str(root), words=["cat", "yes", "no"]))
    assert data.num_classes == 3
    assert data.splits.validation.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert numbers(data.splits.validation) == [205, 206, 5, 6, 105, 106]


def test_raw_clips_are_whole_and_standardised(root):
    splits = ready(SpeechCommands(str(root), words=WORDS)).splits
    train, _ = whole(splits.train)
    assert train.shape == (30, 1, 16000)
    assert train.dtype == torch.float32
    assert abs(train.mean()) < 1e-4
    assert abs(train.std(correction=0) - 1) < 1e-4
    stored = torch.stack([clip(number) for number in numbers(splits.validation)])
    raw = torch.stack([clip(number) for number in numbers(splits.train)]).double()
    expected = (stored - raw.mean()) / raw.std(correction=0)
    torch.testing.assert_close(whole(splits.validation)[0][:, 0], expected.float())


def test_short_clips_are_followed_by_silence(root):
    short = ready(SpeechCommands(str(root), words=WORDS)).splits.test.inputs[0, 0]
    assert torch.equal(short[:9000].long(), clip(0, 9000))
    assert not short[9000:].any()


def test_the_merged_split_takes_whole_clips_only(root):
    parts = [
        numbers(samples)
        for samples in ready(SpeechCommands(str(root), words=WORDS, split="merged")).splits
    ]
    assert [len(part) for part in parts] == [26, 6, 6]
    assert sorted(chain(*parts)) == [*range(1, 20), *range(101, 120)]
    assert [sum(number < 100 for number in part) for part in parts] == [13, 3, 3]
    other = ready(SpeechCommands(str(root), words=WORDS, split="merged", split_seed=1))
    assert numbers(other.splits.test) != parts[2]


def test_mfcc_of_every_clip(root):
    splits = ready(SpeechCommands(str(root), words=WORDS, features="mfcc")).splits
    train, _ = whole(splits.train)
    assert train.shape == (30, 20, 161)
    torch.testing.assert_close(train.mean((0, 2)), torch.zeros(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(train.std((0, 2), correction=0), torch.ones(20), atol=1e-4, rtol=0)
    expected = MFCC()(clip(105).float() / 2**15)
    torch.testing.assert_close(splits.validation.inputs[2], expected, atol=1e-3, rtol=1e-3)


def test_log_mel_of_every_clip(root):
    splits = ready(SpeechCommands(str(root), words=WORDS, features="logmel")).splits
    train, _ = whole(splits.train)
    assert train.shape == (30, 1, 101, 40)
    assert abs(train.mean()) < 1e-4
    expected = LogMel()(clip(105).float() / 2**15)
    torch.testing.assert_close(splits.validation.inputs[2, 0], expected, atol=1e-3, rtol=1e-3)


def test_every_stride_th_sample_is_kept(root):
    data = ready(SpeechCommands(str(root), words=WORDS, stride=3))
    assert torch.equal(data.splits.validation.inputs[0, 0].long(), clip(5)[::3])


def test_dropped_samples_are_marked(root):
    data = ready(SpeechCommands(str(root), words=WORDS, stride=2, drop=0.5))
    inputs, _ = whole(data.splits.validation)
    assert inputs.shape == (4, 2, 8000)
    assert (inputs[:, 1].sum(1) == 4000).all()
    assert (inputs[:, 0][inputs[:, 1] == 0] == 0).all()


def test_the_archive_is_unpacked_once(root, tmp_path, monkeypatch):
    archive = tmp_path / "elsewhere" / f"{speech.NAME}.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / speech.NAME, arcname=".")
    monkeypatch.setattr(speech, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    data = ready(SpeechCommands(str(archive.parent), words=WORDS))
    assert len(data.splits.train) == 30
    archive.unlink()
    assert len(ready(SpeechCommands(str(archive.parent), words=WORDS)).splits.train) == 30


def test_the_archive_is_downloaded_if_asked_for(root, tmp_path, monkeypatch):
    archive = tmp_path / "server.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / speech.NAME, arcname=".")
    monkeypatch.setattr(speech, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(speech, "URL", archive.as_uri())
    new = tmp_path / "new"
    with pytest.raises(FileNotFoundError, match=r"yes must hold.*set download=True, or put"):
        ready(SpeechCommands(str(new), words=WORDS))
    assert len(ready(SpeechCommands(str(new), download=True, words=WORDS)).splits.train) == 30


def test_the_official_archive_is_the_one_expected():
    assert speech.URL.endswith("/data/speech_commands_v0.02.tar.gz")
    assert [len(set(words)) for words in speech.WORDS.values()] == [10, 35]
    assert set(speech.WORDS["ten"]) < set(speech.WORDS["all"])
    assert SpeechCommands(words="all").num_classes == 35
    assert len(bytes.fromhex(speech.SHA256)) == 32


def test_missing_words_and_lists_are_refused(root):
    with pytest.raises(FileNotFoundError, match=r"zero must hold the wav files of 'zero'"):
        ready(SpeechCommands(str(root), words=["yes", "zero"]))
    (root / speech.NAME / "testing_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"testing_list.txt is missing.*split='merged'"):
        ready(SpeechCommands(str(root), words=WORDS))


def test_foreign_sounds_are_refused(root):
    write_wav(root / speech.NAME / "yes" / "99.wav", clip(1), rate=8000)
    with pytest.raises(ValueError, match=r"99.wav must have 1 channel of 16000 .* got 1 of 8000"):
        ready(SpeechCommands(str(root), words=WORDS))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"words": "yes"}, ValueError, "words must be 'ten' or 'all', got 'yes'"),
        ({"words": ["up", True]}, TypeError, "words must be 'ten', 'all' or a list of words"),
        ({"words": ["yes", "yes"]}, ValueError, "two or more different words"),
        ({"features": "mel"}, ValueError, "features must be 'raw', 'logmel' or 'mfcc', got 'mel'"),
        ({"split": "random"}, ValueError, "split must be 'official' or 'merged'"),
        ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"features": "mfcc", "drop": 0.3}, ValueError, "stride and drop are for features='raw'"),
        ({"features": "mfcc", "stride": 2}, ValueError, "stride and drop are for features='raw'"),
        ({"download": "yes"}, TypeError, "download must be True or False, got 'yes'"),
    ],
)
def test_wrong_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        SpeechCommands(**options)
