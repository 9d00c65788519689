"""Augmentation over many draws: how often it flips, where crops lie, how large boxes are, that epochs and images
differ.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from winnow.config.parts import Data
from winnow.vision import geometry
from winnow.vision.augment import train_batch
from winnow.vision.batches import Loader
from winnow.vision.sources import Split

CPU = torch.device("cpu")
N, SIDE = 3000, 9


def data(**keys) -> Data:
    return Data(dataset="digits", val_images=1, **keys)


def coordinates(side: int = SIDE, n: int = N) -> torch.Tensor:
    """Images that say where their pixels lay: channel 0 holds the row + 1, channel 1 the column + 1, channel 2 is 1."""
    grid = torch.arange(1, side + 1, dtype=torch.uint8)
    rows, columns = torch.meshgrid(grid, grid, indexing="ij")
    return torch.stack([rows, columns, torch.ones_like(rows)]).expand(n, -1, -1, -1).contiguous()


def read_off(out: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row shift, column shift, mirrored) of every pad-cropped coordinate image, read off the pixel in the middle."""
    whole = torch.round(out * 255)
    middle = whole.shape[-1] // 2
    rows = whole[:, 0, middle, middle] - 1 - middle
    mirrored = whole[:, 1, middle, middle + 1] < whole[:, 1, middle, middle - 1]
    columns = whole[:, 1, middle, middle] - 1 - middle
    return rows.int().numpy(), columns.int().numpy(), mirrored.numpy()


def test_half_of_the_images_are_mirrored_and_only_when_asked():
    mirrored = read_off(train_batch(coordinates(), np.arange(N), data(flip=True), 0, 0))[2]
    assert mirrored.mean() == pytest.approx(0.5, abs=0.03)
    for keys in ({}, {"train_crop": "pad", "crop_padding": 2}):
        assert not read_off(train_batch(coordinates(), np.arange(N), data(**keys), 0, 0))[2].any()


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_pad_crops_reach_every_shift_alike(padding):
    rows, columns, mirrored = read_off(
        train_batch(coordinates(), np.arange(N), data(train_crop="pad", crop_padding=padding, flip=True), 0, 0)
    )
    wanted = list(range(-padding, padding + 1))
    for shifts in (rows, columns):
        values, counts = np.unique(shifts, return_counts=True)
        assert values.tolist() == wanted
        assert np.abs(counts / N - 1 / len(wanted)).max() < 0.03
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.06 and abs(np.corrcoef(rows, mirrored)[0, 1]) < 0.06


@pytest.mark.parametrize("keys", [{"train_crop": "pad", "flip": True}, {"train_crop": "resized", "flip": True}])
def test_epochs_seeds_and_images_differ_and_a_draw_repeats(keys):
    def batch(seed: int, epoch: int) -> torch.Tensor:
        return train_batch(coordinates(n=200), np.arange(200), data(**keys), seed, epoch)

    first = batch(0, 0)
    assert torch.equal(first, batch(0, 0))
    for other in (batch(0, 1), batch(1, 0)):
        assert np.mean([torch.equal(a, b) for a, b in zip(first, other, strict=True)]) < 0.1
    assert len({i.numpy().tobytes() for i in first}) > 100 if keys["train_crop"] == "resized" else 40


def test_the_loader_hands_epoch_and_seed_on():
    def seen(seed: int, epoch: int) -> dict[int, bytes]:
        split = Split(coordinates(n=40).numpy(), np.arange(40))
        loader = Loader(split, data(train_crop="pad", crop_padding=2), 7, CPU, seed=seed)
        return {int(y): x.numpy().tobytes() for xs, ys in loader.epoch(epoch) for x, y in zip(xs, ys, strict=True)}

    first = seen(0, 0)
    assert set(first) == set(range(40)) and first == seen(0, 0)
    for other in (seen(0, 1), seen(1, 0)):
        assert sum(first[k] == other[k] for k in first) < 10


def test_epochs_are_in_another_order_and_evaluation_is_in_none():
    split = Split(coordinates(n=40).numpy(), np.arange(40))

    def labels(batches) -> list[int]:
        return [int(y) for _, ys in batches for y in ys]

    loader, other = Loader(split, data(), 7, CPU, seed=0), Loader(split, data(), 7, CPU, seed=1)
    orders = [labels(loader.epoch(0)), labels(loader.epoch(1)), labels(other.epoch(0)), list(range(40))]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    assert labels(loader.once()) == list(range(40))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 90), (90, 40)])
def test_resized_crops_are_8_to_100_percent_of_the_area_and_within_the_image(height, width):
    settings = data(train_crop="resized", image_size=16, flip=True)
    drawn = geometry.draws(np.arange(N), 0, 0)
    boxes = geometry.random_boxes(np.full(N, height), np.full(N, width), drawn)
    flips = geometry.flips(drawn, settings)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, height, width), dtype=np.uint8))
    for i, out in enumerate(train_batch(images, np.arange(8), settings, 0, 0)):  # these boxes are what is seen
        t, b, l_, r = boxes[i, 0], boxes[i, 0] + boxes[i, 2], boxes[i, 1], boxes[i, 1] + boxes[i, 3]
        crop = images[i : i + 1, :, t:b, l_:r] / 255
        expected = torch.nn.functional.interpolate(crop, size=(16, 16), mode="bilinear", antialias=True)[0]
        assert (out - (expected.flip(-1) if flips[i] else expected)).abs().max() < 1.5 / 255
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= height).all() and (left + w <= width).all()
    assert (h >= 1).all() and (w >= 1).all() and flips.mean() == pytest.approx(0.5, abs=0.03)
    share = h * w / (height * width)
    assert share.min() > 0.06 and share.max() <= 1.0 and (share < 0.1).mean() > 0.005
    if height == width:
        assert share.max() > 0.93 and share.mean() == pytest.approx(0.53, abs=0.05)  # U(0.08, 1), wide boxes clipped
        ratio = np.log(w / h)
        assert np.abs(ratio[share < 0.5]).max() < np.log(4 / 3) + 0.08 and abs(ratio.mean()) < 0.02
        assert ratio[share < 0.5].std() == pytest.approx(np.log(4 / 3) / 3**0.5, rel=0.1)
    for start, room in ((top, height - h), (left, width - w)):
        free = room > 5
        assert (start[free] / room[free]).mean() == pytest.approx(0.5, abs=0.04)
        assert (start[free] == room[free]).any() and (start[free] == 0).any()
