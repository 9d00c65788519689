"""Robust accuracy under PGD-20: batches, attack, prediction.

Plain: advertorch's LinfPGDAttack on a model in evaluation mode, a DataLoader over PIL images. winnow:
`robust_accuracy`, as the evaluation stage calls it. Same weights, batch size and threads. The labels are the network's
own clean predictions and the radius is small, so that some images survive; the accuracies of both paths without a
random start are compared first.

    python -m bench.pgd_evaluation [--device cuda] [--threads 1] [--repeats 5]
"""

from __future__ import annotations

import numpy as np
import torch

from bench import images
from bench.common import PLAIN, Run, arguments, race
from winnow.config.parts import Attack, Compute, Data, Model
from winnow.train.device import configure
from winnow.vision.batches import Loader
from winnow.vision.evaluate import robust_accuracy
from winnow.vision.sources import Split
from winnow.vision.training import place

EPS, STEPS = 1 / 255, 20
GOALS = {"float32": 1.3, "bf16": 2.0}
CASE = ("ResNet-18 32x32", Model(arch="resnet18", imagenet_stem=False), 32, (8, 1024))
TINY = ("ResNet-8 16x16", Model(arch="resnet8", width=4), 16, (8, 8))


def attack(random_start):
    return Attack(eps=EPS, step_size=EPS / 4, steps=STEPS, random_start=random_start)


def labelled(model, size, count):
    """Images with the labels that the network gives them."""
    split = images.split(count, size)
    with torch.no_grad():
        logits = images.network(model, size).eval()(torch.from_numpy(split.images).float() / 255)
    return Split(split.images, logits.argmax(1).numpy().astype(np.int64))


class Plain:
    def __init__(self, model, size, batch, device, threads):
        torch.set_num_threads(threads)
        self.device, self.model = torch.device(device), images.network(model, size).to(device).eval()
        self.loader = torch.utils.data.DataLoader(
            images.Pictures(labelled(model, size, batch), None), batch, pin_memory=device != "cpu"
        )

    def accuracy(self, random_start):
        adversary, right = images.advertorch_pgd(self.model, attack(random_start), random_start), 0
        for x, y in self.loader:
            x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            adversarial = adversary.perturb(x, y)
            with torch.no_grad():
                right += (self.model(adversarial).argmax(1) == y).sum().item()
        return 100 * right / len(self.loader.dataset)

    def run(self):
        self.accuracy(random_start=True)

    def answer(self):
        return self.accuracy(random_start=False)


class Winnow:
    def __init__(self, model, size, batch, device, threads, precision):
        self.compute = Compute(threads=threads, precision=precision, deterministic=False)
        self.device = torch.device(device)
        configure(self.compute, self.device)
        self.model = place(images.network(model, size), self.compute, self.device)
        self.loader = Loader(labelled(model, size, batch), Data(dataset="cifar10", val_images=1), batch, self.device)

    def run(self):
        robust_accuracy(self.model, self.loader, attack(True), self.compute, seed=0)

    def answer(self):
        return robust_accuracy(self.model, self.loader, attack(False), self.compute, seed=0)


def agree(batch):
    """The same images survive, but for one or two on the edge of their class."""

    def check(path, plain, ours):
        allowed = 1 if path == "float32" else 2
        found = {"robust accuracy, images": abs(plain - ours) * batch / 100, "robust accuracy of plain, percent": plain}
        assert found["robust accuracy, images"] <= allowed + 1e-6, f"{path}: robust accuracy {ours} %, plain {plain} %"
        return found

    return check


def main(argv=None):
    args = arguments(__doc__, argv)
    run = Run("pgd_evaluation", args)
    name, model, size, batches = TINY if args.tiny else CASE
    batch = batches[args.device.startswith("cuda")]
    settings = {"model": model, "size": size, "batch": batch, "device": args.device, "threads": args.threads}
    paths = {PLAIN: (Plain, settings), **{p: (Winnow, {**settings, "precision": p}) for p in GOALS}}
    run.add(*race(f"PGD-20 evaluation, {name}, batch {batch}", paths, agree(batch), GOALS, args))
    run.write()


if __name__ == "__main__":
    main()
