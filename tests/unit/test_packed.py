"""Packed sets: the pixels that files give, whatever packed them, resumed and checked; batches alike on every way to the
device.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from winnow.compat import torchvision
from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.schema import parse
from winnow.vision import batches, packing
from winnow.vision.batches import Loader
from winnow.vision.packed import Packed, PackedFeed, open_split
from winnow.vision.packing import Resize, pack
from winnow.vision.sources import load

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """24 JPEG photographs of six sizes in three classes."""
    base, rng = tmp_path_factory.mktemp("source"), np.random.default_rng(0)
    sizes = [(40, 30), (30, 40), (33, 33), (64, 20), (25, 50), (48, 36)]
    for split, count in (("train", 6), ("test", 2)):
        for k, name in enumerate(("cat", "dog", "owl")):
            (base / split / name).mkdir(parents=True)
            for i in range(count):
                coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize(sizes[(i + k) % 6], Image.Resampling.BICUBIC)
                image.save(base / split / name / f"{i}.jpg", quality=95)
    return base


def data(**keys):
    return parse(Data, {"dataset": "packed", "path": "set", "val_images": 3} | keys)


def decoded(source: Path, split: str, transform) -> list[np.ndarray]:
    folder = torchvision().datasets.ImageFolder(str(source / split), transform=transform)
    return [np.asarray(image) for image, _ in folder]


@pytest.mark.parametrize(
    "resize", [Resize(), Resize(image_size=16), Resize(short_side=16)], ids=["as they are", "square", "short"]
)
def test_pixels_are_torchvisions(tmp_path, source, resize):
    transforms = torchvision().transforms
    size = (resize.image_size, resize.image_size) if resize.image_size else resize.short_side
    transform = transforms.Resize(size) if size else None
    counts = pack(source, tmp_path / "set", resize)
    assert counts == {"train_images": 18, "test_images": 6, "classes": 3}
    for split in ("train", "test"):
        images, labels = open_split(tmp_path / "set", split)
        assert labels.tolist() == torchvision().datasets.ImageFolder(str(source / split)).targets
        for number, expected in enumerate(decoded(source, split, transform)):
            got = images.picture(number)
            assert got.shape == expected.shape and np.abs(got.astype(int) - expected).max() <= (size is not None)
    assert json.loads((tmp_path / "set/pack.json").read_text())["class_names"] == ["cat", "dog", "owl"]
    assert not list(tmp_path.glob(".*"))


def test_folder_tar_and_any_number_of_processes_give_the_same_files(tmp_path, source, monkeypatch):
    monkeypatch.setattr(packing, "CHUNK", 5)
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        for path in sorted(source.rglob("*.jpg"), key=lambda p: p.name):  # another order than the classes'
            archive.add(path, Path("photos") / path.relative_to(source))
    one = tmp_path / "one"
    pack(source, one, Resize(short_side=12))
    for name, what, processes in (
        ("two", source, 2),
        ("tar", tmp_path / "set.tar.gz", 1),
        ("tar2", tmp_path / "set.tar.gz", 2),
    ):
        pack(what, tmp_path / name, Resize(short_side=12), processes)
        for file in ("train.npy", "test.npy", "train_index.npy", "train_digests.npy"):
            assert (tmp_path / name / file).read_bytes() == (one / file).read_bytes(), (name, file)


def test_a_killed_run_goes_on_and_torn_pixels_are_made_again(tmp_path, source, monkeypatch):
    monkeypatch.setattr(packing, "CHUNK", 4)
    written, whole = [], packing._write
    pack(source, tmp_path / "whole", Resize(image_size=16))

    def dies(chunk, extra):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(chunk)
        return whole(chunk, extra)

    monkeypatch.setattr(packing, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "set", Resize(image_size=16))
    partial = tmp_path / ".set.partial"
    with (partial / "train.npy").open(
        "r+b"
    ) as f:  # as after a power failure: the checksum was written, the pixels were not
        f.seek(128 + 5 * 16 * 16 * 3)
        f.write(b"\0" * 16 * 16 * 3)
    written.clear()
    monkeypatch.setattr(
        packing, "_write", lambda chunk, extra: written.extend(n for n, *_ in chunk) or whole(chunk, extra)
    )
    pack(source, tmp_path / "set", Resize(image_size=16))
    assert written == [5, *range(12, 24)]
    assert (tmp_path / "set/train.npy").read_bytes() == (tmp_path / "whole/train.npy").read_bytes()


def test_a_set_that_is_there_is_checked_and_never_overwritten(tmp_path, source, caplog):
    caplog.set_level("INFO", "winnow")
    pack(source, tmp_path / "set", Resize(image_size=16))
    pack(source, tmp_path / "set", Resize(image_size=16))
    assert "every image has the bytes that were packed" in caplog.text
    with pytest.raises(WinnowError, match="holds something else; remove it"):
        pack(source, tmp_path / "set", Resize(image_size=8))
    pixels = np.lib.format.open_memmap(tmp_path / "set/test.npy", mode="r+")
    pixels[-1] ^= 1
    pixels.flush()
    with pytest.raises(WinnowError, match="image 5 of test has other bytes than were packed"):
        pack(source, tmp_path / "set", Resize(image_size=16))


@pytest.mark.parametrize("broken", ["pack.json", "train.npy", "test_index.npy"])
@pytest.mark.parametrize("how", ["missing", "cut", "other"])
def test_half_a_set_is_refused_in_one_line(tmp_path, source, broken, how):
    pack(source, tmp_path / "set", Resize(image_size=16))
    path = tmp_path / "set" / broken
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"{}")
    with pytest.raises(WinnowError, match=r"pack it again \(python -m winnow.stages.pack_images\)"):
        load(data(), tmp_path)


def test_an_index_that_points_outside_the_pixels_is_refused(tmp_path, source):
    pack(source, tmp_path / "set", Resize(image_size=16))
    index = np.load(tmp_path / "set/train_index.npy")
    index[3, 0] += index[-1, 0]
    np.save(tmp_path / "set/train_index.npy", index)
    with pytest.raises(WinnowError, match=r"train_index.npy are not what pack.json says of them"):
        load(data(), tmp_path)


@pytest.mark.parametrize(
    "keys",
    [{"train_crop": "resized", "image_size": 12, "flip": True}, {"train_crop": "pad", "image_size": 12, "flip": True},
     {"train_crop": "resized", "image_size": 12, "test_resize": 14}],
)  # fmt: skip
@pytest.mark.parametrize(
    "resize", [Resize(image_size=16), Resize(short_side=16), Resize()], ids=["square", "short", "as they are"]
)
def test_batches_are_those_of_files_and_a_gpu_resizes_to_the_same(tmp_path, source, keys, resize):
    pack(source, tmp_path / "set", resize)
    sets = load(data(**keys), tmp_path)
    loader = Loader(sets.train, data(**keys), 4, CPU, seed=5)
    resident = isinstance(loader._feed, PackedFeed) is False
    assert resident == (resize.image_size is not None)
    there = Loader(sets.train, data(**keys), 4, CPU, seed=5)
    there._feed = PackedFeed(sets.train.images, data(**keys), 5, resized=False, pinned=False)  # what a GPU is given
    here = Loader(sets.train, data(**keys), 4, CPU, seed=5)
    here._feed = PackedFeed(sets.train.images, data(**keys), 5, resized=True, pinned=False)
    files = load(parse(Data, {"dataset": "imagefolder", "path": str(source), "val_images": 3} | keys), Path()).train
    from_files = Loader(files, data(**keys), 4, CPU, seed=5)
    for passes in (lambda x: x.epoch(1), lambda x: x.once()):
        for (a, ya), (b, yb), (c, yc), (d, yd) in zip(*map(passes, (loader, here, there, from_files)), strict=True):
            assert torch.equal(a, b) and torch.equal(ya, yb) and torch.equal(ya, yc) and torch.equal(ya, yd)
            assert (b - c).abs().max() <= 1.01 / 255 and a.shape[1:] == (3, 12, 12)
            if resize == Resize():
                assert torch.equal(b, d)


def test_small_sets_lie_on_the_device_and_large_ones_do_not(tmp_path, source, monkeypatch):
    pack(source, tmp_path / "set", Resize(image_size=16))
    sets = load(data(), tmp_path)
    assert isinstance(sets.train.images, Packed) and Loader(sets.train, data(), 4, CPU)._feed is None
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 3 * 16 * 16 * 14)
    large = Loader(sets.train, data(), 4, CPU)
    assert large._feed is not None and large.waited == 0
    assert all(
        torch.equal(a, b)
        for (a, _), (b, _) in zip(large.once(), Loader(sets.train, data(), 4, CPU).once(), strict=True)
    )
    assert large.waited > 0


def test_sizes_that_differ_need_an_image_size(tmp_path, source):
    pack(source, tmp_path / "set", Resize(short_side=16))
    with pytest.raises(WinnowError, match=r"set: an image: \d+x\d+ pixels, not square; set data.image_size"):
        load(data(), tmp_path)


def test_a_run_that_is_terminated_ends_quietly_and_is_taken_up(tmp_path, source):
    command = [
        sys.executable,
        "-m",
        "winnow.stages.pack_images",
        "--config",
        '{"image_size": 16}',
        "--source",
        str(source),
    ]
    slow = "import time, winnow.vision.packing as p; w = p._write; p.CHUNK = 2; "
    slow += "p._write = lambda *a: (time.sleep(0.3), w(*a))[1]; "
    code = slow + "from winnow.stages.pack_images import stage; import sys; sys.exit(stage.run(sys.argv[1:]))"
    arguments = [*command[3:], "--out", str(tmp_path / "set")]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    digests = tmp_path / ".set.partial/test_digests.npy"
    while not digests.exists():
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(0.8)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == 143 and "Traceback" not in process.stderr.read()
    done = subprocess.run([*command, "--out", str(tmp_path / "set"), "--workers", "2"], capture_output=True, text=True)
    assert (
        done.returncode == 0 and "images were packed before" in done.stderr and (tmp_path / "set/pack.json").is_file()
    )
