"""Peak memory of a robust-ticket search step over plain fine-tuning of the same matrices, in copies of the masked
weights.

Claim: the masks, their noise and their gradients take about 3 copies of the masked weights more than training the
weights does. Each path takes two optimiser steps in a process of its own: on the CPU its peak resident set, on a GPU
its peak of allocated memory.

    python -m bench.mask_memory [--device cuda] [--batch 8] [--length 32]
"""

from __future__ import annotations

import os

import torch
from torch.nn.functional import cross_entropy

from bench.common import Remote, Run, arguments, measured
from bench.robust_search_step import CASES, TINY, inputs, network
from winnow.config.text import FreeLB, HardConcrete
from winnow.text import hard_concrete
from winnow.text.freelb import AdversarialStep
from winnow.text.models import prunable

MIB = 1 << 20


class FineTuning:
    """AdamW on the matrices that a search would mask, so that both paths have as many numbers to optimise."""

    def __init__(self, size, batch, length, device, threads):
        torch.set_num_threads(threads)
        self.model = network(size).to(device)
        self.names = prunable(self.model)
        self.masked_mib = sum(4 * self.model.get_parameter(n).numel() for n in self.names) / MIB
        self.batch, _ = inputs(batch, length, size[1], torch.device(device))
        self.optimizer = torch.optim.AdamW(self.trained())

    def trained(self):
        self.model.requires_grad_(False)
        return [self.model.get_parameter(n).requires_grad_() for n in self.names]

    def answer(self):
        """MiB of the weights that are masked, in float32."""
        return self.masked_mib

    def step(self):
        given = {k: v for k, v in self.batch.items() if k != "labels"}
        cross_entropy(self.model(**given).logits, self.batch["labels"]).backward()

    def run(self):
        self.step()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Search(FineTuning):
    """AdamW on the scores, by FreeLB."""

    def trained(self):
        scores = hard_concrete.attach(self.model, self.names, HardConcrete())
        self.adversarial = AdversarialStep(self.model, FreeLB(steps=2))
        return list(scores.values())

    def step(self):
        self.adversarial(self.batch)


def main(argv=None):
    args = arguments(__doc__, argv, batch={"type": int, "default": 8}, length={"type": int, "default": 32})
    os.environ["MALLOC_MMAP_THRESHOLD_"] = (
        "65536"  # glibc then gives freed tensors back, so the resident set is what is in use
    )
    name = "tiny" if args.tiny else "BERT-base size"
    settings = {"size": (TINY | CASES)[name][0], "batch": args.batch, "length": args.length}
    run, peaks = Run("mask_memory", args), {}
    for make in (FineTuning, Search):
        side = Remote(make, {**settings, "device": args.device, "threads": args.threads}, {})
        try:
            masked = side.answer()
            side.seconds(), side.seconds()
            peaks[make] = side.peak_mib()
        finally:
            side.close()
    copies = (peaks[Search] - peaks[FineTuning]) / masked
    case = f"memory of the masks, {name}, {args.batch}x{args.length} tokens"
    more = {"masked_mib": masked, "plain_peak_mib": peaks[FineTuning], "peak_mib": peaks[Search]}
    run.add(measured(case, "over fine-tuning", copies, "copies of the masked weights", **more))
    run.write()


if __name__ == "__main__":
    main()
