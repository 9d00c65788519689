"""Reading image classification sets: arrays in memory, or files that are decoded when they are needed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.rng import numpy_generator
from winnow.run import one_downloads
from winnow.vision import arrays, cifar, folders, images
from winnow.vision.packed import Packed, open_split


@dataclass(frozen=True)
class Split:
    """Labelled images. `images`: uint8 (N,C,H,W), the paths of N files as bytes (N,), or a packed set. `labels`: int64
    (N,).
    """

    images: Any
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def in_files(self) -> bool:
        """Whether `images` holds paths."""
        return isinstance(self.images, np.ndarray) and self.images.dtype.kind == "S"

    def take(self, indices: np.ndarray) -> Split:
        """The images at `indices`."""
        return Split(self.images[indices], self.labels[indices])


def of_files(paths: Iterable[Path], labels: np.ndarray) -> Split:
    """A split of image files; their paths are kept in one array, which worker processes share without copying it."""
    return Split(np.array([os.fsencode(p) for p in paths]), labels)


@dataclass(frozen=True)
class Sets:
    """train, val (held out from train, for every selection) and test."""

    train: Split
    val: Split
    test: Split
    num_classes: int


def load(data: Data, root: Path, download: bool = False) -> Sets:
    """Load the task. Raises WinnowError naming the files expected when they are missing and may not be downloaded."""
    readers = {"digits": _digits, "npz": _npz, "packed": _packed, "imagefolder": _imagefolder, "imagenet": _imagefolder}
    reader = readers.get(data.dataset, _torchvision)
    with one_downloads(download):
        train, test = reader(data, root, download)
    train, test = _select(train, data), _select(test, data)
    num_classes = len(data.classes) if data.classes is not None else int(max(train.labels.max(), test.labels.max())) + 1
    if data.test_images is not None:
        test = test.take(stratified(test.labels, data.test_images, data.split_seed, "test"))
    held = stratified(train.labels, data.val_images, data.split_seed, "val")
    rest = np.setdiff1d(np.arange(len(train)), held)
    val, train = train.take(held), train.take(rest)
    if data.train_images is not None:
        train = train.take(stratified(train.labels, data.train_images, data.split_seed, "train"))
    _check_sizes((train, val, test), data)
    return Sets(train, val, test, num_classes)


def stratified(labels: np.ndarray, count: int, *seed: object) -> np.ndarray:
    """Sorted indices of `count` examples, each class in proportion (largest remainders; at least one of each if count
    allows).

    Raises WinnowError when fewer than `count` are there.
    """
    if count > len(labels):
        raise WinnowError(
            f"data: {count} images wanted, {len(labels)} are there; lower val_images, train_images or test_images"
        )
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * (count / len(labels))
    quota = np.floor(exact).astype(int)
    if count >= len(classes):
        quota = np.maximum(quota, 1)
    while quota.sum() > count:
        quota[np.argmax(quota - exact)] -= 1
    for i in np.argsort(-(exact - quota), kind="stable")[: count - quota.sum()]:
        quota[i] += 1
    rng = numpy_generator(*seed, "stratified")
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:q] for c, q in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(chosen))


def fraction(split: Split, share: float, seed: int) -> Split:
    """A stratified `share` of the split, drawn by `seed`; WinnowError when it does not hold an image of each class."""
    if share == 1.0:
        return split
    count, classes = round(share * len(split)), len(np.unique(split.labels))
    if count < classes:
        raise WinnowError(
            f"fraction: {share:g} of {len(split)} training images leaves {count} for {classes} classes; raise it above "
            f"{classes / len(split):.3g}"
        )
    return split.take(stratified(split.labels, count, seed, "fraction"))


def subset(split: Split, count: int | None, seed: int) -> Split:
    """A stratified subset of `count` images (None: all)."""
    return (
        split if count is None or count >= len(split) else split.take(stratified(split.labels, count, seed, "subset"))
    )


def _check_sizes(parts: Iterable[Split], data: Data) -> None:
    """Without an image_size, the model sees images as they are stored: all of one size, and square."""
    if data.image_size is not None:
        return
    first: tuple[int, int] | None = None
    for split in parts:
        name = f"{data.path or data.dataset}: an image"
        sizes: Iterable[tuple[str, tuple[int, int]]] = (
            ((os.fsdecode(path), images.size_of(path, os.fsdecode(path))) for path in split.images)
            if split.in_files
            else [(name, (h, w)) for h, w in np.unique(split.images.sizes, axis=0).tolist()]
            if isinstance(split.images, Packed)
            else [(name, split.images.shape[-2:])]
        )
        for name, (height, width) in sizes:
            first = first or (height, width)
            if height != width or (height, width) != first:
                how = "not square" if height != width else f"where others are {first[1]}x{first[0]}"
                raise WinnowError(
                    f"{name}: {width}x{height} pixels, {how}; set data.image_size, the side that the model shall see"
                )


def _select(split: Split, data: Data) -> Split:
    if data.classes is None:
        return split
    if len(set(data.classes)) < len(data.classes):
        raise WinnowError(f"data.classes: {data.classes} names a class twice")
    missing = sorted(set(data.classes) - set(np.unique(split.labels).tolist()))
    if missing:
        raise WinnowError(
            f"data.classes: {data.dataset} has no images of class {missing[0]}; labels run to {split.labels.max()}"
        )
    kept, labels = chosen_classes(split.labels, data.classes)
    return Split(split.images[kept], labels)


def chosen_classes(labels: np.ndarray, classes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images of `classes`, and their labels renumbered 0.. in that order."""
    kept = np.flatnonzero(np.isin(labels, classes))
    lookup = {c: i for i, c in enumerate(classes)}
    return kept, np.array([lookup[int(y)] for y in labels[kept]], dtype=np.int64)


def _digits(data: Data, root: Path, download: bool) -> tuple[Split, Split]:
    """scikit-learn's digits (1,797 real 8x8 images), a stratified quarter as test; read without importing
    scikit-learn.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise WinnowError(
            "data.dataset: digits comes with scikit-learn, which is not installed; install requirements/lock.txt"
        )
    table = np.loadtxt(
        Path(spec.submodule_search_locations[0]) / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.int64
    )
    grey = np.rint(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    whole = Split(np.repeat(grey, 3, axis=1), table[:, -1])
    test = stratified(whole.labels, len(whole) // 4, "digits")
    return whole.take(np.setdiff1d(np.arange(len(whole)), test)), whole.take(test)


def _npz(data: Data, root: Path, download: bool) -> tuple[Split, Split]:
    found = arrays.read_npz(root / _required_path(data))
    return Split(found["train_images"], found["train_labels"]), Split(found["test_images"], found["test_labels"])


def _packed(data: Data, root: Path, download: bool) -> tuple[Split, Split]:
    folder = root / _required_path(data)
    return Split(*open_split(folder, "train")), Split(*open_split(folder, "test"))


def _imagefolder(data: Data, root: Path, download: bool) -> tuple[Split, Split]:
    base = root / (data.path or data.dataset)
    licence = (
        " (ImageNet must be placed there by hand: its licence allows no download)" if data.dataset == "imagenet" else ""
    )
    layout = folders.read(base, licence)
    train, test = (layout.images(split) for split in ("train", "test"))
    return tuple(of_files((base / p for p, _ in part), np.array([y for _, y in part])) for part in (train, test))  # type: ignore[return-value]


def _torchvision(data: Data, root: Path, download: bool) -> tuple[Split, Split]:
    from winnow.compat import torchvision

    datasets = torchvision().datasets
    files = {
        "cifar10": "cifar-10-batches-py/",
        "cifar100": "cifar-100-python/",
        "svhn": "train_32x32.mat and test_32x32.mat",
    }
    try:
        if data.dataset == "svhn":
            parts: list[Any] = [datasets.SVHN(str(root), split=s, download=download) for s in ("train", "test")]
        else:
            kind = datasets.CIFAR10 if data.dataset == "cifar10" else datasets.CIFAR100
            if download and not all(
                (root / kind.base_folder / name).exists() for name, _ in kind.train_list + kind.test_list
            ):
                datasets.utils.download_and_extract_archive(
                    kind.url, str(root), filename=kind.filename, md5=kind.tgz_md5
                )
            return tuple(Split(*cifar.read(root, kind, train)) for train in (True, False))  # type: ignore[return-value]
    except (RuntimeError, OSError) as error:
        mend = f"the download failed ({error})" if download else "put them there, or set download: true"
        raise WinnowError(f"{data.dataset}: {root / files[data.dataset]} is missing or damaged; {mend}") from None
    return tuple(_as_torchvision(p) for p in parts)  # type: ignore[return-value]


def _as_torchvision(part: Any) -> Split:
    labels = np.asarray(getattr(part, "targets", None) if hasattr(part, "targets") else part.labels, dtype=np.int64)
    images = part.data if part.data.shape[1] == 3 else part.data.transpose(0, 3, 1, 2)
    return Split(np.ascontiguousarray(images), labels)


def _required_path(data: Data) -> str:
    if not data.path:
        raise WinnowError(f"data.path: required for dataset {data.dataset} (relative to data_root)")
    return data.path
