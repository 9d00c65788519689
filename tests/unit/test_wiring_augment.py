"""Augmentation over many draws: how often it flips, where crops lie, how large boxes are, that epochs and images
differ.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from winnow.config.parts import Data
from winnow.errors import WinnowError
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


def test_boxes_are_the_rule_s_for_their_own_numbers():
    """Area, ratio, top and left of an image, each by its own number, as in torchvision's RandomResizedCrop."""
    rng = np.random.default_rng(0)
    drawn, heights, widths = rng.random((400, 6)), rng.integers(1, 90, 400), rng.integers(1, 90, 400)
    found = geometry.random_boxes(heights, widths, drawn)
    for box, (_, area, ratio, top, left, _), height, width in zip(found, drawn, heights, widths, strict=True):
        pixels = (0.08 + 0.92 * area) * height * width
        aspect = math.exp(math.log(3 / 4) + ratio * math.log((4 / 3) / (3 / 4)))
        w = min(max(round(math.sqrt(pixels * aspect)), 1), width)
        h = min(max(round(math.sqrt(pixels / aspect)), 1), height)
        assert box.tolist() == [math.floor(top * (height - h + 1)), math.floor(left * (width - w + 1)), h, w]
    shifts = geometry.shifts(drawn, 3)
    assert shifts.tolist() == [[math.floor(7 * a), math.floor(7 * b)] for _, a, b, *_ in drawn]
    assert geometry.flips(drawn, data(flip=True)).tolist() == [a < 0.5 for a, *_ in drawn]
    assert geometry.draws(np.array([4, 9]), 1, 2).shape == (2, 6)


def test_test_views_by_hand():
    view = geometry.test_view
    assert view(24, 24, data()) is None and view(24, 24, data(image_size=24)) is None
    assert view(24, 24, data(image_size=16)) == geometry.TestView(16, 16, 0, 0, 16)
    assert view(24, 30, data(image_size=24)) == geometry.TestView(24, 24, 0, 0, 24)
    wide = view(40, 60, data(image_size=16, test_resize=20))
    assert wide == geometry.TestView(20, 30, 2, 7, 16) and view(60, 40, data(image_size=16, test_resize=20)) == (
        geometry.TestView(30, 20, 7, 2, 16)
    )
    assert view(40, 40, data(image_size=16, test_resize=16)) == geometry.TestView(16, 16, 0, 0, 16)
    assert wide.box(40, 60).tolist() == [4.0, 14.0, 32.0, 32.0]
    with pytest.raises(WinnowError, match="not square"):
        view(24, 30, data())
    with pytest.raises(WinnowError, match="15 is below the image size 16"):
        view(40, 60, data(image_size=16, test_resize=15))


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
