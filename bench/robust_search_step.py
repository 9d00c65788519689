"""One robust-ticket search step (several adversarial steps) against one mask module per linear layer.

Claim: same arithmetic, same batch, same threads; winnow's masked weights are at least 1.15x faster in float32 and 1.7x with
bf16 autocast on a CPU that has bf16 instructions. Both paths in one process, alternating; medians and the spread of ratios.

    python bench/robust_search_step.py [--size minilm|base|tiny] [--rounds 5] [--device cuda] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from winnow.config.text import FreeLB, HardConcrete
from winnow.text import compat, hard_concrete
from winnow.text.freelb import AdversarialStep
from winnow.text.models import prunable

SIZES = {"tiny": (2, 64, 4, 128), "minilm": (6, 384, 12, 1536), "base": (12, 768, 12, 3072)}


class PlainMask(nn.Module):
    """The usual way: uniform noise, logarithms, sigmoid and clamp as separate operations under autograd."""

    def __init__(self, shape, config):
        super().__init__()
        self.score = nn.Parameter(torch.full(shape, hard_concrete.initial_score(config)))
        self.config, self.u = config, None

    def forward(self):
        u = torch.rand_like(self.score) if self.u is None else self.u
        return hard_concrete.train_mask(self.score, u, self.config)


class PlainLinear(nn.Module):
    def __init__(self, linear, config):
        super().__init__()
        self.linear, self.mask = linear, PlainMask(linear.weight.shape, config)

    def forward(self, x):
        return F.linear(x, self.linear.weight * self.mask(), self.linear.bias)


def build(size, device):
    transformers = compat.transformers()
    layers, hidden, heads, intermediate = SIZES[size]
    torch.manual_seed(0)
    config = transformers.BertConfig(
        num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, intermediate_size=intermediate, vocab_size=30522,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config).to(device)


def plain_step(model, batch, adversary, uniform, autocast):
    """FreeLB as published, written out: a fresh lookup and a gradient to delta at each adversarial step."""
    mask, steps = batch["attention_mask"], adversary.steps
    with torch.no_grad():
        embedded = model.get_input_embeddings()(batch["input_ids"])
    size = mask.sum(1).float() * embedded.shape[-1]
    delta = uniform * mask[:, :, None] * (adversary.init_magnitude / size.sqrt())[:, None, None]
    total = 0.0
    for _ in range(steps):
        delta = delta.detach().requires_grad_()
        with autocast:
            logits = model(inputs_embeds=embedded + delta, attention_mask=mask, token_type_ids=batch["token_type_ids"]).logits
        loss = F.cross_entropy(logits.float(), batch["labels"]) / steps
        loss.backward()
        total += loss.item()
        norm = delta.grad.flatten(1).norm(dim=1).clamp_min(1e-8)[:, None, None]
        delta = delta + adversary.step_size * delta.grad / norm
    return total


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", choices=SIZES, default="minilm")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--length", type=int, default=64)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--device", default="cpu")
    p.add_argument("--json", type=Path)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    device, masks, adversary = torch.device(args.device), HardConcrete(), FreeLB(steps=args.steps)
    g = torch.Generator().manual_seed(1)
    shape = (args.batch, args.length)
    batch = {
        "input_ids": torch.randint(1000, 30000, shape, generator=g), "attention_mask": torch.ones(shape, dtype=torch.int64),
        "token_type_ids": torch.zeros(shape, dtype=torch.int64), "labels": torch.randint(0, 2, shape[:1], generator=g),
    }  # fmt: skip
    batch = {k: v.to(device) for k, v in batch.items()}
    ours, plain = build(args.size, device), build(args.size, device)
    uniform = torch.rand((*shape, ours.config.hidden_size), generator=g).to(device) * 2 - 1
    names = prunable(ours)
    scores = hard_concrete.attach(ours, names, masks)
    plain.requires_grad_(False)
    for name in names:
        parent, _, leaf = name.removesuffix(".weight").rpartition(".")
        layer = PlainLinear(plain.get_submodule(name.removesuffix(".weight")), masks)
        setattr(plain.get_submodule(parent), leaf, layer.to(device))
    compare(ours, plain, names, scores, batch, adversary, uniform, device)
    report = {
        "size": args.size,
        "batch": shape,
        "adversarial_steps": args.steps,
        "threads": args.threads,
        "device": str(device),
    }
    for precision in ("float32", "bf16"):
        cast = nullcontext() if precision == "float32" else torch.autocast(device.type, dtype=torch.bfloat16)
        step = AdversarialStep(ours, adversary, cast)
        report[precision] = race(
            lambda step=step: step(batch, uniform),
            lambda: plain_step(plain, batch, adversary, uniform, nullcontext()),
            args.rounds,
            device,
        )
        r = report[precision]
        print(
            f"{precision}: winnow {r['winnow']:.3f} s, plain float32 {r['plain']:.3f} s, ratio {r['ratio']:.2f} ({r['low']:.2f}-{r['high']:.2f})"
        )
    if args.json:
        args.json.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")


def compare(ours, plain, names, scores, batch, adversary, uniform, device) -> None:
    """The same noise through both paths gives the same loss and score gradients."""
    noise = {n: hard_concrete.uniform_noise(scores[n].shape, device).clone() for n in names}
    layers = {n: plain.get_submodule(n.removesuffix(".weight")) for n in names}
    for n in names:
        layers[n].mask.u = noise[n]
    order = iter([n for _ in range(adversary.steps) for n in names])
    drawn = hard_concrete.uniform_noise
    hard_concrete.uniform_noise = lambda *_: noise[next(order)].clone()
    for model in (ours, plain):
        model.train()
    a, b = float(AdversarialStep(ours, adversary)(batch, uniform)), plain_step(plain, batch, adversary, uniform, nullcontext())
    hard_concrete.uniform_noise = drawn
    worst = max(
        ((scores[n].grad - layers[n].mask.score.grad).norm() / layers[n].mask.score.grad.norm().clamp_min(1e-12)).item()
        for n in names
    )
    for n in names:
        layers[n].mask.u, layers[n].mask.score.grad, scores[n].grad = None, None, None
    print(f"same noise: loss {a:.6f} and {b:.6f}, largest relative difference of a layer's score gradient {worst:.1e}")
    assert abs(a - b) < 1e-4 and worst < 1e-2, "the two paths disagree"


def race(first, second, rounds: int, device) -> dict[str, float]:
    """Alternate the two; median seconds of each, median and range of the ratio."""

    def timed(run) -> float:
        begun = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    timed(first), timed(second)
    pairs = [(timed(first), timed(second)) for _ in range(rounds)]
    ratios = [b / a for a, b in pairs]
    return {
        "winnow": statistics.median(a for a, _ in pairs), "plain": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "rounds": rounds,
    }  # fmt: skip


if __name__ == "__main__":
    main()
