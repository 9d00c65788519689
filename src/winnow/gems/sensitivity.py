"""Scores of weights at initialisation, larger is better: SNIP, GraSP and SynFlow, the baselines that Rare Gems names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.config.gems import Sensitivity
from winnow.gems.scores import scorable
from winnow.prune import keep_largest
from winnow.run import Run
from winnow.ticket import Ticket
from winnow.train.device import start
from winnow.vision import models, sources
from winnow.vision.batches import Loader
from winnow.vision.training import place

TEMPERATURE = 200.0  # divides GraSP's logits
SYNFLOW_ROUNDS = 100


Scorer = Callable[[nn.Module, list[str], Tensor, Tensor], dict[str, Tensor]]


def ticket(weights: Path, scorer: Scorer, cfg: Sensitivity, run: Run | None = None) -> Ticket:
    """The ticket of a weights artifact: `scorer` on the first images of the shuffled training split of `cfg.data`; the largest
    scores of all layers are kept.
    """
    run = run or Run()
    device = start(cfg.compute, run.device, cfg.seed)
    sets = sources.load(cfg.data, run.data_root, run.download)
    model = place(models.load_pretrained(weights)[0], cfg.compute, device)
    x, y = next(iter(Loader(sets.train, cfg.data, cfg.images, device, cfg.seed, run.workers).epoch(0)))
    scores = {name: score.cpu().numpy() for name, score in scorer(model, scorable(model), x, y).items()}
    count = round(sum(s.size for s in scores.values()) * cfg.target_sparsity / 100.0)
    return Ticket(keep_largest(scores, count))


def snip_scores(model: nn.Module, names: list[str], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """|dL/dw * w| of the cross-entropy on images x (B,C,H,W), labels y (B,) (Lee et al., ICLR 2019, equation 5)."""
    weights = _weights(model, names)
    model.train()
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), weights)
    return {n: (g * w).detach().abs() for n, g, w in zip(names, gradients, weights, strict=True)}


def grasp_scores(model: nn.Module, names: list[str], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """w * Hg: how much of the gradient norm goes when w does (Wang et al., ICLR 2020, equation 8, negated)."""
    weights = _weights(model, names)
    model.train()
    loss = F.cross_entropy(model(x) / TEMPERATURE, y)
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    product = sum((g * g.detach()).sum() for g in gradients)
    assert isinstance(product, Tensor)
    curvature = torch.autograd.grad(product, weights)
    return {n: (h * w).detach() for n, h, w in zip(names, curvature, weights, strict=True)}


def synflow_masks(model: nn.Module, names: list[str], image: tuple[int, ...], count: int) -> dict[str, np.ndarray]:
    """Masks that keep `count` weights by iterated synaptic flow, |w| * dR/d|w| on an all-ones image (C,H,W).

    100 rounds at exponentially falling density, in float64, batch normalisation as at initialisation (Tanaka et al.,
    NeurIPS 2020, algorithm 1). Needs no data. The model's weights are left as they were.
    """
    parameters = dict(model.named_parameters())
    weights = [parameters[n] for n in names]
    total = sum(w.numel() for w in weights)
    alive = {n: np.ones(tuple(parameters[n].shape), dtype=bool) for n in names}
    with _positive_double(model):
        started = [parameters[n].detach().clone() for n in names]
        mean, std = model.get_buffer("input_mean"), model.get_buffer("input_std")
        ones = (mean + std).expand(1, *image)
        for k in range(1, SYNFLOW_ROUNDS + 1):
            with torch.no_grad():
                for weight, start, name in zip(weights, started, names, strict=True):
                    weight.copy_(start * torch.from_numpy(alive[name]).to(weight.device))
            flow = torch.autograd.grad(model(ones).sum(), weights)
            with torch.no_grad():
                scores = {n: (g * w).abs().cpu().numpy() for n, g, w in zip(names, flow, weights, strict=True)}
            largest = max(float(s.max()) for s in scores.values()) or 1.0
            ranked = {n: np.where(alive[n], np.log(s / largest + 1e-300), -np.inf) for n, s in scores.items()}
            left = round(total * (count / total) ** (k / SYNFLOW_ROUNDS))
            alive = keep_largest(ranked, left)
    return alive


def _weights(model: nn.Module, names: list[str]) -> list[Tensor]:
    parameters = dict(model.named_parameters())
    return [parameters[n] for n in names]


@contextmanager
def _positive_double(model: nn.Module) -> Iterator[None]:
    """Within: evaluation mode, float64, every parameter replaced by its absolute value; afterwards as before."""
    saved = {k: v.detach().clone() for k, v in model.state_dict().items()}
    was_training, dtype = model.training, next(model.parameters()).dtype
    model.eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    try:
        yield
    finally:
        model.to(dtype).train(was_training)
        model.load_state_dict(saved)
