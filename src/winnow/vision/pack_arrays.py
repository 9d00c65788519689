"""Packing image files into the one .npz of uint8 arrays that the npz loader reads: for sets that fit into memory."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from winnow.artifacts import atomic_path
from winnow.errors import WinnowError
from winnow.vision import images
from winnow.vision.encoded import Encoded, find


def pack(source: Path, out: Path, image_size: int | None) -> dict[str, int]:
    """Write `out` from a folder or tar of <train|test|val>/<class>/<image>, or an npz of JPEG bytes; counts by array.

    image_size: side that every image is resized to (antialiased); None: they must all have one size already. Classes
    are numbered in the sorted order of their names, as torchvision numbers them; numbers in an npz keep their order.
    """
    found = find(source)
    arrays = _decoded(found, source, image_size)
    labels = found.labels
    with atomic_path(out) as temporary, temporary.open("wb") as f:
        np.savez(
            f,
            **{f"{s}_images": a for s, a in arrays.items()},  # type: ignore[arg-type]
            **{f"{s}_labels": a for s, a in labels.items()},  # type: ignore[arg-type]
            class_names=np.array(found.names),
        )
    counts = {f"{s}_images": len(a) for s, a in arrays.items()} | {f"{s}_labels": len(a) for s, a in labels.items()}
    return counts | {"classes": len(found.names)}


def _decoded(found: Encoded, source: Path, image_size: int | None) -> dict[str, np.ndarray]:
    rows: dict[int, np.ndarray] = {}
    for number, name, data in found.stream(lambda number: True):
        with images.opened(io.BytesIO(data) if isinstance(data, bytes) else data, name) as image:
            picture = images.as_rgb(image, name)
            if image_size is not None and picture.size != (image_size, image_size):
                picture = picture.resize((image_size, image_size), images.BILINEAR)
            rows[number] = np.asarray(picture)
    shapes = {row.shape for row in rows.values()}
    if len(shapes) > 1:
        raise WinnowError(f"{source}: images of different sizes ({sorted(shapes)[:2]}); set image_size")
    return {split: np.stack([rows[i] for i in found.rows(split)]) for split in ("train", "test")}
