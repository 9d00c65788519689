"""Loading a ticket and applying it, writing it, and its size: ResNet-50's 23.5 million prunable weights, 20 % of them
kept.

Plain: the float32 masks that torch.nn.utils.prune makes, through torch.save and torch.load. winnow: one bit a weight in
a safetensors file, every count checked on reading, written atomically and synced to the disk. The pruned weights are
compared.

    python -m bench.ticket [--repeats 5]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.common import PLAIN, Run, arguments, measured, race
from winnow.config.parts import Model
from winnow.ticket import Ticket
from winnow.vision import models

SIZE_GOAL = 1 / 30


class Side:
    def __init__(self, arch, width, folder, threads):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.model = models.build(Model(arch=arch, width=width), 10)
        rng = np.random.default_rng(0)
        parameters = dict(self.model.named_parameters())
        self.masks = {n: rng.random(tuple(parameters[n].shape)) < 0.2 for n in models.prunable(self.model)}
        self.path = Path(folder) / f"{type(self).__name__}.ticket"
        self.save()

    def answer(self):
        """Bytes on disk, and the weights that are left after loading and applying."""
        self.load()
        left = {n: p.detach().numpy() for n, p in self.model.named_parameters() if n in self.masks}
        return self.path.stat().st_size, {n: (int((w != 0).sum()), float(np.abs(w).sum())) for n, w in left.items()}


class Plain(Side):
    def save(self):
        torch.save({n: torch.from_numpy(m).float() for n, m in self.masks.items()}, self.path)

    def load(self):
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, mask in torch.load(self.path, weights_only=True).items():
                parameters[name].mul_(mask)


class Winnow(Side):
    def save(self):
        Ticket(self.masks).save(self.path, method="random")

    def load(self):
        Ticket.load(self.path).apply(self.model)


class PlainLoad(Plain):
    run = Plain.load


class PlainSave(Plain):
    run = Plain.save


class WinnowLoad(Winnow):
    run = Winnow.load


class WinnowSave(Winnow):
    run = Winnow.save


def agree(path, plain, ours):
    """The same weights are left."""
    assert plain[1] == ours[1], "the pruned weights differ"
    return {}


def main(argv=None):
    args = arguments(__doc__, argv)
    run = Run("ticket", args)
    arch, width = ("resnet8", 4) if args.tiny else ("resnet50", None)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"arch": arch, "width": width, "folder": folder, "threads": args.threads}
        for what, plain, ours in (("load and apply", PlainLoad, WinnowLoad), ("write", PlainSave, WinnowSave)):
            run.add(
                *race(
                    f"ticket, {arch}: {what}", {PLAIN: (plain, settings), "winnow": (ours, settings)}, agree, {}, args
                )
            )
        sizes = [(Path(folder) / f"{kind}.ticket").stat().st_size for kind in ("WinnowSave", "PlainSave")]
        share = sizes[0] / sizes[1]
        goal = None if args.tiny else SIZE_GOAL  # a tiny file is mostly its header
        run.add(measured(f"ticket, {arch}: size on disk", "of the float32 masks", share, "", goal, bytes=sizes))
    run.write()


if __name__ == "__main__":
    main()
