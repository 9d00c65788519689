"""Any input of the image readers gives a right load or one line: examples by hypothesis, `WINNOW_FUZZ=2000` for so many
of each.
"""

from __future__ import annotations

import functools
import io
import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from winnow.compat import torchvision
from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.schema import parse
from winnow.vision import images
from winnow.vision.folders import IMAGE_SUFFIXES
from winnow.vision.pack_arrays import pack
from winnow.vision.sources import load

EXAMPLES = int(os.environ.get("WINNOW_FUZZ", "200"))
many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="WINNOW_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    database=None,
)


@functools.cache
def encoded(kind: str, mode: str, seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels) if mode != "I;16" else Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    (image if mode == "I;16" else image.convert(mode)).save(buffer, kind)
    return buffer.getvalue()


KINDS = [("PNG", m) for m in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
KINDS += [("JPEG", m) for m in ("L", "RGB", "CMYK")] + [("TIFF", m) for m in ("L", "RGB", "I;16", "F", "I")]
KINDS += [("BMP", "RGB"), ("WEBP", "RGB"), ("PPM", "RGB"), ("PPM", "L"), ("GIF", "P")]


@st.composite
def files(draw, whole: bool = False) -> bytes:
    """An image of a common kind; unless `whole`, often cut, with other bytes, or with bytes put in."""
    data = bytearray(encoded(*draw(st.sampled_from(KINDS)), draw(st.integers(0, 2))))
    for _ in range(0 if whole else draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        what = draw(st.sampled_from(["cut", "change", "insert", "drop"]))
        if what == "cut":
            del data[at:]
        elif what == "drop":
            del data[at : at + draw(st.integers(1, 16))]
        elif what == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif data:
            data[at] = draw(st.integers(0, 255))
    return bytes(data)


def one_line(error: pytest.ExceptionInfo[WinnowError] | WinnowError) -> None:
    assert "\n" not in str(error) and len(str(error)) < 1000


@many
@given(files())
def test_image_files(data):
    try:
        got = images.read(io.BytesIO(data), "x")
    except WinnowError as error:
        one_line(error)
        assert str(error).startswith("x: ")
        return
    assert got.dtype == np.uint8 and got.ndim == 3 and got.shape[2] == 3 and got.size > 0
    with Image.open(io.BytesIO(data)) as image:
        assert got.shape[:2] == (image.height, image.width)
        if image.mode not in ("I", "I;16", "I;16B", "F"):
            assert np.array_equal(got, np.asarray(image.convert("RGB")))


NAMES = st.sampled_from(
    ["cat", "dog", "10", "9", "a b", "Ä", ".hidden", "train", "test", "__MACOSX", "cat.png", "x\nz"]
)
LEAVES = st.sampled_from(
    ["0.png", "1.JPG", "._0.png", "10.png", "2.png", "a.tif", "notes.txt", "Thumbs.db", ".png", "b.webp"]
)
TREES = st.dictionaries(
    st.tuples(st.sampled_from(["train", "train", "train", "test", "test", "val", "valid", "other", "."]),
              st.lists(NAMES, max_size=3).map(tuple), LEAVES),
    st.booleans(), max_size=25,
)  # fmt: skip


def mirrored(entries):
    """Often: what is in train/ is in test/ too, so that sets that can be loaded are common."""
    return entries | {("test", *rest): v for (split, *rest), v in entries.items() if split == "train"}


TREES = st.one_of(TREES, TREES.map(mirrored))


def built(base: Path, entries) -> None:
    for (split, folders, leaf), linked in entries.items():
        folder = base / split / Path(*folders)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / leaf
            if linked:
                (base / "pool").mkdir(exist_ok=True)
                (base / "pool" / "p.png").write_bytes(encoded("PNG", "RGB", 0))
                target.symlink_to(base / "pool" / "p.png")
            else:
                target.write_bytes(encoded("PNG", "RGB", 0))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue  # a file and a folder of the same name


@many
@given(TREES)
def test_image_folders(entries):
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        built(base, entries)
        try:
            sets = load(parse(Data, {"dataset": "imagefolder", "path": name, "val_images": 1}), Path())
        except WinnowError as error:
            one_line(error)
            return
        got = sorted(
            (os.fsdecode(p), int(y)) for s in (sets.train, sets.val) for p, y in zip(s.images, s.labels, strict=True)
        )
        hidden = [p for p in (base / "train").rglob("*") if p.name.startswith(".") or p.name == "__MACOSX"]
        if not hidden:
            assert got == sorted(torchvision().datasets.ImageFolder(str(base / "train")).samples)
        assert not any(part.startswith(".") for p, _ in got for part in Path(p).relative_to(base).parts)
        assert set(sets.test.labels) <= set(range(sets.num_classes)) and len(sets.test)


@many
@given(TREES, st.booleans(), st.one_of(st.none(), st.integers(0, 4000)), files())
def test_tars(entries, compressed, cut, data):
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        with tarfile.open(base / "s.tar", "w:gz" if compressed else "w") as archive:
            for (split, folders, leaf), odd in entries.items():
                content = data if odd else encoded("PNG", "RGB", 0)
                info = tarfile.TarInfo("/".join(("set", split, *folders, leaf)))
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        if cut is not None:
            (base / "s.tar").write_bytes((base / "s.tar").read_bytes()[:cut])
        try:
            counts = pack(base / "s.tar", base / "out.npz", 8)
        except WinnowError as error:
            one_line(error)
            assert not (base / "out.npz").exists()
            return
        expected = sum(
            split == "train" and Path(leaf).suffix.lower() in IMAGE_SUFFIXES and len(folders) > 0
            and not any(p.startswith(".") or p == "__MACOSX" for p in (*folders, leaf))
            for split, folders, leaf in entries
        )  # fmt: skip
        assert counts["train_images"] == expected
        load(parse(Data, {"dataset": "npz", "path": "out.npz", "val_images": 1}), base)


SHAPES = st.one_of(
    st.lists(st.integers(0, 9), max_size=5), st.sampled_from([[6, 8, 8], [6, 8, 8, 3], [6, 8, 8, 1], [6, 3, 8, 8]])
)
IMAGES = st.builds(
    lambda shape, kind: np.zeros(shape, kind), SHAPES, st.sampled_from(["u1", "u1", "u1", "f4", "i8", "U1", "?"])
)
NUMBERS = st.one_of(st.integers(-2, 70000), st.floats(width=32), st.booleans(), st.integers(0, 3), st.integers(0, 3))
VALUES = [
    NUMBERS,
    st.integers(0, 3),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.sampled_from(["cat", "1"]),
]
ROWS = st.one_of(*(st.lists(v, min_size=6, max_size=6) for v in VALUES))
LABELS = st.one_of(
    ROWS.map(np.array), st.lists(NUMBERS, max_size=7).map(np.array),
    st.lists(st.integers(0, 2), min_size=6, max_size=6).map(
        lambda y: np.eye(3, dtype=np.uint8)[y]), ROWS.map(lambda y: np.array(y)[:, None]),
)  # fmt: skip


@many
@given(*[st.one_of(st.just(np.zeros((6, 8, 8, 3), np.uint8)), IMAGES)] * 2, LABELS, LABELS, st.booleans())
def test_npz(train_images, test_images, train_labels, test_labels, same):
    test_labels = train_labels if same else test_labels
    with tempfile.TemporaryDirectory() as name:
        np.savez(Path(name) / "d.npz", train_images=train_images, test_images=test_images, train_labels=train_labels,
                 test_labels=test_labels)  # fmt: skip
        try:
            sets = load(parse(Data, {"dataset": "npz", "path": "d.npz", "val_images": 1}), Path(name))
        except WinnowError as error:
            one_line(error)
            return
        assert len(sets.train) + len(sets.val) == len(train_images) and sets.train.images.shape[1] == 3
        every = np.concatenate([sets.train.labels, sets.val.labels, sets.test.labels])
        assert every.dtype == np.int64 and every.min() >= 0 and every.max() < sets.num_classes
        if train_labels.shape == (6,) and train_labels.dtype.kind in "iub" and test_labels.dtype.kind in "iub":
            assert sorted(np.concatenate([sets.train.labels, sets.val.labels])) == sorted(train_labels.astype(np.int64))


@many
@given(files(whole=True), st.binary(max_size=64), st.integers(0, 3000))
def test_bytes_that_are_no_npz(data, more, cut):
    with tempfile.TemporaryDirectory() as name:
        good = io.BytesIO()
        np.savez_compressed(good, train_images=np.zeros((4, 8, 8), np.uint8), train_labels=np.arange(4))
        path = Path(name) / "d.npz"
        path.write_bytes((good.getvalue()[:cut] + more) if cut % 2 else data + more)
        for read in (lambda: load(parse(Data, {"dataset": "npz", "path": "d.npz", "val_images": 1}), Path(name)),
                     lambda: pack(path, Path(name) / "out.npz", None)):  # fmt: skip
            with pytest.raises(WinnowError) as error:
                read()
            one_line(error.value)
