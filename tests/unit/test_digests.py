"""Large inputs are read once: their digest is remembered as long as names, sizes and times stay, and only then."""

from __future__ import annotations

import os

import pytest

from winnow import digests
from winnow.artifacts import sha256_file
from winnow.digests import remembered


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of files an hour old; images.read() counts how often contents were read since the last call."""
    folder, reads = tmp_path / "set", []
    for i in range(3):
        (folder / f"class{i}").mkdir(parents=True)
        (folder / f"class{i}/a.jpg").write_bytes(bytes([i] * 9))
    monkeypatch.setattr(digests, "sha256_file", lambda path: reads.append(path) or sha256_file(path))
    monkeypatch.setattr(digests, "SETTLED", -1.0)

    class Images:
        memory = tmp_path / "memory"

        def __call__(self):
            found = remembered(folder, self.memory)
            count = len(reads)
            reads.clear()
            return found, count

    made = Images()
    made.folder = folder
    return made


def test_contents_are_read_once(images):
    whole = sha256_file(images.folder)
    assert images() == (whole, 1)
    assert images() == (whole, 0) and images() == (whole, 0)
    assert images.memory.stat().st_mode & 0o777 == 0o700


def edited(folder):
    (folder / "class1/a.jpg").write_bytes(b"otherwise")  # of the same size


def rewritten(folder):
    file = folder / "class1/a.jpg"
    before = file.stat()
    file.write_bytes(b"otherwise")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times: its change time differs


@pytest.mark.parametrize(
    "change",
    [
        edited,
        rewritten,
        lambda f: (f / "class0/b.jpg").write_bytes(b"new"),
        lambda f: (f / "class2/a.jpg").unlink(),
        lambda f: (f / "class2/a.jpg").rename(f / "class2/b.jpg"),
    ],
    ids=["edited", "edited, time set back", "added", "removed", "renamed"],
)
def test_a_change_is_read_again(images, change):
    before, _ = images()
    change(images.folder)
    after, reads = images()
    assert reads == 1 and after == sha256_file(images.folder) != before
    assert images() == (after, 0)


def test_what_was_written_just_now_is_not_remembered(images, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED", 3600.0)
    assert [images()[1] for _ in range(2)] == [1, 1] and not images.memory.exists()


@pytest.mark.parametrize("damage", [b"", b"{}", b"[" * 9, None])
def test_a_damaged_memory_is_no_memory(images, damage):
    whole, _ = images()
    (note,) = images.memory.iterdir()
    note.write_bytes(note.read_bytes().replace(whole.encode(), b"0" * 64) if damage is None else damage)
    assert images() == (whole, 1)


def test_a_memory_that_cannot_be_kept_is_none(images):
    images.memory.write_text("a file")
    assert [images()[1] for _ in range(2)] == [1, 1]
