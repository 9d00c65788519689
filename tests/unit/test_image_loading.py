"""Batches from files: torchvision's pixels on the same boxes, one set of workers for a loader's life, and waiting that
is told.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from winnow.compat import torchvision
from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.schema import parse
from winnow.vision import files, geometry
from winnow.vision.batches import Loader
from winnow.vision.sources import of_files

CPU = torch.device("cpu")


def data(**keys):
    return parse(Data, {"dataset": "imagefolder", "val_images": 1, "image_size": 24} | keys)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[Path]:
    """Real photographs from scikit-learn's two, cut out at many sizes, as JPEG."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.submodule_search_locations
    folder, paths = tmp_path_factory.mktemp("photographs"), []
    for name in ("china.jpg", "flower.jpg"):
        image = Image.open(Path(spec.submodule_search_locations[0]) / "datasets/images" / name)
        for i, (width, height) in enumerate([(300, 200), (200, 301), (97, 64), (64, 64), (640, 427)]):
            left, top = (image.width - width) // 2, (image.height - height) // 3
            paths.append(folder / f"{name}{i}.jpg")
            image.crop((left, top, left + width, top + height)).save(paths[-1], quality=92)
    return paths


def loader(paths, workers=0, batch=4, **keys) -> Loader:
    return Loader(of_files(paths, np.arange(len(paths)) % 3), data(**keys), batch, CPU, seed=7, workers=workers)


def in_order(loader: Loader, epoch: int) -> torch.Tensor:
    """The images of an epoch, image 0 first; the labels tell nothing, so the order is drawn again."""
    from winnow.rng import numpy_generator

    order = numpy_generator(loader.seed, "order", epoch).permutation(len(loader.split))
    batches = torch.cat([x for x, _ in loader.epoch(epoch)])
    return batches[torch.from_numpy(np.argsort(order))]


def test_training_pixels_are_torchvisions_on_the_same_boxes(photographs):
    functional = torchvision().transforms.functional
    found = in_order(loader(photographs, train_crop="resized", flip=True, image_size=120), 3)
    drawn = geometry.draws(np.arange(len(photographs)), 7, 3)
    flips = geometry.flips(drawn, data(flip=True))
    assert 0 < flips.sum() < len(flips)
    for path, x, row, flip in zip(photographs, found, drawn, flips, strict=True):
        image = torchvision().datasets.folder.default_loader(str(path))
        top, left, height, width = geometry.random_boxes(image.height, image.width, row[None])[0].tolist()
        expected = functional.to_tensor(functional.resized_crop(image, top, left, height, width, [120, 120]))
        assert (x - (expected.flip(-1) if flip else expected)).abs().max() <= 1.01 / 255


def test_boxes_are_distributed_as_torchvisions():
    transforms, n = torchvision().transforms, 4000
    ours = geometry.random_boxes(375, 500, geometry.draws(np.arange(n), 0, 0))
    torch.manual_seed(0)
    image = Image.new("L", (500, 375))
    theirs = np.array([transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(n)])
    inside = (theirs[:, 2] < 375) & (theirs[:, 3] < 500)  # torchvision draws again what we clip to the image
    kept = (ours[:, 2] < 375) & (ours[:, 3] < 500)
    for a, b in ((ours[kept], theirs[inside]),):
        assert np.abs(np.percentile(a, [10, 50, 90], axis=0) - np.percentile(b, [10, 50, 90], axis=0)).max() < 20
    assert (ours[:, 0] + ours[:, 2] <= 375).all() and (ours[:, 1] + ours[:, 3] <= 500).all() and (ours >= 0).all()


def test_test_time_pixels_are_torchvisions(photographs):
    transforms = torchvision().transforms
    expected = transforms.Compose([transforms.Resize(40), transforms.CenterCrop(32), transforms.ToTensor()])
    found = torch.cat([x for x, _ in loader(photographs, test_resize=40, image_size=32).once()])
    for path, x in zip(photographs, found, strict=True):
        image = torchvision().datasets.folder.default_loader(str(path))
        if min(image.size) < 240:  # larger ones are decoded at half their size: the next test
            assert (x - expected(image)).abs().max() <= 1.01 / 255


def test_a_large_jpeg_may_be_decoded_smaller_and_looks_the_same(photographs):
    transforms = torchvision().transforms
    large = [p for p in photographs if Image.open(p).size == (640, 427)]
    plain = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(24), transforms.ToTensor()])
    found = torch.cat([x for x, _ in loader(large, test_resize=32).once()])
    for path, x in zip(large, found, strict=True):
        difference = (x - plain(torchvision().datasets.folder.default_loader(str(path)))).abs()
        assert 0 < difference.mean() < 2 / 255 and difference.quantile(0.99) < 8 / 255


@pytest.mark.parametrize(
    "keys", [{"train_crop": "resized", "flip": True}, {"train_crop": "pad", "flip": True, "test_resize": 30}]
)
def test_workers_change_nothing_and_an_epoch_can_be_entered_in_the_middle(photographs, keys):
    alone, two = loader(photographs, **keys), loader(photographs, workers=2, **keys)
    for epoch in (0, 1):
        whole = list(alone.epoch(epoch))
        assert all(
            torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(whole, two.epoch(epoch), strict=True)
        )
        rest = list(two.epoch(epoch, first=1))
        assert len(rest) == len(whole) - 1 and all(
            torch.equal(a[0], b[0]) for a, b in zip(whole[1:], rest, strict=True)
        )
    assert not torch.equal(next(alone.epoch(0))[0], next(alone.epoch(1))[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_pieces_of_a_batch_change_nothing(photographs, monkeypatch, workers):
    keys = {"train_crop": "resized", "flip": True}
    whole = [x for x, _ in loader(photographs, batch=7, **keys).epoch(0)]
    monkeypatch.setattr(files, "PIECE", 3)
    pieces = [x for x, _ in loader(photographs, workers=workers, batch=7, **keys).epoch(0)]
    assert [len(x) for x in pieces] == [7, 3] and all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_pieces_of_several_sizes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE", 1)
    paths = [tmp_path / f"{side}.png" for side in (8, 9)]
    for path in paths:
        Image.new("RGB", (int(path.stem),) * 2).save(path)
    with pytest.raises(WinnowError, match=r"8.png: images of several sizes in its batch"):
        list(Loader(of_files(paths, np.zeros(2, np.int64)), data(image_size=None), 2, CPU).once())


def test_one_set_of_workers_serves_epochs_and_passes_that_are_left_early(photographs):
    before = {p.pid for p in multiprocessing.active_children()}
    files, alone = loader(photographs, workers=2, batch=2), loader(photographs, batch=2)
    state = torch.get_rng_state()
    assert torch.equal(next(files.epoch(0))[0], next(alone.epoch(0))[0])
    workers = {p.pid for p in multiprocessing.active_children()} - before
    assert len(workers) == 2
    for epoch in (1, 2):
        for (a, _), (b, _) in zip(files.epoch(epoch), alone.epoch(epoch), strict=True):
            assert torch.equal(a, b)
        assert all(torch.equal(a[0], b[0]) for a, b in zip(files.once(), alone.once(), strict=True))
    assert {p.pid for p in multiprocessing.active_children()} - before == workers
    assert torch.equal(torch.get_rng_state(), state)  # the run's random numbers are its own
    assert files.waited > 0


def test_paths_take_a_fixed_place_each_and_any_name(tmp_path, photographs):
    name = os.fsencode(tmp_path) + b"/\xff \xc3\xa4.jpg"
    Path(os.fsdecode(name)).write_bytes(photographs[0].read_bytes())
    split = of_files([photographs[0], Path(os.fsdecode(name))], np.zeros(2, np.int64))
    assert split.images.dtype.kind == "S" and split.in_files and split.take(np.array([1])).images[0] == name
    x, _ = next(Loader(split, data(), 2, CPU).once())
    assert torch.equal(x[0], x[1])


def test_sizes_that_differ_within_a_batch_are_refused_by_a_loader_of_ones_own(photographs):
    with pytest.raises(WinnowError, match=r"images of several sizes|are not square"):
        list(Loader(of_files(photographs, np.zeros(len(photographs), np.int64)), data(image_size=None), 4, CPU).once())


def test_waiting_is_recorded_with_the_run_times_and_warned_of(run_stage, photographs, tmp_path, monkeypatch):
    for split in ("train", "test"):
        for i, path in enumerate(photographs):
            folder = tmp_path / "data/set" / split / f"c{i % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / path.name).symlink_to(path)
    config = {"method": "std", "model": {"arch": "resnet8", "width": 4}, "compute": {}, "seed": 0}
    config |= {
        "data": {"dataset": "imagefolder", "path": "set", "val_images": 2, "image_size": 8, "train_crop": "resized"}
    }
    config |= {"train": {"epochs": 2, "batch_size": 4, "lr": 0.01}}
    code, err = run_stage("pretrain", config, out="a.safetensors", metrics="a.json")
    record = json.loads((tmp_path / "a.json").read_text())
    assert code == 0 and [e["epoch"] for e in record["run"]["epochs"]] == [1, 2]
    assert all(e["examples_per_second"] > 0 and 10 < e["waiting_percent"] <= 100 for e in record["run"]["epochs"])
    assert "waited for data for" in err and "raise workers, or pack the images" in err
    assert "waiting" not in json.dumps({k: v for k, v in record.items() if k != "run"})
    arrays = {"data": {"dataset": "digits", "val_images": 20, "train_images": 50}}
    code, err = run_stage("pretrain", config | arrays, out="b.safetensors", metrics="b.json")
    assert code == 0 and "waited" not in err
    assert json.loads((tmp_path / "b.json").read_text())["run"]["epochs"][0]["waiting_percent"] == 0
