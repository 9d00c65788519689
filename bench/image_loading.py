"""Loading 500x375 JPEG photographs for training (RandomResizedCrop 224, flip) and evaluation (256, centre crop 224).

Plain: torchvision's ImageFolder with the transforms of every ImageNet recipe, in a DataLoader, on the boxes that winnow
draws. winnow: `Loader` on the same files; on a set packed at 256 pixels, resized by the CPU; and what the CPU has left
to do for such a set when a GPU resizes. All in one process on one core, so a ratio is that of images a second a core.
Pixels are compared first: those of files within one level of 255, the packed set's with torchvision on the packed
images.

    python -m bench.image_loading [--threads 1] [--repeats 5]
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.common import PLAIN, Run, arguments, race
from winnow.compat import torchvision
from winnow.config.parts import Compute, Data
from winnow.train.device import configure
from winnow.vision import batches, geometry, packing
from winnow.vision.packed import PackedFeed
from winnow.vision.sources import load

GOALS = {
    "train": {"files": 1.3, "packed": 2.0, "packed for a GPU": 8.0},
    "test": {"files": 1.3, "packed": 2.0, "packed for a GPU": 8.0},
}
SEED, BATCH, IMAGES, SIZE = 0, 32, 128, 224


def photographs(folder: Path, count: int) -> None:
    """`count` cuts of 500x375 from scikit-learn's two photographs, in train/ and test/, 70 to 80 KB each."""
    from PIL import Image

    spec, rng = importlib.util.find_spec("sklearn"), np.random.default_rng(0)
    whole = [
        Image.open(Path(spec.submodule_search_locations[0]) / "datasets/images" / n)
        for n in ("china.jpg", "flower.jpg")
    ]
    for split in ("train", "test"):
        for i in range(count):
            path = folder / split / f"c{i % 2}" / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            left, top = int(rng.integers(0, 140)), int(rng.integers(0, 52))
            whole[i % 2].crop((left, top, left + 500, top + 375)).save(path, quality=92)


def settings(folder: Path, dataset: str, path: str) -> Data:
    return Data(
        dataset=dataset,
        path=str(folder / path),
        image_size=SIZE,
        test_resize=256,
        train_crop="resized",
        flip=True,
        val_images=2,
    )


class Plain:
    """`sets` only tells which files are in the training split, and in which order."""

    def __init__(self, folder, training, threads):
        torch.set_num_threads(threads)
        transforms, self.functional = torchvision().transforms, torchvision().transforms.functional
        data = settings(folder, "imagefolder", "photos")
        sets = load(data, Path())
        self.training, split = training, sets.train if training else sets.test
        self.boxes = geometry.draws(np.arange(len(split)), SEED, 0)
        self.flips = geometry.flips(self.boxes, data)
        self.paths = [p.decode() for p in split.images]
        self.read = torchvision().datasets.folder.default_loader
        self.test = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(SIZE), transforms.ToTensor()])
        order = np.random.default_rng(0).permutation(len(split)) if training else np.arange(len(split))
        self.loader = torch.utils.data.DataLoader(self, BATCH, sampler=order.tolist())

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        image = self.read(self.paths[i])
        if not self.training:
            return self.test(image), 0
        top, left, height, width = geometry.random_boxes(image.height, image.width, self.boxes[[i]])[0].tolist()
        image = self.functional.resized_crop(image, top, left, height, width, [SIZE, SIZE])
        return self.functional.to_tensor(self.functional.hflip(image) if self.flips[i] else image), 0

    def run(self):
        for _ in self.loader:
            pass

    def answer(self):
        return torch.stack([self[i][0] for i in range(8)]).numpy()


class Files:
    dataset, path = "imagefolder", "photos"

    def __init__(self, folder, training, threads):
        configure(Compute(threads=threads), torch.device("cpu"))
        batches.RESIDENT_BYTES = 0  # the set is small; what is measured is that of one which is not
        self.training, self.data = training, settings(folder, self.dataset, self.path)
        sets = load(self.data, Path())
        self.split = sets.train if training else sets.test
        self.loader = batches.Loader(self.split, self.data, BATCH, torch.device("cpu"), SEED)

    def run(self):
        for _ in self.loader.epoch(0) if self.training else self.loader.once():
            pass

    def first(self):
        feed = self.loader._feed.batches([np.arange(8)], 0 if self.training else None)
        return next(iter(self.loader._timed(feed)))

    def answer(self):
        return self.loader._finished(self.first(), np.arange(8), 0 if self.training else None).numpy()


class PackedSet(Files):
    dataset, path = "packed", "packed"


class ForGPU(PackedSet):
    """The CPU's part alone; `answer` does the GPU's part too."""

    def __init__(self, folder, training, threads):
        super().__init__(folder, training, threads)
        self.loader._feed = PackedFeed(self.split.images, self.data, SEED, resized=False, pinned=False)

    def run(self):
        parts = [np.arange(i, min(i + BATCH, len(self.split))) for i in range(0, len(self.split), BATCH)]
        for _ in self.loader._feed.batches(parts, 0 if self.training else None):
            pass


def agree(path, plain, ours):
    """Files: the same pixels. Packed: the same scenes, since what was resized twice is another image."""
    off = np.abs(plain - ours)
    found = {"largest difference, levels": float(off.max() * 255), "mean difference, levels": float(off.mean() * 255)}
    if path == "files":
        assert off.max() <= 1.01 / 255, f"{path}: pixels differ by {off.max() * 255:.2f} levels"
    return found


def main(argv=None):
    args = arguments(__doc__, argv)
    run, count = Run("image_loading", args), 12 if args.tiny else IMAGES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs(folder / "photos", count)
        packing.pack(folder / "photos", folder / "packed", packing.Resize(image_size=256))
        for case, training in (("train", True), ("test", False)):
            own = {"folder": folder, "training": training, "threads": args.threads}
            paths = {
                PLAIN: (Plain, own),
                "files": (Files, own),
                "packed": (PackedSet, own),
                "packed for a GPU": (ForGPU, own),
            }
            run.add(*race(f"{case} images, 500x375 JPEG to {SIZE}", paths, agree, GOALS[case], args))
    run.write()


if __name__ == "__main__":
    main()
