from __future__ import annotations

import builtins
import shutil
from itertools import chain

import pytest
import torch

from sizeless.train.data.loading import Draw
from sizeless.train.data.sound import MultiSoundFolder, SoundFolder
from sizeless.train.data.sound_features import LogMel
from sizeless.train.data.sound_files import find_sounds, read_sound

from .tiny_sounds import ready, tone, whole, write_wav

SMALL = {"sample_rate": 8000, "length": 400, "features": "raw"}


def levels(samples):
    """The level of every file, by which it is known."""
    return [round(read_sound(path)[0].max().item() * 2**15) for path, _ in samples.source]


@pytest.fixture
def folder(tmp_path):
    """Two classes of 20 and 10 files, each of its own level."""
    for number in range(20):
        write_wav(tmp_path / "bark" / f"{number:02}.wav", tone(100 + number), 8000)
    for number in range(10):
        write_wav(tmp_path / "meow" / "deep" / f"{number}.WAV", tone(200 + number), 8000)
    (tmp_path / "bark" / "notes.txt").write_text("no sound")
    write_wav(tmp_path / ".cache" / "a.wav", tone(1))
    write_wav(tmp_path / "_noise_" / "a.wav", tone(1))
    return tmp_path


def test_wav_files_are_read_exactly(tmp_path):
    samples = torch.tensor([[0, 1, -32768, 32767], [5, 6, 7, 8]])
    write_wav(tmp_path / "a.wav", samples, 11025)
    sound, rate = read_sound(str(tmp_path / "a.wav"))
    assert rate == 11025
    assert (sound * 2**15).tolist() == samples.tolist()


def test_other_files_are_read_by_soundfile(tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="soundfile comes with the audio extra")
    samples = torch.tensor([[0.5, -0.25, 0.125, 0.0]])
    for name, subtype in (("a.wav", "PCM_24"), ("b.flac", "PCM_24"), ("c.wav", "FLOAT")):
        soundfile.write(tmp_path / name, samples[0].numpy(), 8000, subtype=subtype)
        sound, rate = read_sound(str(tmp_path / name))
        assert rate == 8000
        assert torch.equal(sound, samples)


def test_foreign_files_are_refused_by_soundfile(tmp_path):
    pytest.importorskip("soundfile", reason="soundfile comes with the audio extra")
    (tmp_path / "a.flac").write_bytes(b"no sound at all, only words")
    with pytest.raises(ValueError, match=r"a.flac cannot be read as sound.*convert it to wav"):
        read_sound(str(tmp_path / "a.flac"))


def test_without_soundfile_other_files_are_refused(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "soundfile":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "a.flac").write_bytes(b"fLaC and so on")
    with pytest.raises(ImportError, match=r"a.flac is no wav file.*sizeless\[audio\]"):
        read_sound(str(tmp_path / "a.flac"))


def test_wav_files_that_are_cut_off_or_empty_are_refused(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, tone(9, 100))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"a.wav is cut off: it announces 100 .* and holds 75"):
        read_sound(str(path))
    write_wav(path, torch.zeros(0))
    with pytest.raises(ValueError, match=r"a.wav holds no sound: remove it"):
        read_sound(str(path))


def test_a_folder_is_split_by_class_and_seed(folder):
    data = ready(SoundFolder(str(folder), **SMALL))
    assert data.num_classes == 2
    assert data.folders.classes == ("bark", "meow")
    parts = [levels(samples) for samples in data.splits]
    assert [len(part) for part in parts] == [21, 3, 6]
    assert sorted(chain(*parts)) == [*range(100, 120), *range(200, 210)]
    for samples in data.splits:
        _, targets = whole(samples)
        assert targets.tolist() == [level // 200 for level in levels(samples)]
        assert targets.bincount().tolist() == [2 * len(targets) // 3, len(targets) // 3]
    again = ready(SoundFolder(str(folder), **SMALL))
    other = ready(SoundFolder(str(folder), split_seed=1, **SMALL))
    assert [levels(samples) for samples in again.splits] == parts
    assert levels(other.splits.test) != parts[2]


def test_a_split_that_is_given_is_kept(tmp_path):
    for number, name in enumerate(("train/a", "train/b", "val/a", "test/b"), 1):
        write_wav(tmp_path / name / "x.wav", tone(number), 8000)
    data = ready(SoundFolder(str(tmp_path), **SMALL))
    assert [levels(samples) for samples in data.splits] == [[1, 2], [3], [4]]
    assert [whole(samples)[1].tolist() for samples in data.splits] == [[0, 1], [0], [1]]
    shutil.rmtree(tmp_path / "val")
    for number in range(9):
        write_wav(tmp_path / "train" / "b" / f"{number}.wav", tone(10 + number), 8000)
    data = ready(SoundFolder(str(tmp_path), **SMALL))
    assert levels(data.splits.test) == [4]
    assert [len(samples) for samples in data.splits] == [10, 1, 1]


def test_inputs_are_standardised_by_the_training_files(folder):
    data = ready(SoundFolder(str(folder), **SMALL))
    train, _ = whole(data.splits.train)
    assert train.shape == (21, 1, 400)
    assert abs(train.mean()) < 1e-5
    assert abs(train.std(correction=0) - 1) < 1e-5
    scale = torch.tensor(levels(data.splits.train)).double().square().mean().sqrt()
    expected = torch.tensor(levels(data.splits.test)) / scale
    torch.testing.assert_close(whole(data.splits.test)[0].amax((1, 2)), expected.float())


@pytest.mark.parametrize(("features", "shape"), [("logmel", (1, 101, 40)), ("mfcc", (20, 161))])
def test_features_of_every_kind(folder, features, shape):
    data = ready(SoundFolder(str(folder), features=features, batch_size=4))
    inputs, targets = next(iter(data.val_dataloader()))
    assert inputs.shape == (3, *shape)
    assert inputs.isfinite().all()
    assert targets.dtype == torch.int64


def test_feature_options_reach_the_features(folder):
    options = {"n_mels": 12, "high": 4000.0}
    data = ready(SoundFolder(str(folder), sample_rate=8000, length=400, feature_options=options))
    path, _ = data.splits.test.source[0]
    clip = data.splits.test.transform
    inputs = clip(path) * clip.deviation + clip.mean
    expected = LogMel(8000, **options)(read_sound(path)[0])
    torch.testing.assert_close(inputs, expected, atol=1e-4, rtol=1e-4)


def test_longer_sounds_are_cropped_and_shorter_ones_followed_by_silence(tmp_path):
    ramp = torch.arange(1000)
    for name in ("train/a", "train/b", "val/a", "test/a"):
        write_wav(tmp_path / name / "long.wav", ramp, 8000)
    write_wav(tmp_path / "test" / "b" / "short.wav", ramp[:100], 8000)
    data = ready(SoundFolder(str(tmp_path), **SMALL))
    clip = data.splits.test.transform
    crop, short = (whole(data.splits.test)[0] * clip.deviation + clip.mean).mul(2**15).round()[:, 0]
    assert crop.tolist() == list(range(300, 700))
    assert short.tolist() == [*range(100), *[0] * 300]


def test_training_crops_follow_the_seed_of_the_draw(tmp_path):
    for name in ("train/a", "val/a", "test/a"):
        write_wav(tmp_path / name / "long.wav", torch.arange(1000), 8000)
    splits = ready(SoundFolder(str(tmp_path), **SMALL)).splits

    def crops(samples, seeds):
        return [round((samples[Draw(0, seed)][0]).min().item(), 3) for seed in seeds]

    state = torch.get_rng_state()
    starts = crops(splits.train, range(20))
    assert torch.equal(torch.get_rng_state(), state)
    assert starts == crops(splits.train, range(20))
    assert len(set(starts)) > 10
    assert len(set(crops(splits.test, range(20)))) == 1


def test_rates_and_channels_are_brought_to_one(tmp_path):
    still = torch.full((2, 800), 1000)
    still[1] = 3000
    for name in ("train/a", "val/a", "test/a"):
        write_wav(tmp_path / name / "stereo.wav", still, 16000)
    data = ready(SoundFolder(str(tmp_path), **SMALL))
    clip = data.splits.test.transform
    inputs = (whole(data.splits.test)[0] * clip.deviation + clip.mean) * 2**15
    assert inputs.shape == (1, 1, 400)
    assert abs(inputs[..., 50:-50].mean() - 2000) < 5


def test_folders_are_one_set_of_several_tasks(folder, tmp_path):
    other = tmp_path / "other"
    for name in ("train/x", "train/y", "train/z", "val/x", "test/z"):
        write_wav(other / name / "1.wav", tone(7), 8000)
    shutil.rmtree(tmp_path / ".cache")
    first = tmp_path / "first"
    first.mkdir()
    for name in ("bark", "meow"):
        (tmp_path / name).rename(first / name)
    data = ready(MultiSoundFolder([str(first), str(other)], batch_size=8, **SMALL))
    assert data.num_classes == (2, 3)
    targets = [whole(samples)[1] for samples in data.splits]
    assert [part.shape for part in targets] == [(24, 2), (4, 2), (7, 2)]
    for part in targets:
        assert ((part >= 0).sum(1) == 1).all()
    assert targets[0][:, 1].tolist() == [-1] * 21 + [0, 1, 2]
    assert targets[2][-1].tolist() == [-1, 2]
    inputs, labels = next(iter(data.train_dataloader()))
    assert inputs.shape == (8, 1, 400)
    assert labels.shape == (8, 2)


def test_missing_and_foreign_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere must hold a folder of sound files"):
        SoundFolder(str(tmp_path / "nowhere"))
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"empty must hold.*found none: check the path"):
        SoundFolder(str(tmp_path / "empty"))
    write_wav(tmp_path / "half" / "train" / "a" / "1.wav", tone(1))
    with pytest.raises(FileNotFoundError, match="half/test must hold"):
        SoundFolder(str(tmp_path / "half"))
    write_wav(tmp_path / "half" / "test" / "b" / "1.wav", tone(1))
    with pytest.raises(ValueError, match=r"test/b is a class that the training files have not.* a"):
        SoundFolder(str(tmp_path / "half"))


def test_folders_too_small_to_split_are_refused(tmp_path):
    for name in "ab":
        write_wav(tmp_path / name / "1.wav", tone(1), 8000)
    with pytest.raises(ValueError, match="has too few samples to split: 2 would be for training"):
        ready(SoundFolder(str(tmp_path), **SMALL))


def test_files_are_found_in_the_order_of_their_names(folder):
    files = find_sounds(folder).train
    assert [path for path, _ in files] == sorted(path for path, _ in files)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sample_rate": 0}, ValueError, "sample_rate must be at least 1, got 0"),
        ({"length": 0}, ValueError, "length must be at least 1, got 0"),
        ({"features": "mel"}, ValueError, "features must be 'raw', 'logmel' or 'mfcc'"),
        ({"test": 1.0}, ValueError, "test must lie between 0 and 1"),
    ],
)
def test_wrong_arguments_are_refused(folder, options, error, message):
    with pytest.raises(error, match=message):
        SoundFolder(str(folder), **options)


@pytest.mark.parametrize("roots", [[], "sounds"])
def test_one_folder_is_no_list_of_folders(roots):
    with pytest.raises(TypeError, match="roots must be a list of one or more folders"):
        MultiSoundFolder(roots)
