"""Peak memory of one robust-ticket search step over plain fine-tuning of the same BERT, in units of the masked weights' size.

Claim: the masks, their noise and their gradients take about 3 copies of the masked weights more than training the weights
does. Each variant runs in a process of its own: on the CPU its peak resident set, on a GPU its peak of allocated memory.

    python -m bench.mask_memory [--size base|minilm|tiny] [--batch 8] [--length 32] [--device cuda] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from bench.robust_search_step import inputs, network
from winnow.config.text import FreeLB, HardConcrete
from winnow.text import hard_concrete
from winnow.text.freelb import AdversarialStep
from winnow.text.models import prunable

MIB = 1 << 20
SIZES = {"tiny": (2, 64, 4, 128), "minilm": (6, 384, 12, 1536), "base": (12, 768, 12, 3072)}


def peak(variant: str, args: argparse.Namespace, answer) -> None:
    """Two optimiser steps of `variant`; answers (peak bytes, bytes of the masked weights)."""
    torch.set_num_threads(1)
    device = torch.device(args.device)
    model = network(SIZES[args.size]).to(device)
    names = prunable(model)
    masked = sum(4 * model.get_parameter(n).numel() for n in names)
    batch, _ = inputs(args.batch, args.length, model.config.hidden_size, device)
    if variant == "search":
        trained = list(hard_concrete.attach(model, names, HardConcrete()).values())
        step = AdversarialStep(model, FreeLB(steps=2))
    else:  # plain fine-tuning, of the same matrices alone, so that both have as many numbers to optimise
        model.requires_grad_(False)
        trained = [model.get_parameter(n).requires_grad_() for n in names]

        def step(batch):
            inputs = {k: v for k, v in batch.items() if k != "labels"}
            cross_entropy(model(**inputs).logits, batch["labels"]).backward()

    optimizer = torch.optim.AdamW(trained)
    for _ in range(2):
        step(batch)
        optimizer.step()
        optimizer.zero_grad()
    if device.type == "cuda":
        answer.put((torch.cuda.max_memory_allocated(), masked))
    else:
        answer.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, masked))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", choices=SIZES, default="base")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--length", type=int, default=32)
    p.add_argument("--device", default="cpu")
    p.add_argument("--json", type=Path)
    args = p.parse_args()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # glibc then gives freed tensors back, so the resident set is what is in use
    context = multiprocessing.get_context("spawn")
    found = {}
    for variant in ("plain", "search"):
        answer = context.SimpleQueue()
        process = context.Process(target=peak, args=(variant, args, answer))
        process.start()
        found[variant], masked = answer.get()
        process.join()
    copies = (found["search"] - found["plain"]) / masked
    print(
        f"masked weights {masked / MIB:.0f} MiB; peak of plain fine-tuning {found['plain'] / MIB:.0f} MiB, of a search step",
        end=" ",
    )
    print(f"{found['search'] / MIB:.0f} MiB: {copies:+.2f} copies of the masked weights (goal: about 3)")
    if args.json:
        report = {"size": args.size, "batch": [args.batch, args.length], "device": args.device, "copies": copies}
        report |= {"masked_bytes": masked, "plain_peak_bytes": found["plain"], "search_peak_bytes": found["search"]}
        args.json.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
