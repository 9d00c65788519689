"""Image sets stored as arrays (.npz): what the arrays must be, and labels as other tools write them."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from winnow import outside
from winnow.errors import WinnowError

log = logging.getLogger("winnow")
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
LARGEST_LABEL = 2**16  # beyond it a "label" is an identifier: a classifier with so many outputs would not fit


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The images of both splits as uint8 (N,3,H,W) and their labels as int64 (N,), numbered alike in both.

    Images are stored as uint8 (N,H,W,3), (N,H,W,1) or (N,H,W); labels as class numbers (N,) or (N,1), one-hot rows, or
    names (numbered in sorted order). Raises WinnowError for anything else.
    """
    outside.regular(path, missing=f"data.path names an .npz with {', '.join(ARRAYS)} below data_root")
    outside.check_zip(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [k for k in ARRAYS if k not in stored]
            if missing:
                raise WinnowError(f"{path}: holds no array {missing[0]!r}; expected {', '.join(ARRAYS)}")
            arrays = {k: stored[k] for k in ARRAYS}
    except (
        ValueError,
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        zlib.error,
        MemoryError,
    ) as error:
        raise WinnowError(f"{path}: not a readable .npz of plain arrays ({error})") from None
    found = {k: as_images(arrays[k], f"{path}: {k}") for k in ARRAYS if k.endswith("images")}
    for split in ("train", "test"):
        images, labels = found[f"{split}_images"], arrays[f"{split}_labels"]
        if labels.ndim == 0 or len(labels) != len(images):
            raise WinnowError(
                f"{path}: {len(images)} {split}_images with N labels expected, got {split}_labels {labels.shape}"
            )
    numbers = as_numbers(
        [arrays["train_labels"], arrays["test_labels"]], [f"{path}: {k}" for k in ARRAYS if "labels" in k]
    )
    return found | dict(zip(("train_labels", "test_labels"), numbers, strict=True))


def as_images(images: np.ndarray, where: str) -> np.ndarray:
    """uint8 (N,3,H,W) of uint8 (N,H,W), (N,H,W,1) or (N,H,W,3)."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise WinnowError(f"{where}: images must be uint8 (N,H,W,C), got {images.dtype} {images.shape}")
    if 0 in images.shape:
        raise WinnowError(f"{where}: the dataset is empty, its shape is {images.shape}")
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[-1] not in (1, 3):
        hint = "transpose(0, 2, 3, 1) them" if images.shape[1] in (1, 3) else "keep 1 or 3 channels"
        raise WinnowError(f"{where}: images must be (N,H,W,C) with C 1 or 3, got {images.shape}; {hint}")
    images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images)


def as_numbers(labels: Sequence[np.ndarray], where: Sequence[str]) -> list[np.ndarray]:
    """Class numbers int64 (N,) of each split's labels; names are numbered over all splits together, in sorted order."""
    flat = [_flat(array, text) for array, text in zip(labels, where, strict=True)]
    if any(a.dtype.kind in "US" for a in flat):
        if not all(a.dtype.kind in "US" for a in flat):
            raise WinnowError(f"{where[0]} and {where[1]}: names in one, numbers in the other; use the same in both")
        names = [_names(a, text) for a, text in zip(flat, where, strict=True)]
        known = np.unique(np.concatenate(names))
        unseen = sorted(set(known.tolist()) - set(names[0].tolist()))
        if unseen:
            raise WinnowError(
                f"{where[1]}: class {unseen[0]!r} has no training image; names must be the same in both splits"
            )
        return [np.searchsorted(known, a).astype(np.int64) for a in names]
    numbers = [_whole(a, text) for a, text in zip(flat, where, strict=True)]
    unseen_numbers = np.setdiff1d(np.concatenate(numbers), numbers[0])
    if len(unseen_numbers):
        log.warning("%s: classes without a training image: %s", where[1], unseen_numbers[:10].tolist())
    return numbers


def _flat(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf":
        if not (((labels == 0) | (labels == 1)).all() and (labels.sum(1, dtype=np.float64) == 1).all()):
            raise WinnowError(
                f"{where}: rows of {labels.shape[1]} values that are not one-hot; one class number an image is read"
            )
        return labels.argmax(1)
    if labels.ndim != 1:
        raise WinnowError(
            f"{where}: labels of shape {labels.shape} {labels.dtype}; expected (N,), (N,1) or one-hot (N,classes)"
        )
    return labels


def _names(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.dtype.kind == "S":
        try:
            labels = np.char.decode(labels, "utf-8")
        except UnicodeDecodeError as error:
            raise WinnowError(f"{where}: a class name is not UTF-8 ({error})") from None
    blank = np.flatnonzero(np.char.strip(labels) == "")
    if len(blank):
        raise WinnowError(f"{where}[{blank[0]}]: blank; every image needs a class")
    return labels


def _whole(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.dtype.kind not in "biuf":
        raise WinnowError(f"{where}: {labels.dtype} values are no labels; use class numbers from 0, or names")
    with np.errstate(invalid="ignore"):
        wrong = ~((labels >= 0) & (labels < LARGEST_LABEL) & (labels == np.floor(labels)))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise WinnowError(
            f"{where}[{row}]: {labels[row].item()!r} is no class number ({int(wrong.sum())} such labels; whole numbers "
            f"from 0 "
            f"to {LARGEST_LABEL - 1} are); leave such images out, or number the classes from 0"
        )
    return labels.astype(np.int64)
