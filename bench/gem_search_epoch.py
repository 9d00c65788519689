"""A Gem-Miner search epoch (ResNet-20, CIFAR-sized images): winnow against the textbook way.

Plain: a convolution subclass with an autograd.Function for the rounding, clamping by parameter name, a penalty over all scores
in the autograd graph, torch's SGD, and a DataLoader over PIL transforms, in float32. winnow: the search's own step on images
that live on the device, in float32 and in bf16. Same weights, start scores, batch size and threads; the losses of five steps on
the same images are compared before anything is timed. Epochs alternate; medians of --repeats, ratios with their spread.

    python bench/gem_search_epoch.py [--device cuda] [--images 1024] [--repeats 5] [--threads 1] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from winnow.compat import torchvision
from winnow.config.gems import Search
from winnow.config.parts import Compute, Data, Model
from winnow.gems.inits import initialise
from winnow.gems.scores import scorable
from winnow.gems.search import GemSearch, start_scores
from winnow.train.device import configure
from winnow.vision import models
from winnow.vision.batches import Loader
from winnow.vision.sources import Split

LMBDA, LR, BATCH = 1e-4, 0.1, 128
MODEL = Model(arch="resnet20", classifier="conv1x1", bn="non_affine")
DATA = Data(dataset="cifar10", train_crop="pad", flip=True, val_images=1)
SEARCH = Search(algo="hc_iter", target_sparsity=5, iter_period=1, lmbda=LMBDA)


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores):
        return (scores > 0.5).float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class SubnetConv(nn.Conv2d):
    def setup(self, scores):
        self.scores = nn.Parameter(scores.clone())
        self.register_buffer("flag", torch.ones_like(self.weight))
        self.weight.requires_grad_(False)

    def forward(self, x):
        return F.conv2d(x, self.weight * Round.apply(self.scores) * self.flag, None, self.stride, self.padding)


class Pictures(torch.utils.data.Dataset):
    """PIL images and the usual transforms."""

    def __init__(self, split):
        from PIL import Image

        transforms = torchvision().transforms
        self.images = [Image.fromarray(x.transpose(1, 2, 0)) for x in split.images]
        self.labels = split.labels
        self.transform = transforms.Compose([
            transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()
        ])  # fmt: skip

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(self.images[i]), int(self.labels[i])


def start(device):
    torch.manual_seed(0)
    model = models.build(MODEL, 10)
    initialise(model, scorable(model), "signed_constant", 1.0, 0)
    return model.to(device), start_scores(model, "unif", 0)


class Plain:
    def __init__(self, split, device, workers):
        self.model, scores = start(device)
        for name, module in list(self.model.named_modules()):
            if isinstance(module, nn.Conv2d):
                module.__class__ = SubnetConv
                module.setup(scores[f"{name}.weight"].to(device))
        self.optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], lr=LR, momentum=0.9)
        self.device = device
        self.loader = torch.utils.data.DataLoader(
            Pictures(split), BATCH, shuffle=True, num_workers=workers, pin_memory=device.type == "cuda"
        )

    def step(self, x, y):
        for name, parameter in self.model.named_parameters():
            if "scores" in name:
                parameter.data = torch.clamp(parameter.data, 0.0, 1.0)
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        penalty = 0.0
        for name, parameter in self.model.named_parameters():
            if "scores" in name:
                penalty = penalty + torch.norm(parameter, p=2) ** 2
        (loss + LMBDA * penalty).backward()
        self.optimizer.step()
        return float(loss.detach())

    def epoch(self, _):
        self.model.train()
        for x, y in self.loader:
            self.step(x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True))

    def rounded(self):
        layers = ((n, m) for n, m in self.model.named_modules() if isinstance(m, SubnetConv))
        return {f"{n}.weight": m.scores.detach() > 0.5 for n, m in layers}


class Winnow:
    def __init__(self, split, device, compute):
        self.model, scores = start(device)
        self.model.to(memory_format=torch.channels_last)
        self.gem = GemSearch(self.model, scores, SEARCH, epochs=10)
        self.optimizer = torch.optim.SGD([self.gem.scored.scores], lr=LR, momentum=0.9)
        self.compute, self.loader = compute, Loader(split, DATA, BATCH, device)

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.gem.step(x, y, self.compute)
        self.gem.before_update()
        self.optimizer.step()
        self.gem.after_update()
        return float(loss)

    def epoch(self, number):
        self.model.train()
        for x, y in self.loader.epoch(number):
            self.step(x, y)

    def rounded(self):
        return self.gem.scored.views(self.gem.rounded())


def compare(plain, ours, device):
    """Five steps on the same images: the largest difference of losses, and the share of equal mask bits after them."""
    generator = torch.Generator().manual_seed(1)
    plain.model.train()
    ours.model.train()
    worst = 0.0
    for _ in range(5):
        x = torch.rand(BATCH, 3, 32, 32, generator=generator).to(device)
        y = torch.randint(0, 10, (BATCH,), generator=generator).to(device)
        worst = max(worst, abs(plain.step(x, y) - ours.step(x, y)))
    theirs, own = plain.rounded(), ours.rounded()
    return worst, sum(int((theirs[n] == own[n]).sum()) for n in own) / sum(v.numel() for v in own.values())


def timed(epoch, number, device):
    begun = time.perf_counter()
    epoch(number)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu")
    p.add_argument("--images", type=int, default=1024)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--workers", type=int, default=0, help="worker processes of the plain loader")
    p.add_argument("--out", type=Path, default=Path("docs/benchmarks/gem_search_epoch.json"))
    args = p.parse_args()
    device = torch.device(args.device)
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (args.images, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, args.images))
    result = {"device": str(device), "machine": platform.machine(), "torch": torch.__version__, "threads": args.threads}
    result |= {"images": args.images, "batch": BATCH, "repeats": args.repeats, "plain_workers": args.workers, "runs": {}}
    for precision in ("float32", "bf16"):
        compute = Compute(threads=args.threads, precision=precision, deterministic=False)
        configure(compute, device)
        plain, ours = Plain(split, device, args.workers), Winnow(split, device, compute)
        worst, same = compare(plain, ours, device)
        # scores near 0.5 round differently after sums in another order, so losses of later steps part a little
        assert worst < (0.02 if precision == "float32" else 0.2), f"losses differ by {worst}"
        assert same > 0.99, f"only {100 * same:.2f} % of the mask bits agree"
        times = {"plain": [], "winnow": []}
        for k in range(args.repeats + 1):  # the first pair warms up
            for name, side in (("plain", plain), ("winnow", ours)):
                times[name].append(timed(side.epoch, k, device))
        ratios = sorted(a / b for a, b in list(zip(times["plain"], times["winnow"], strict=True))[1:])
        record = {
            "plain_float32_seconds": statistics.median(times["plain"][1:]),
            "winnow_seconds": statistics.median(times["winnow"][1:]),
            "ratio": statistics.median(ratios),
            "ratio_min": ratios[0],
            "ratio_max": ratios[-1],
            "largest_loss_difference": worst,
            "equal_mask_bits": same,
        }
        result["runs"][precision] = record
        print(
            f"{precision:8} plain (float32) {record['plain_float32_seconds']:.2f} s, winnow {record['winnow_seconds']:.2f} s: "
            f"{record['ratio']:.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f}); losses within {worst:.1e}, mask bits equal {same:.5f}",
            flush=True,
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
