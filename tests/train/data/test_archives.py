from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from sizeless.train.data.archives import complete_folder, fetch, unpack


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "words.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo("./yes/a.wav")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    return path


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_and_checked(tmp_path, archive):
    target = tmp_path / "new" / "words.tar.gz"
    fetch(archive.as_uri(), target, digest(archive))
    assert target.read_bytes() == archive.read_bytes()


def test_a_file_with_another_checksum_is_not_kept(tmp_path, archive):
    target = tmp_path / "new" / "words.tar.gz"
    with pytest.raises(ValueError, match=r"gave another file than expected.*put the official"):
        fetch(archive.as_uri(), target, "0" * 64)
    assert names_in(target.parent) == []


def test_a_failed_download_says_where_the_file_would_go(tmp_path):
    target = tmp_path / "words.tar.gz"
    with pytest.raises(OSError, match=f"could not download file:.*put the file at {target}"):
        fetch((tmp_path / "nowhere").as_uri(), target, "0" * 64)


def test_an_archive_is_unpacked(tmp_path, archive):
    unpack(archive, tmp_path / "words", digest(archive))
    assert (tmp_path / "words" / "yes" / "a.wav").read_bytes() == b"abc"
    assert names_in(tmp_path) == ["words", "words.tar.gz"]


def test_another_archive_is_refused(tmp_path, archive):
    with pytest.raises(ValueError, match=f"{archive} is not the official archive.*expected 000"):
        unpack(archive, tmp_path / "words", "0" * 64)
    assert names_in(tmp_path) == ["words.tar.gz"]


@pytest.mark.parametrize("content", [b"no archive at all", None])
def test_half_an_archive_leaves_no_folder(tmp_path, archive, content):
    archive.write_bytes(archive.read_bytes()[:-20] if content is None else content)
    with pytest.raises(ValueError, match=f"{archive} cannot be unpacked.*download it again"):
        unpack(archive, tmp_path / "words", digest(archive))
    assert names_in(tmp_path) == ["words.tar.gz"]


def test_files_outside_the_folder_are_refused(tmp_path):
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../evil.txt"), io.BytesIO())
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "words", digest(archive))
    assert names_in(tmp_path) == ["evil.tar.gz"]


def test_the_first_of_two_processes_makes_the_folder(tmp_path):
    with complete_folder(tmp_path / "set") as mine:
        (mine / "who").write_text("second")
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "who").write_text("first")
    assert (tmp_path / "set" / "who").read_text() == "first"
    assert names_in(tmp_path) == ["set"]


def test_a_folder_that_cannot_be_put_in_place_is_an_error(tmp_path):
    with pytest.raises(OSError, match="set"), complete_folder(tmp_path / "set"):
        (tmp_path / "set").write_text("a file")
    assert names_in(tmp_path) == ["set"]
