"""Image sets as people have them: each gives what torchvision gives, or one line that says what is wrong."""

from __future__ import annotations

import io
import json
import logging
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from winnow.compat import torchvision
from winnow.config.parts import Attack, Data
from winnow.errors import WinnowError
from winnow.schema import parse
from winnow.vision import images
from winnow.vision.attack import pgd
from winnow.vision.pack_arrays import pack
from winnow.vision.sources import Split, fraction, load


def picture(seed: int, size=(8, 8)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def tree(base: Path, *names: str, suffix: str = "png", per_class: int = 3) -> Path:
    """Images in each of the folders `names`."""
    for k, name in enumerate(names):
        (base / name).mkdir(parents=True)
        for i in range(per_class):
            picture(10 * k + i).save(base / name / f"{i}.{suffix}")
    return base


CATS = ("train/cat", "train/dog", "test/cat", "test/dog")


def folder(base: Path, **keys):
    return load(parse(Data, {"dataset": "imagefolder", "path": str(base), "val_images": 2} | keys), Path())


def names(split: Split) -> set[str]:
    return {"/".join(Path(os.fsdecode(p)).parts[-3:]) for p in split.images}


def as_torchvision(base: Path, split: str) -> list[tuple[str, int]]:
    return torchvision().datasets.ImageFolder(str(base / split)).samples


def ours(sets, split: str) -> list[tuple[str, int]]:
    parts = [sets.test] if split == "test" else [sets.train, sets.val]
    pairs = [(os.fsdecode(p), int(y)) for part in parts for p, y in zip(part.images, part.labels, strict=True)]
    return sorted(pairs)


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp", "ppm", "pgm", "tif", "tiff", "webp"])
def test_suffixes_are_torchvisions(tmp_path, suffix):
    base = tree(tmp_path, *CATS, suffix=suffix)
    sets = folder(base)
    for split in ("train", "test"):
        assert ours(sets, split) == sorted(as_torchvision(base, split))


def test_numbered_classes_and_linked_folders_are_numbered_as_torchvision_does(tmp_path):
    real = tree(tmp_path / "real", *(f"{s}/{k}" for s in ("train", "test") for k in (1, 2, 10)))
    base = tmp_path / "linked"
    for split in ("train", "test"):
        (base / split / "10").mkdir(parents=True)
        for name in ("1", "2"):
            (base / split / name).symlink_to(real / split / name)
        (base / split / "10" / "images").symlink_to(real / split / "10")
    (base / "train" / "1" / "again").symlink_to(base / "train")  # a circle, which torchvision would walk 40 times
    sets = folder(base)
    (base / "train" / "1" / "again").unlink()
    for split in ("train", "test"):
        assert ours(sets, split) == sorted(as_torchvision(base, split))
    packed = tmp_path / "p.npz"
    pack(base, packed, None)
    assert np.load(packed)["class_names"].tolist() == ["1", "10", "2"]


def test_hidden_files_and_folders_are_no_part_of_a_set(tmp_path):
    base = tree(
        tmp_path,
        *CATS,
        "train/.ipynb_checkpoints",
        "train/cat/.ipynb_checkpoints",
        "__MACOSX/train/cat",
        ".trash/train/x",
    )
    for name in ("._0.png", ".DS_Store"):
        (base / "train/dog" / name).write_bytes(b"\0\5\26\7")
    sets = folder(base)
    assert sets.num_classes == 2 and len(sets.train) + len(sets.val) == 6
    assert pack(base, tmp_path / "p.npz", None)["train_images"] == 6


def test_the_first_split_with_labels_is_the_test_split_and_the_log_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, "winnow")
    base = tree(tmp_path / "a", "train/cat", "train/dog", "val/cat", "val/dog", "test/images")
    assert names(folder(base).test) == {f"val/{c}/{i}.png" for c in ("cat", "dog") for i in range(3)}
    assert "the test split is val/; test/ has no labels" in caplog.text
    flat = tree(tmp_path / "b", "train/cat", "train/dog", "valid/cat", "valid/dog", "test")
    assert len(folder(flat).test) == 6 and "valid/cat/0.png" in names(folder(flat).test)
    both = tree(tmp_path / "c", *CATS, "valid/cat", "valid/dog")
    assert all(n.startswith("test/") for n in names(folder(both).test)) and "valid/ is not used" in caplog.text
    assert pack(both, tmp_path / "p.npz", None)["test_images"] == 6


FOLDERS = [  # what lies there, what is said
    (
        ("train/cat", "train/dog", "test/cat", "test/Dog", "test/emu"),
        "differ (only in test/: Dog, emu; only in train/: dog)",
    ),
    (("train/cat", "train/dog", "test/cat"), "(only in test/: none; only in train/: dog)"),
    (("train/cat", "train/dog", "test"), "test: 3 images without class folders, so without labels"),
    (("train/cat", "train/dog", "test/unknown"), "only in test/: unknown"),
    (("train", "test"), "train: the dataset is empty"),
    (("cat", "dog"), "expected the folders train/<class>/"),
]


@pytest.mark.parametrize(("there", "said"), FOLDERS, ids=[f[1] for f in FOLDERS])
@pytest.mark.parametrize("how", ["folder", "pack", "tar"])
def test_folders_that_are_no_set(tmp_path, there, said, how):
    base = tree(tmp_path / "set", *there)
    with pytest.raises(WinnowError) as error:
        if how == "folder":
            folder(base)
        elif how == "pack":
            pack(base, tmp_path / "p.npz", None)
        else:
            with tarfile.open(tmp_path / "set.tar", "w") as archive:
                archive.add(base, "x/y")
            pack(tmp_path / "set.tar", tmp_path / "p.npz", None)
    assert said in str(error.value) and not (tmp_path / "p.npz").exists()


def test_a_class_without_an_image_is_named(tmp_path):
    base = tree(tmp_path, *CATS)
    (base / "train/emu").mkdir()
    (base / "train/emu/photo.heic").write_bytes(b"x")
    with pytest.raises(WinnowError, match=r"train: no image in class emu \(suffixes read: \.bmp"):
        folder(base)


def test_links_in_a_tar_are_not_left_out_silently(tmp_path):
    base = tree(tmp_path / "set", *CATS)
    os.link(base / "train/cat/0.png", base / "train/cat/7.png")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(base, "set")
    with pytest.raises(WinnowError, match=r"is a link; unpack the archive"):
        pack(tmp_path / "set.tar", tmp_path / "p.npz", None)


# image files
# -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    path = tmp_path / f"ramp.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 16 16 65535\n" + ramp.astype(">u2").tobytes())
    else:
        Image.fromarray(ramp).save(path)
    got = images.read(path, path)
    assert got.shape == (16, 16, 3) and np.abs(got[..., 0].astype(float) - ramp / 257).max() <= 0.5


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_8_bit_images_are_what_torchvision_loads(tmp_path, mode):
    path = tmp_path / ("x.jpg" if mode in ("CMYK", "YCbCr") else "x.png")
    picture(3).convert(mode).save(path)
    expected = np.asarray(torchvision().datasets.folder.default_loader(str(path)))
    assert np.array_equal(images.read(path, path), expected)


def test_a_rotation_in_exif_is_not_applied_as_in_torchvision(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0, (12, 8)).save(tmp_path / "x.jpg", exif=exif)
    assert images.read(tmp_path / "x.jpg", "x").shape == (8, 12, 3)


def png_bomb() -> bytes:
    chunk = b"zTXt" + b"a\0\0" + zlib.compress(b"x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1))
    buffer = io.BytesIO()
    picture(0).save(buffer, "png")
    data = buffer.getvalue()
    return data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def large_png(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts
    )


def encoded(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture(0, (64, 64)).save(buffer, kind, **options)
    return buffer.getvalue()


def wide(kind: type, suffix: str = "TIFF") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 7, kind)).save(buffer, suffix)
    return buffer.getvalue()


FILES = [
    ("nothing", b"", "cannot be decoded"),
    ("a web page", b"<!DOCTYPE html><html></html>", "cannot be decoded"),
    ("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "cannot be decoded"),
    ("half a JPEG", encoded("JPEG")[:900], "cannot be decoded"),
    ("half a PNG", encoded("PNG")[:900], "cannot be decoded"),
    ("a PNG text bomb", png_bomb(), "Decompressed data too large"),
    ("a decompression bomb", large_png(20000), "refused"),
    ("a large image", large_png(10000), "refused"),
    ("floats", wide(np.float32), "have no known range"),
    ("32 bits", wide(np.int32), "have no known range"),
]


@pytest.mark.parametrize(("data", "said"), [f[1:] for f in FILES], ids=[f[0] for f in FILES])
def test_files_that_are_no_image(tmp_path, data, said):
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(WinnowError) as error:
        images.read(path, path)
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value) and len(str(error.value)) < 400


def test_half_a_jpeg_in_a_worker_is_one_line(tmp_path):
    base = tree(tmp_path / "set", *CATS)
    (base / "train/dog/1.png").write_bytes(encoded("JPEG")[:900])
    keys = {"dataset": "imagefolder", "path": str(base), "val_images": 1, "image_size": 8}
    config = {"method": "std", "data": keys, "model": {"arch": "resnet8", "width": 4}, "seed": 0, "compute": {}}
    config |= {"train": {"epochs": 1, "batch_size": 4, "lr": 0.1}}
    files = [
        "--out",
        str(tmp_path / "w.safetensors"),
        "--metrics",
        str(tmp_path / "w.json"),
        "--scratch",
        str(tmp_path / "s"),
    ]
    command = [
        sys.executable,
        "-m",
        "winnow.stages.pretrain",
        "--config",
        json.dumps(config),
        "--device",
        "cpu",
        "--workers",
        "2",
    ]
    done = subprocess.run([*command, *files], capture_output=True, text=True)
    said = f"winnow pretrain: error: {base}/train/dog/1.png: cannot be decoded"
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(said) and "Traceback" not in done.stderr


def test_images_of_several_sizes_need_an_image_size(tmp_path):
    base = tree(tmp_path, *CATS)
    picture(0, (9, 9)).save(base / "train/dog/2.png")
    with pytest.raises(WinnowError, match=r"train/dog/2.png: 9x9 pixels, where others are 8x8; set data.image_size"):
        folder(base)
    assert len(folder(base, image_size=8).test) == 6
    picture(0, (9, 8)).save(base / "train/dog/2.png")
    with pytest.raises(WinnowError, match="9x8 pixels, not square"):
        folder(base)


# small numbers and measurements
# ----------------------------------------------------------------------------------------------


def test_a_fraction_below_one_image_a_class_is_refused():
    split = Split(np.zeros((100, 3, 4, 4), np.uint8), np.arange(100) % 10)
    assert len(fraction(split, 0.1, 0)) == 10
    with pytest.raises(
        WinnowError, match=r"fraction: 0.01 of 100 training images leaves 1 for 10 classes; raise it above 0.1"
    ):
        fraction(split, 0.01, 0)


@pytest.mark.parametrize(
    "x", [torch.full((2, 3, 4, 4), 1.5), torch.full((2, 3, 4, 4), -0.1), torch.full((2, 3, 4, 4), torch.nan)]
)
def test_images_outside_0_1_are_not_attacked(x):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
    with pytest.raises(WinnowError, match=r"attack: images must lie in \[0,1\], these run from"):
        pgd(model, x, torch.zeros(2, dtype=torch.long), parse(Attack, {"eps": 0.1, "step_size": 0.1, "steps": 1}))


def visda(base: Path) -> Path:
    """VisDA-2017's layout: classes as folders, one of them called train; test/trunk01/... with labels in a list."""
    for split in ("train", "validation"):
        tree(base / split, "aeroplane", "train", "truck")
        (base / split / "image_list.txt").write_text("aeroplane/0.png 0\ntrain/0.png 1\ntruck/0.png 2\n")
    tree(base / "test", "trunk01", "trunk02", suffix="jpg")
    labels = {"trunk01/0": 2, "trunk01/1": 0, "trunk01/2": 1, "trunk02/0": 0, "trunk02/2": 2}
    (base / "test/image_list.txt").write_text("".join(f"{k}.jpg {v}\n" for k, v in labels.items()))
    return base


def test_visda_is_read_by_its_list_or_from_its_validation_split(tmp_path):
    base = visda(tmp_path / "visda")
    sets = folder(base)
    found = {"/".join(Path(os.fsdecode(p)).parts[-2:]): int(y) for p, y in zip(*vars(sets.test).values(), strict=True)}
    assert found == {"trunk01/1.jpg": 0, "trunk02/0.jpg": 0, "trunk01/2.jpg": 1, "trunk01/0.jpg": 2, "trunk02/2.jpg": 2}
    assert sets.num_classes == 3 and len(sets.train) + len(sets.val) == 9
    (base / "test/image_list.txt").unlink()
    assert names(folder(base).test) == {
        f"validation/{c}/{i}.png" for c in ("aeroplane", "train", "truck") for i in "012"
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trunk02/1.jpg 3", r"test/image_list\.txt:6: expected an image and a class number below 3, got 'trunk02/1"),
        ("trunk02/1.jpg", r"image_list\.txt:6: expected an image and a class number"),
        ("trunk09/1.jpg 1", r"image_list\.txt:6: test/trunk09/1\.jpg is not there"),
        ("trunk01/0.jpg 1", r"image_list\.txt:6: test/trunk01/0\.jpg is not there \(or stands in two lines\)"),
    ],
)
def test_a_list_that_does_not_fit_its_images(tmp_path, line, message):
    base = visda(tmp_path / "visda")
    with (base / "test/image_list.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(WinnowError, match=message):
        folder(base)
