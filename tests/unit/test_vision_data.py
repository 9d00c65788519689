"""Datasets, splits and augmentation: exact, stratified, and alike from memory and from files."""

from __future__ import annotations

import hashlib
import io
import tarfile
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.rng import numpy_generator, uniform
from winnow.schema import parse
from winnow.vision import geometry
from winnow.vision.augment import eval_batch, resample, train_batch
from winnow.vision.batches import Loader
from winnow.vision.pack_arrays import pack
from winnow.vision.sources import Split, fraction, load, of_files, stratified

CPU = torch.device("cpu")


def data(**keys):
    return parse(Data, {"dataset": "digits", "val_images": 20} | keys)


def images(n=5, h=20, w=20):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 3, h, w), dtype=np.uint8))


@pytest.mark.parametrize("size", [7, 20, 33])
def test_resample_is_the_antialiased_resize_of_the_crop(size):
    x, box = images(), np.array([[3.0, 2.0, 15.0, 12.0]] * 5)
    expected = torch.nn.functional.interpolate(
        x[:, :, 3:18, 2:14] / 255, size=(size, size), mode="bilinear", antialias=True
    )
    assert (resample(x, box, box, size, np.zeros(5, bool)) - expected).abs().max() < 1e-6
    mirrored = resample(x, box, box, size, np.ones(5, bool)).flip(-1)
    assert (mirrored - expected).abs().max() < 1e-6


def test_test_time_is_resize_then_centre_crop():
    x = images(h=40, w=30)
    whole = torch.nn.functional.interpolate(x / 255, size=(32, 24), mode="bilinear", antialias=True)
    got = eval_batch(x, data(image_size=16, test_resize=24))
    assert (got - whole[:, :, 8:24, 4:20]).abs().max() < 1 / 255  # rounded twice, as in PIL
    view = geometry.test_view(40, 30, data(image_size=16, test_resize=24))
    box, limits = view.box(40, 30)[None], np.array([[0, 0, 40, 30]])
    assert (resample(x, box, limits, 16, None) - whole[:, :, 8:24, 4:20]).abs().max() < 1e-5
    with pytest.raises(WinnowError, match=r"data.test_resize: 16 is below the image size 24"):
        eval_batch(x, data(image_size=24, test_resize=16))


def test_pad_crop_moves_pixels_and_loses_none_of_them():
    x = images()
    out = train_batch(x, np.arange(5), data(train_crop="pad", crop_padding=2, flip=True), 0, 0)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2)) / 255
    for i in range(5):
        views = [padded[i, :, a : a + 20, b : b + 20] for a in range(5) for b in range(5)]
        assert any(torch.equal(out[i], v) or torch.equal(out[i], v.flip(-1)) for v in views)


@pytest.mark.parametrize(
    "keys",
    [
        {"train_crop": "pad", "flip": True},
        {"train_crop": "resized", "image_size": 12, "flip": True},
        {"test_resize": 24, "flip": True},
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_files_and_memory_give_the_same_batches(tmp_path, keys, workers):
    x, labels = images(9), np.arange(9) % 3
    paths = []
    for i, image in enumerate(x.numpy()):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image.transpose(1, 2, 0)).save(paths[-1])
    memory = Loader(Split(x.numpy(), labels), data(**keys), 4, CPU, seed=3)
    files = Loader(of_files(paths, labels), data(**keys), 4, CPU, seed=3, workers=workers)
    for epoch in (0, 1):
        for (a, ya), (b, yb) in zip(memory.epoch(epoch), files.epoch(epoch), strict=True):
            assert torch.equal(ya, yb) and torch.equal(a, b)
    for (a, _), (b, _) in zip(memory.once(), files.once(), strict=True):
        assert torch.equal(a, b)


def test_an_epoch_can_be_entered_in_the_middle():
    loader = Loader(Split(images(10).numpy(), np.zeros(10, int)), data(train_crop="pad"), 3, CPU, seed=1)
    whole = list(loader.epoch(2))
    rest = list(loader.epoch(2, first=2))
    assert len(whole) == loader.steps_per_epoch and len(rest) == len(whole) - 2
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[2:], rest, strict=True))


def test_uniform_numbers_are_splitmix64_s():
    """Steele, Lea and Flood (OOPSLA 2014), figure 17, in plain whole numbers; the seed is 63 bits of BLAKE2b."""
    mask = 2**64 - 1
    digest = hashlib.blake2b(b"7\x1faugment\x1f2", digest_size=8).digest()
    seed = int.from_bytes(digest, "little") // 2
    expected = []
    for counter in (0, 5, 2**40):
        for column in range(3):
            z = (seed + 0x9E3779B97F4A7C15 * (3 * counter + column + 1)) & mask
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            expected.append(((z ^ (z >> 31)) >> 11) / 2**53)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = uniform(np.array([0, 5, 2**40]), 3, 7, "augment", 2)
    assert found.shape == (3, 3) and found.reshape(-1).tolist() == expected
    assert np.random.Generator(np.random.PCG64(seed)).random() == numpy_generator(7, "augment", 2).random()


def test_augmentation_depends_on_image_epoch_and_seed_alone():
    one, other = uniform(np.array([5, 9]), 3, 0, "a", 1), uniform(np.array([9]), 3, 0, "a", 1)
    assert np.array_equal(one[1], other[0])
    assert not np.array_equal(one, uniform(np.array([5, 9]), 3, 0, "a", 2))
    many = uniform(np.arange(100000), 2, 1)
    assert (
        many.min() >= 0 and many.max() < 1 and abs(many.mean() - 0.5) < 0.01 and abs(np.corrcoef(many.T)[0, 1]) < 0.02
    )


def test_stratified_subsets_are_exact_and_in_proportion():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    chosen = stratified(labels, 101, 0)
    assert len(chosen) == len(set(chosen)) == 101
    assert np.abs(np.bincount(labels[chosen]) - [60.6, 30.3, 10.1]).max() < 1
    assert set(labels[stratified(labels, 3, 0)]) == {0, 1, 2}
    with pytest.raises(WinnowError, match="1001 images wanted, 1000 are there"):
        stratified(labels, 1001, 0)


def test_digits_splits_do_not_overlap_and_do_not_move_with_the_run():
    sets = load(data(classes=[5, 6, 7]), None)
    assert sets.num_classes == 3 and set(sets.train.labels) == {0, 1, 2}
    seen = [i.tobytes() for s in (sets.train, sets.val, sets.test) for i in s.images]
    assert len(set(seen)) >= len(seen) - 2  # the set itself holds hardly any twins
    again = load(data(classes=[5, 6, 7]), None)
    assert np.array_equal(sets.val.images, again.val.images)
    part = fraction(sets.train, 0.1, 4)
    assert len(part) == round(0.1 * len(sets.train)) and set(part.labels) == {0, 1, 2}


def test_tar_folder_and_npz_pack_to_the_same_arrays(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        for split in ("train", "test"):
            for label in ("cat", "dog"):
                for i in range(2):
                    buffer = io.BytesIO()
                    Image.fromarray(np.full((6, 6, 3), 40 * i + len(label + split), np.uint8)).save(buffer, "png")
                    info = tarfile.TarInfo(f"../../evil/{split}/{label}/{i}.png")
                    info.size = len(buffer.getvalue())
                    archive.addfile(info, io.BytesIO(buffer.getvalue()))
                    path = tmp_path / "folder" / split / label / f"{i}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(buffer.getvalue())
    before = {p for p in tmp_path.rglob("*")}
    for source in ("set.tar.gz", "folder"):
        pack(tmp_path / source, tmp_path / f"{source}.npz", None)
    assert {p.name for p in tmp_path.rglob("*")} - {p.name for p in before} == {"set.tar.gz.npz", "folder.npz"}
    sets = [load(data(dataset="npz", path=f"{s}.npz", val_images=2), tmp_path) for s in ("set.tar.gz", "folder")]
    folder = load(data(dataset="imagefolder", path="folder", val_images=2), tmp_path)
    assert np.array_equal(sets[0].train.images, sets[1].train.images)
    assert len(folder.train) == len(sets[0].train) and np.array_equal(folder.test.labels, sets[0].test.labels)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    with pytest.raises(WinnowError, match=r"bad\.png: cannot be decoded"):
        list(Loader(of_files([bad, bad], np.zeros(2, int)), data(), 2, CPU).once())
