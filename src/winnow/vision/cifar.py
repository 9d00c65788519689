"""CIFAR's pickled batches, read from the very bytes whose md5 was checked, and nothing in them is run.

torchvision checks the md5 of a file and then opens it anew: in a data folder that others can write to, it may be
another file by then, and unpickling it runs what it says.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from winnow import outside
from winnow.errors import WinnowError

_LARGEST = 1 << 30  # bytes of a batch; the largest has 155 MB
_NUMPY = np._core.multiarray  # type: ignore[attr-defined]
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),  # how Python 3 spells bytes in this protocol
} | {(f"numpy.{core}.multiarray", "_reconstruct"): _NUMPY._reconstruct for core in ("core", "_core")}


class _Arrays(pickle.Unpickler):
    """Knows the names that a batch needs (an array of bytes), and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return _KNOWN[module, name]


def read(root: Path, kind: Any, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N,3,32,32) and labels int64 (N,) of a split, as torchvision's `kind` (CIFAR10, CIFAR100) lists its
    files.

    Raises FileNotFoundError when a file is missing, WinnowError when it has another md5 than the published one, or
    holds anything but arrays.
    """
    images, labels = [], []
    for name, md5 in kind.train_list if train else kind.test_list:
        path = root / kind.base_folder / name
        if not path.exists():
            raise FileNotFoundError(path)
        data = outside.read_bytes(path, _LARGEST)
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise WinnowError(f"{path}: is not the published file (its md5 differs); fetch it again")
        batch = unpickled(data, path)
        images.append(np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32))
        labels.append(np.asarray(batch["labels" if "labels" in batch else "fine_labels"], np.int64))
    return np.concatenate(images), np.concatenate(labels)


def unpickled(data: bytes, path: Path) -> dict[str, Any]:
    """The mapping in a batch. Raises WinnowError for anything that would run code, and for what is no batch."""
    try:
        batch = _Arrays(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a broken pickle fails in as many ways as there are instructions
        raise WinnowError(f"{path}: is no batch of CIFAR ({error}); fetch it again") from None
    if not isinstance(batch, dict) or "data" not in batch or not {"labels", "fine_labels"} & set(batch):
        raise WinnowError(f"{path}: is no batch of CIFAR; fetch it again")
    return batch
