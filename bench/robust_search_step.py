"""One robust-ticket search step: several adversarial steps of FreeLB with a mask sample at each, their gradients
summed.

Plain: one mask module per linear layer (uniform noise, logarithms, sigmoid and clamp under autograd), FreeLB written
out. winnow: the search's own step. Same weights, batch and threads; with the same noise, loss and score gradients are
compared first.

    python -m bench.robust_search_step [--device cuda] [--threads 1] [--repeats 5]
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bench.common import PLAIN, Run, arguments, race, relative
from winnow.config.parts import Compute
from winnow.config.text import FreeLB, HardConcrete
from winnow.text import compat, hard_concrete
from winnow.text.freelb import AdversarialStep
from winnow.text.models import prunable
from winnow.train.device import autocast, configure

MASKS = HardConcrete()
GOALS = {"cpu": {"float32": 1.15, "bf16": 1.7}, "cuda": {"float32": 3.0, "bf16": 3.0}}
# layers, hidden, heads, intermediate, adversarial steps (one in the large one, to save time: all cost the same)
CASES = {
    "MiniLM size": ((6, 384, 12, 1536), 5),
    "BERT-base size": ((12, 768, 12, 3072), 1),
}
TINY = {"tiny": ((2, 64, 4, 128), 2)}


class PlainMask(nn.Module):
    """The usual way: uniform noise, logarithms, sigmoid and clamp as separate operations under autograd."""

    def __init__(self, shape):
        super().__init__()
        self.score, self.u = nn.Parameter(torch.full(shape, hard_concrete.initial_score(MASKS))), None

    def forward(self):
        u = torch.rand_like(self.score) if self.u is None else self.u
        return hard_concrete.train_mask(self.score, u, MASKS)


class PlainLinear(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear, self.mask = linear, PlainMask(linear.weight.shape)

    def forward(self, x):
        return F.linear(x, self.linear.weight * self.mask(), self.linear.bias)


def network(size):
    """A BERT of this size from a fixed seed, without dropout."""
    layers, hidden, heads, intermediate = size
    torch.manual_seed(0)
    transformers = compat.transformers()
    config = transformers.BertConfig(
        num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, intermediate_size=intermediate,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config).train()


def inputs(batch, length, hidden, device):
    """A batch without padding, and the noise of the first perturbation."""
    g = torch.Generator().manual_seed(1)
    shape = (batch, length)
    found = {
        "input_ids": torch.randint(1000, 30000, shape, generator=g),
        "attention_mask": torch.ones(shape, dtype=torch.int64),
        "token_type_ids": torch.zeros(shape, dtype=torch.int64), "labels": torch.randint(0, 2, shape[:1], generator=g),
    }  # fmt: skip
    uniform = torch.rand((*shape, hidden), generator=g) * 2 - 1
    return {k: v.to(device) for k, v in found.items()}, uniform.to(device)


def mask_noise(name, shape):
    """The same noise for a weight on every path, for the comparison."""
    rng = np.random.default_rng([3, *name.encode()])
    return torch.from_numpy(rng.random(tuple(shape), dtype=np.float32))


class Side:
    """What both paths do the same way: the answer is the loss and the score gradients of the first and the last
    matrix.
    """

    def answer(self):
        loss = self.with_noise()
        scores = list(self.scores.values())
        found = {"loss": loss, **{f"gradient {i}": scores[i].grad.cpu().numpy().copy() for i in (0, -1)}}
        for score in scores:
            score.grad = None
        return found

    def run(self):
        for score in self.scores.values():
            score.grad = None
        float(self.step())


class Plain(Side):
    def __init__(self, size, steps, batch, length, device, threads):
        torch.set_num_threads(threads)
        self.model, self.adversary = network(size).requires_grad_(False), FreeLB(steps=steps)
        self.layers = {}
        for name in prunable(self.model):
            path = name.removesuffix(".weight")
            self.layers[name] = PlainLinear(self.model.get_submodule(path))
            self.model.set_submodule(path, self.layers[name])
        self.model.to(device)
        self.scores = {n: layer.mask.score for n, layer in self.layers.items()}
        self.batch, self.uniform = inputs(batch, length, size[1], device)

    def with_noise(self):
        for name, layer in self.layers.items():
            layer.mask.u = mask_noise(name, layer.mask.score.shape).to(layer.mask.score.device)
        loss = self.step()
        for layer in self.layers.values():
            layer.mask.u = None
        return loss

    def step(self):
        """FreeLB as published, written out."""
        mask, steps, adversary = self.batch["attention_mask"], self.adversary.steps, self.adversary
        with torch.no_grad():
            embedded = self.model.get_input_embeddings()(self.batch["input_ids"])
        size = mask.sum(1).float() * embedded.shape[-1]
        delta = self.uniform * mask[:, :, None] * (adversary.init_magnitude / size.sqrt())[:, None, None]
        total = 0.0
        for _ in range(steps):
            delta = delta.detach().requires_grad_()
            types = self.batch["token_type_ids"]
            logits = self.model(inputs_embeds=embedded + delta, attention_mask=mask, token_type_ids=types).logits
            loss = F.cross_entropy(logits, self.batch["labels"]) / steps
            loss.backward()
            total += loss.item()
            norm = delta.grad.flatten(1).norm(dim=1).clamp_min(1e-8)[:, None, None]
            delta = delta + adversary.step_size * delta.grad / norm
        return total


class Winnow(Side):
    def __init__(self, size, steps, batch, length, device, threads, precision):
        compute = Compute(threads=threads, precision=precision, deterministic=False)
        configure(compute, torch.device(device))
        self.model = network(size).to(device)
        self.names = prunable(self.model)
        self.scores = hard_concrete.attach(self.model, self.names, MASKS)
        self.batch, self.uniform = inputs(batch, length, size[1], device)
        self.steps = steps
        self.search = AdversarialStep(self.model, FreeLB(steps=steps), autocast(compute, torch.device(device)))

    def with_noise(self):
        drawn, order = hard_concrete.uniform_noise, iter(self.names * self.steps)
        hard_concrete.uniform_noise = lambda shape, device: mask_noise(next(order), shape).to(device)
        try:
            return float(self.step())
        finally:
            hard_concrete.uniform_noise = drawn

    def step(self):
        return self.search(self.batch, self.uniform)


def agree(path, plain, ours):
    """Relative differences of the loss and of the score gradients."""
    limits = {"loss": 1e-4, "gradient": 1e-2} if path == "float32" else {"loss": 2e-2, "gradient": 0.3}
    found = {k: relative(ours[k], plain[k]) for k in plain}
    assert all(v < limits[k.split()[0]] for k, v in found.items()), f"{path}: the paths disagree: {found}"
    return found


def main(argv=None):
    args = arguments(__doc__, argv, batch={"type": int, "default": 16}, length={"type": int, "default": 64})
    batch, length = (4, 8) if args.tiny else (args.batch, args.length)
    run = Run("robust_search_step", args)
    for name, (size, steps) in (TINY if args.tiny else CASES).items():
        settings = {
            "size": size,
            "steps": steps,
            "batch": batch,
            "length": length,
            "device": args.device,
            "threads": args.threads,
        }
        paths = {PLAIN: (Plain, settings)}
        paths |= {p: (Winnow, {**settings, "precision": p}) for p in ("float32", "bf16")}
        case = f"robust search step, {name}, {batch}x{length} tokens, adversarial steps: {steps}"
        run.add(*race(case, paths, agree, GOALS[torch.device(args.device).type], args))
    run.write()


if __name__ == "__main__":
    main()
