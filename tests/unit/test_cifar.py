"""CIFAR's batches are read from the bytes whose md5 was checked; nothing in them is run."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from winnow.errors import WinnowError
from winnow.vision import cifar


class Python2(pickle._Pickler):  # type: ignore[name-defined]
    """Writes texts and bytes as Python 2 did."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]  # noqa: RUF012

    def save_string(self, value) -> None:
        data = value if isinstance(value, bytes) else value.encode()
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


class Kind:
    """What torchvision's classes say of their files."""

    base_folder = "batches"
    train_list: list[tuple[str, str]] = []  # noqa: RUF012
    test_list: list[tuple[str, str]] = []  # noqa: RUF012


def batch(folder: Path, name: str, content) -> tuple[str, str]:
    """A batch as the published ones are: pickled by Python 2, whose texts and bytes are one type."""
    stream = io.BytesIO()
    Python2(stream, 2).dump(content)
    data = stream.getvalue()
    (folder / "batches").mkdir(exist_ok=True)
    (folder / "batches" / name).write_bytes(data)
    return name, hashlib.md5(data).hexdigest()


@pytest.mark.parametrize("label", ["labels", "fine_labels"])
def test_batches_are_read_as_torchvision_reads_them(tmp_path, label, monkeypatch):
    from winnow.compat import torchvision

    generator = np.random.default_rng(0)
    parts = [
        {
            "data": generator.integers(0, 256, (5, 3072), np.uint8),
            label: [3, 1, 4, 1, 5],
            "batch_label": "b",
            "filenames": ["a"],
        }
        for _ in range(2)
    ]
    monkeypatch.setattr(Kind, "train_list", [batch(tmp_path, f"data_batch_{i}", part) for i, part in enumerate(parts)])
    images, labels = cifar.read(tmp_path, Kind, True)
    real = torchvision().datasets.CIFAR10
    for name in ("base_folder", "train_list", "test_list"):
        monkeypatch.setattr(real, name, getattr(Kind, name))
    monkeypatch.setattr(real, "_load_meta", lambda self: None)
    theirs = real(str(tmp_path), train=True)
    assert (images == theirs.data.transpose(0, 3, 1, 2)).all() and labels.tolist() == theirs.targets


class Code:
    def __reduce__(self):
        return Path.mkdir, (Path("code was run"),)


def test_a_batch_with_code_or_of_another_md5_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Kind, "test_list", [batch(tmp_path, "test_batch", {"data": Code(), "labels": []})])
    with pytest.raises(WinnowError, match="is no batch of CIFAR"):
        cifar.read(tmp_path, Kind, False)
    assert not Path("code was run").exists()
    for content in ([1], {"data": np.zeros((1, 3072), np.uint8)}, b"torn"):
        with pytest.raises(WinnowError, match="is no batch"):
            cifar.unpickled(
                pickle.dumps(content, protocol=2)[:-1] if content == b"torn" else pickle.dumps(content, protocol=2),
                tmp_path,
            )
    (tmp_path / "batches/test_batch").write_bytes(pickle.dumps({}))
    with pytest.raises(WinnowError, match="its md5 differs"):
        cifar.read(tmp_path, Kind, False)
    (tmp_path / "batches/test_batch").unlink()
    with pytest.raises(FileNotFoundError):
        cifar.read(tmp_path, Kind, False)
