"""A Gem-Miner search epoch (ResNet-20, CIFAR-sized images).

Plain: a convolution subclass with an autograd.Function for the rounding, clamping by parameter name, a penalty over all
scores in the autograd graph, torch's SGD, and a DataLoader over PIL transforms, in float32. winnow: the search's own
step on images that live on the device, in float32 and in bf16. Same weights, start scores, batch size and threads; the
losses of five steps on the same images and the masks after them are compared first.

    python -m bench.gem_search_epoch [--device cuda] [--threads 1] [--repeats 5]
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bench import images
from bench.common import PLAIN, Run, arguments, race
from winnow.config.gems import Search
from winnow.config.parts import Compute, Data, Model, Train
from winnow.gems.inits import initialise
from winnow.gems.scores import scorable
from winnow.gems.search import GemSearch, start_scores
from winnow.train.device import configure
from winnow.train.optim import make_optimizer
from winnow.vision import models
from winnow.vision.batches import Loader
from winnow.vision.training import place

LMBDA, BATCH = 1e-4, 128
TRAIN = Train(epochs=1, batch_size=BATCH, lr=0.1, momentum=0.9)
DATA = Data(dataset="cifar10", train_crop="pad", flip=True, val_images=1)
SEARCH = Search(algo="hc_iter", target_sparsity=5, iter_period=1, lmbda=LMBDA)
GOALS = {"cpu": {"float32": 1.4, "bf16": 2.0}, "cuda": {"float32": 8.0, "bf16": 8.0}}


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


def start(width):
    """The same network and scores on every path."""
    torch.manual_seed(0)
    model = models.build(Model(arch="resnet20", width=width, classifier="conv1x1", bn="non_affine"), 10)
    initialise(model, scorable(model), "signed_constant", 1.0, 0)
    return model, start_scores(model, "unif", 0)


class Side:
    """What both paths do the same way."""

    def answer(self):
        """Losses of five steps on the same images, and the masks after them (bits in layer order)."""
        generator = torch.Generator().manual_seed(1)
        self.model.train()
        losses = []
        for _ in range(5):
            x = torch.rand(self.batch, 3, 32, 32, generator=generator).to(self.device)
            losses.append(self.step(x, torch.randint(0, 10, (self.batch,), generator=generator).to(self.device)))
        return np.array(losses), np.concatenate([m.cpu().numpy().reshape(-1) for m in self.rounded()])


class Plain(Side):
    def __init__(self, count, batch, width, device, threads, workers):
        torch.set_num_threads(threads)
        self.device, self.batch = torch.device(device), batch
        self.model, scores = start(width)
        for name, module in list(self.model.named_modules()):
            if isinstance(module, nn.Conv2d):
                module.__class__ = SubnetConv
                module.setup(scores[f"{name}.weight"])
        self.model.to(self.device)
        self.optimizer = torch.optim.SGD(
            [p for p in self.model.parameters() if p.requires_grad], lr=TRAIN.lr, momentum=0.9
        )
        self.loader = torch.utils.data.DataLoader(
            images.Pictures(images.split(count, 32), "pad"),
            BATCH,
            shuffle=True,
            num_workers=workers,
            pin_memory=device != "cpu",
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
        return loss.item()

    def run(self):
        self.model.train()
        for x, y in self.loader:
            self.step(x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True))

    def rounded(self):
        return [m.scores.detach() > 0.5 for m in self.model.modules() if isinstance(m, SubnetConv)]


class Winnow(Side):
    def __init__(self, count, batch, width, device, threads, precision):
        self.compute = Compute(threads=threads, precision=precision, deterministic=False)
        self.device, self.batch = torch.device(device), batch
        configure(self.compute, self.device)
        self.model, scores = start(width)
        place(self.model, self.compute, self.device)
        self.gem = GemSearch(self.model, scores, SEARCH, epochs=10)
        self.optimizer = make_optimizer(TRAIN, [self.gem.scored.scores])
        self.loader = Loader(images.split(count, 32), DATA, batch, self.device)
        self.epochs = 0

    def step(self, x, y):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.gem.step(x, y, self.compute)
        self.gem.before_update()
        self.optimizer.step()
        self.gem.after_update()
        return loss.item()

    def run(self):
        self.model.train()
        for x, y in self.loader.epoch(self.epochs):
            self.step(x, y)
        self.epochs += 1

    def rounded(self):
        return self.gem.scored.views(self.gem.rounded()).values()


def agree(path, plain, ours):
    """Scores near 0.5 round differently after sums in another order, so the losses of later steps part a little."""
    found = {"loss": float(np.abs(plain[0] - ours[0]).max()), "unequal mask bits": float((plain[1] != ours[1]).mean())}
    assert found["loss"] < (0.02 if path == "float32" else 0.2), f"{path}: losses differ by {found['loss']}"
    assert found["unequal mask bits"] < 0.01, (
        f"{path}: {100 * found['unequal mask bits']:.2f} % of the mask bits differ"
    )
    return found


def main(argv=None):
    workers = {
        "type": int,
        "default": 0,
        "help": "worker processes of the plain loader (0: they would share the cores)",
    }
    args = arguments(__doc__, argv, workers=workers, images={"type": int, "default": 768})
    count, batch, width = (16, 16, 4) if args.tiny else (args.images, BATCH, 16)
    settings = {"count": count, "batch": batch, "width": width, "device": args.device, "threads": args.threads}
    paths = {PLAIN: (Plain, {**settings, "workers": args.workers})}
    paths |= {p: (Winnow, {**settings, "precision": p}) for p in ("float32", "bf16")}
    run = Run("gem_search_epoch", args)
    goals = GOALS[torch.device(args.device).type]
    run.add(*race(f"gem search epoch, ResNet-20, {count} images, batch {batch}", paths, agree, goals, args))
    run.write()


if __name__ == "__main__":
    main()
