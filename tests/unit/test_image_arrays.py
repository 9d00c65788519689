"""Image sets stored as arrays: labels as other tools write them, or one line that says which label is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.schema import parse
from winnow.vision.sources import load


def npz(path: Path, y, test_y=None, x=None):
    y = np.asarray(y)
    x = np.zeros((len(y), 8, 8, 3), np.uint8) if x is None else x
    test_y = y if test_y is None else np.asarray(test_y)
    np.savez(path / "d.npz", train_images=x, train_labels=y, test_images=x[: len(test_y)], test_labels=test_y)
    return load(parse(Data, {"dataset": "npz", "path": "d.npz", "val_images": 4}), path)


Y = np.arange(12) % 3


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(Y, Y), (Y[:, None].astype(np.uint8), Y), (np.eye(3)[Y], Y), (np.eye(3, dtype=bool)[Y], Y),
     (Y.astype(np.float32), Y),
     (Y + 1, Y + 1), (Y == 1, Y == 1), (np.array(["emu", "cat", "dog"])[Y], np.array([2, 0, 1])[Y]),
     (np.array([b"emu", b"cat", b"dog"])[Y], np.array([2, 0, 1])[Y])],
    ids=["(N,)", "(N,1)", "one-hot", "one-hot booleans", "whole floats", "from 1", "booleans", "names",
     "names as bytes"],
)  # fmt: skip
def test_labels_in_an_npz(tmp_path, labels, expected):
    assert np.array_equal(npz(tmp_path, labels).test.labels, expected.astype(np.int64))


@pytest.mark.parametrize(
    ("labels", "said"),
    [(np.where(Y == 2, -1, Y), r"train_labels[2]: -1 is no class number (4 such labels"),
     (Y + 0.5, "train_labels[0]: 0.5"),
     (np.where(Y == 1, np.nan, Y), "train_labels[1]: nan"), (Y * 1e9, "train_labels[1]: 1000000000.0"),
     (np.ones((12, 3)), "that are not one-hot"), (np.ones((12, 2, 2)), "labels of shape (12, 2, 2)"),
     (Y + 1j, "complex128"),
     (np.array(["cat", " ", "dog"])[Y], "train_labels[1]: blank"), (np.array(5), "N labels expected")],
)  # fmt: skip
def test_labels_that_are_none(tmp_path, labels, said):
    with pytest.raises(WinnowError) as error:
        npz(tmp_path, labels, x=np.zeros((12, 8, 8, 3), np.uint8), test_y=Y if labels.ndim == 0 else None)
    assert said in str(error.value)


def test_names_are_numbered_over_both_splits(tmp_path):
    assert npz(tmp_path, ["b", "a", "c"] * 4, ["c", "b"]).test.labels.tolist() == [2, 1]
    with pytest.raises(WinnowError, match="class 'd' has no training image"):
        npz(tmp_path, ["b", "a", "c"] * 4, ["c", "d"])
    with pytest.raises(WinnowError, match="names in one, numbers in the other"):
        npz(tmp_path, ["b", "a", "c"] * 4, [0, 1])


@pytest.mark.parametrize("shape", [(12, 3, 8, 8), (12, 1, 8, 8), (12, 8, 8, 4), (12, 0, 8, 3), (12,)])
def test_images_of_other_layouts_are_refused(tmp_path, shape):
    with pytest.raises(WinnowError, match=r"\(N,H,W,C\)|is empty"):
        npz(tmp_path, Y, x=np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(12, 8, 8), (12, 8, 8, 1), (12, 8, 8, 3)])
def test_grey_images_are_repeated_and_colours_keep_their_order(tmp_path, shape):
    x = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    found = npz(tmp_path, Y, x=x).test.images
    assert found.shape == (12, 3, 8, 8) and found.dtype == np.uint8 and found.flags.c_contiguous
    for channel in range(3):
        expected = x if x.ndim == 3 else x[..., channel if x.shape[-1] == 3 else 0]
        assert np.array_equal(found[:, channel], expected)


class Runs:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_arrays_of_objects_are_never_unpickled(tmp_path):
    arrays = {name: np.zeros((12, 8, 8, 3), np.uint8) for name in ("train_images", "test_images")}
    labels = np.array([Runs(tmp_path / "ran")] * 12, dtype=object)
    np.savez(tmp_path / "d.npz", **arrays, train_labels=labels, test_labels=labels)
    with pytest.raises(WinnowError, match=r"d\.npz"):
        load(parse(Data, {"dataset": "npz", "path": "d.npz", "val_images": 4}), tmp_path)
    assert not (tmp_path / "ran").exists()
