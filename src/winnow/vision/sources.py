"""Reading image classification sets: arrays in memory, or files that are decoded when they are needed."""

from __future__ import annotations

import importlib.util
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.rng import numpy_generator
from winnow.run import one_downloads

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}


@dataclass(frozen=True)
class Split:
    """Labelled images: `images` is a uint8 array (N,C,H,W), or the paths of N files. `labels`: int64 (N,)."""

    images: np.ndarray | list[Path]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Split:
        """The images at `indices`."""
        images = [self.images[i] for i in indices] if isinstance(self.images, list) else self.images[indices]
        return Split(images, self.labels[indices])


@dataclass(frozen=True)
class Sets:
    """train, val (held out from train, for every selection) and test."""

    train: Split
    val: Split
    test: Split
    num_classes: int


def load(data: Data, root: Path, download: bool = False) -> Sets:
    """Load the task. Raises WinnowError naming the files expected when they are missing and may not be downloaded."""
    readers = {"digits": _digits, "npz": _npz, "imagefolder": _imagefolder, "imagenet": _imagefolder}
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
    return Sets(train, val, test, num_classes)


def stratified(labels: np.ndarray, count: int, *seed: object) -> np.ndarray:
    """Sorted indices of `count` examples, each class in proportion (largest remainders; at least one of each if count allows).

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
    """A stratified `share` of the split, drawn by `seed`; at least one image of each class when it can be."""
    if share == 1.0:
        return split
    return split.take(stratified(split.labels, max(1, round(share * len(split))), seed, "fraction"))


def subset(split: Split, count: int | None, seed: int) -> Split:
    """A stratified subset of `count` images (None: all)."""
    return split if count is None or count >= len(split) else split.take(stratified(split.labels, count, seed, "subset"))


def _select(split: Split, data: Data) -> Split:
    if data.classes is None:
        return split
    missing = sorted(set(data.classes) - set(np.unique(split.labels).tolist()))
    if missing:
        raise WinnowError(
            f"data.classes: {data.dataset} has no images of class {missing[0]}; labels run to {split.labels.max()}"
        )
    lookup = {c: i for i, c in enumerate(data.classes)}
    kept = np.flatnonzero(np.isin(split.labels, data.classes))
    chosen = split.take(kept)
    return Split(chosen.images, np.array([lookup[int(y)] for y in chosen.labels], dtype=np.int64))


def _digits(data: Data, root: Path, download: bool) -> tuple[Split, Split]:
    """scikit-learn's digits (1,797 real 8x8 images), a stratified quarter as test; read without importing scikit-learn."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise WinnowError("data.dataset: digits comes with scikit-learn, which is not installed; install requirements/lock.txt")
    table = np.loadtxt(Path(spec.submodule_search_locations[0]) / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.int64)
    grey = np.rint(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    whole = Split(np.repeat(grey, 3, axis=1), table[:, -1])
    test = stratified(whole.labels, len(whole) // 4, "digits")
    return whole.take(np.setdiff1d(np.arange(len(whole)), test)), whole.take(test)


def _npz(data: Data, root: Path, download: bool) -> tuple[Split, Split]:
    """`train_images`, `test_images`: uint8 (N,H,W,C) or (N,H,W); `train_labels`, `test_labels`: integers (N,)."""
    path = root / _required_path(data)
    wanted = ["train_images", "train_labels", "test_images", "test_labels"]
    if not path.is_file():
        raise WinnowError(f"{path}: no such file; data.path names an .npz with {', '.join(wanted)} below data_root")
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [k for k in wanted if k not in stored]
            if missing:
                raise WinnowError(f"{path}: holds no array {missing[0]!r}; expected {', '.join(wanted)}")
            arrays = {k: stored[k] for k in wanted}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise WinnowError(f"{path}: not a readable .npz of plain arrays ({error})") from None
    return tuple(_as_split(arrays[f"{s}_images"], arrays[f"{s}_labels"], path) for s in ("train", "test"))  # type: ignore[return-value]


def _as_split(images: np.ndarray, labels: np.ndarray, path: Path) -> Split:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(labels):
        raise WinnowError(f"{path}: images must be uint8 (N,H,W,C) with N labels, got {images.dtype} {images.shape}")
    if len(labels) == 0:
        raise WinnowError(f"{path}: the dataset is empty")
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Split(
        np.ascontiguousarray(np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images), labels.astype(np.int64)
    )


def _imagefolder(data: Data, root: Path, download: bool) -> tuple[Split, Split]:
    """`train/<class>/*` and `val/<class>/*` or `test/<class>/*`; classes in name order, as torchvision's ImageFolder."""
    base = root / (data.path or data.dataset)
    held = next((base / name for name in ("test", "val") if (base / name).is_dir()), None)
    if not (base / "train").is_dir() or held is None:
        how = " (ImageNet must be placed there by hand: its licence allows no download)" if data.dataset == "imagenet" else ""
        raise WinnowError(f"{base}: expected the folders train/<class>/ and test/<class>/ or val/<class>/ with images{how}")
    names = sorted(p.name for p in (base / "train").iterdir() if p.is_dir())
    return _folder_split(base / "train", names), _folder_split(held, names)


def _folder_split(folder: Path, names: list[str]) -> Split:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise WinnowError(f"{folder}: the dataset is empty; expected images in <class>/ folders")
    return Split(paths, np.array(labels, dtype=np.int64))


def _torchvision(data: Data, root: Path, download: bool) -> tuple[Split, Split]:
    from winnow.compat import torchvision

    datasets = torchvision().datasets
    files = {"cifar10": "cifar-10-batches-py/", "cifar100": "cifar-100-python/", "svhn": "train_32x32.mat and test_32x32.mat"}
    try:
        if data.dataset == "svhn":
            parts: list[Any] = [datasets.SVHN(str(root), split=s, download=download) for s in ("train", "test")]
        else:
            kind = datasets.CIFAR10 if data.dataset == "cifar10" else datasets.CIFAR100
            parts = [kind(str(root), train=t, download=download) for t in (True, False)]
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
