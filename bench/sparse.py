"""Networks under tickets, dense against `winnow.sparse`: ResNet-20 gems, a ResNet-50 ticket, and BERT-size layers.

Plain: the dense network under its mask in evaluation mode, channels_last. winnow: the same outputs, each layer in the
way that is fastest here. The masks are random, with Erdős–Rényi-kernel densities in ResNet-20 (small layers keep more,
as gems do) unless --weights and --mask name a trained gem; the ResNet-50 ticket is by magnitude. How long a way takes
depends on the places of the kept weights only through emptied channels and columns.

    python -m bench.sparse --rule [--threads 1]                  # what the verdict's rule says, against measurement
    python -m bench.sparse [--threads 1] [--weights W --mask M] [--batches 1 64]
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.common import PLAIN, Run, arguments, race, relative
from winnow.config.parts import Model
from winnow.prune import prune
from winnow.sparse import choice, sparse, speed
from winnow.sparse.rule import calibrate
from winnow.ticket import Ticket
from winnow.vision import models

GEM = {"arch": "resnet20", "classifier": "conv1x1", "bn": "non_affine"}


class Encoder(nn.Module):
    """The linear layers of one BERT-base layer, one after the other."""

    def __init__(self, width=768, inner=3072):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(width, width) for _ in range(4)), nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width)
        )

    def forward(self, x):
        return self.layers(x)


def network(what, method, percent, files):
    """The network and its ticket; the same in both processes."""
    torch.manual_seed(0)
    if what == "encoder":
        model = Encoder()
        names = [n for n, p in model.named_parameters() if p.dim() == 2]
        rng = np.random.default_rng(0)
        return model.eval(), Ticket({n: rng.random(tuple(model.get_parameter(n).shape)) < percent / 100 for n in names})
    if files:
        return models.load_pretrained(Path(files[0]))[0].eval(), Ticket.load(files[1])
    model = models.build(
        Model(**(GEM if what == "resnet20" else {"arch": what})), 1000 if what == "resnet50" else 10
    ).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model, prune(model, method, percent)


class Dense:
    def __init__(self, what, method, percent, shape, threads, files=(), loops=None):
        torch.set_num_threads(threads)
        self.model, self.ticket = network(what, method, percent, files)
        self.x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        self.loops = loops
        with torch.no_grad():
            self.prepare()

    def prepare(self):
        self.ticket.apply(self.model)
        order = torch.channels_last if self.x.dim() == 4 else torch.contiguous_format
        self.network, self.x = copy.deepcopy(self.model).to(memory_format=order), self.x.contiguous(memory_format=order)

    @torch.no_grad()
    def answer(self):
        return self.network(self.x).contiguous().numpy()

    @torch.inference_mode()
    def run(self):
        """Several passes, most of which find the caches as a server's would."""
        for _ in range(self.loops):
            self.network(self.x)


class Sparse(Dense):
    def prepare(self):
        self.network = sparse(self.model, self.ticket, keep_plans=False)
        plan = self.network.plan(self.x)
        print(
            f"  ways {self.network.ways(plan)}, {self.network.smaller_layers} smaller layers, "
            f"{self.ticket.remaining_percent:.3g} % remain"
        )


def agree(path, plain, ours):
    """The outputs are the same up to rounding."""
    off = relative(ours, plain)
    assert off < 1e-5, f"outputs differ by {off:.2g}"
    return {"outputs": off}


def rule(cases, args):
    """The rule of winnow.sparse against measurement, as the stage speed puts both side by side, in this process."""
    lines, rates = [], {}
    for what, method, percent, shape, _, _ in cases:
        torch.set_num_threads(args.threads)
        model, ticket = network(what, method, percent, ())
        images, x = len(shape) == 4, torch.rand(shape, generator=torch.Generator().manual_seed(1))
        sparse_network = sparse(model, ticket, keep_plans=False)
        ticket.apply(model)
        row = speed.compare(model, sparse_network, lambda _, x=x: ((x,), {}), [shape[0]], [args.threads], args.repeats)[
            0
        ]
        examples = shape[0] if images else shape[0] * shape[1]
        if (key := (images, examples)) not in rates:
            with choice.threads(args.threads):
                rates[key] = calibrate((examples,), images)
        times = (row["dense_ms"] / 1e3, row["folded_dense_ms"] / 1e3)
        with choice.threads(args.threads):
            said = speed.predict(model, ticket, ((x,), {}), rates[key], *times).speedup
        off = 100 * (said / row["speedup"] - 1)
        lines.append(
            f"{what}, {percent:g} % remaining, batch {shape[0]}: {said:.2f} by the rule, {row['speedup']:.2f} measured "
            f"({row['low']:.2f} to {row['high']:.2f}), {off:+.0f} %"
        )
        print(lines[-1], flush=True)
    return lines


def main(argv=None):
    extra = {n: {"default": None, "help": f"of a trained gem: its {n}"} for n in ("weights", "mask")}
    extra["rule"] = {"action": "store_true", "help": "the rule against measurement, and nothing else"}
    extra["batches"] = {"type": int, "nargs": "*", "default": [1, 64]}
    args = arguments(__doc__, argv, repeats=9, **extra)
    run = Run("sparse", args)
    files = (args.weights, args.mask) if args.weights and args.mask else ()
    cases = [
        ("resnet20", "erk", p, (b, 3, 32, 32), max(6, 60 // b), goal)
        for p, goal in ((5, 3.0), (1.44, 5.0))
        for b in args.batches
    ]
    cases += [("resnet50", "magnitude", 10.74, (b, 3, 224, 224), 2, None) for b in (1, 8)]
    cases += [("encoder", "random", 10, (b, 128, 768), max(4, 8 // b), None) for b in (1, 8)]
    if args.tiny:
        cases = [("resnet8", "erk", 5, (2, 3, 8, 8), 2, None)]
    if args.rule:
        rule(cases, args)
        return
    for what, method, percent, shape, loops, goal in cases:
        settings = {
            "what": what,
            "method": method,
            "percent": percent,
            "shape": shape,
            "threads": args.threads,
            "loops": loops,
        }
        settings["files"] = files if what == "resnet20" and percent == 5 else ()
        case = f"{what}, {percent:g} % remaining, batch {shape[0]}"
        run.add(*race(case, {PLAIN: (Dense, settings), "winnow": (Sparse, settings)}, agree, {"winnow": goal}, args))
    run.write()


if __name__ == "__main__":
    main()
