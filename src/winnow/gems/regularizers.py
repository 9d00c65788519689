"""Regularisers of the scores, by their published names, with their gradients in closed form.

Each is a sum over all scores p (pruned ones too, as published), to be multiplied by lmbda. Gem-Miner's is L2; the
others push scores towards 0 or 1 (Rare Gems, appendix on regularisation).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _entropy(p: Tensor, w: Tensor) -> Tensor:
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))


def _entropy_gradient(p: Tensor, w: Tensor) -> Tensor:
    """0 at p = 0 and p = 1, where scores that were clamped stay unless the loss moves them."""
    return torch.where((p > 0) & (p < 1), ((1 - p) / p).log(), 0.0)


Term = Callable[[Tensor, Tensor], Tensor]
# name -> (value per score, gradient per score); arguments are scores p and frozen weights w
TERMS: dict[str, tuple[Term, Term]] = {
    "L2": (lambda p, w: p * p, lambda p, w: 2 * p),
    "L1": (lambda p, w: p.abs(), lambda p, w: p.sign()),
    "L1_L2": (lambda p, w: p.abs() + p * p, lambda p, w: p.sign() + 2 * p),
    "var_red_1": (lambda p, w: p * (1 - p), lambda p, w: 1 - 2 * p),
    "var_red_2": (lambda p, w: w * w * p * (1 - p), lambda p, w: w * w * (1 - 2 * p)),
    "bin_entropy": (_entropy, _entropy_gradient),
}


def penalty(name: str, scores: Tensor, weights: Tensor) -> Tensor:
    """Sum of the regulariser over flat `scores` (a scalar tensor); `weights` are the frozen weights, like scores."""
    return TERMS[name][0](scores, weights).sum()


@torch.no_grad()
def add_gradient(name: str, scores: Tensor, weights: Tensor, lmbda: float, gradient: Tensor) -> None:
    """gradient += lmbda * d penalty / d scores, in place."""
    if name == "L2":
        gradient.add_(scores, alpha=2 * lmbda)
    else:
        gradient.add_(TERMS[name][1](scores, weights), alpha=lmbda)
