"""Hard pruning of scores, as Gem-Miner does it: exact bottom-k over all layers or per layer, on flat tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from winnow.config.gems import prune_count


def prune_fraction(target_percent: float, epochs: int, iter_period: int) -> float:
    """Fraction of the surviving weights that one hard prune removes: 1 - (target/100)^(1/n) (Rare Gems, section 4).

    Raises ValueError when the search is too short for a single prune.
    """
    prunes = prune_count(epochs, iter_period)
    if prunes < 1:
        raise ValueError(
            f"a search of {epochs} epochs never prunes with iter_period {iter_period}; it takes iter_period + 1"
        )
    return 1.0 - (target_percent / 100.0) ** (1.0 / prunes)


def bottom_k(scores: Tensor, alive: Tensor, fraction: float) -> tuple[Tensor, float]:
    """One hard prune: drop ceil(fraction * alive) weights and all that tie with the last of them.

    scores, alive: flat, float and bool. Returns the new alive mask and the threshold; survivors are strictly above it.
    """
    survivors = scores[alive]
    count = math.ceil(fraction * survivors.numel())
    if count == 0 or survivors.numel() == 0:
        return alive.clone(), float("-inf")
    threshold = torch.sort(survivors).values[count - 1]
    return alive & (scores > threshold), float(threshold)


def local_bottom_k(scores: Tensor, alive: Tensor, fraction: float, sizes: Sequence[int]) -> tuple[Tensor, float]:
    """`bottom_k` layer by layer (LocalBottomK); the threshold returned is the largest of the layers'."""
    parts = [bottom_k(s, a, fraction) for s, a in zip(scores.split(list(sizes)), alive.split(list(sizes)), strict=True)]
    return torch.cat([kept for kept, _ in parts]), max(threshold for _, threshold in parts)


def keep_top(scores: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """Bool mask of exactly the `count` largest of a flat tensor (within `among` if given); ties go to earlier
    positions.
    """
    values = scores if among is None else scores.masked_fill(~among, float("-inf"))
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if count >= values.numel():
        return torch.ones_like(values, dtype=torch.bool)
    place = values.numel() - count
    on_cpu = values.device.type == "cpu"
    threshold = torch.kthvalue(values, place + 1).values if on_cpu else torch.sort(values).values[place]
    kept = values > threshold
    missing = count - kept.sum()  # read on the CPU alone: reading it on a GPU would wait for all work that is queued
    if on_cpu and not missing:
        return kept
    tied = values == threshold
    return kept | (tied & (tied.cumsum(0) <= missing))


def above_smallest(values: Tensor, removed: float) -> tuple[Tensor, Tensor]:
    """What global edge-popup keeps of a flat tensor: all strictly above its ceil(removed * n)-th smallest value, and
    that value.

    The value stays on the device: a search asks at every step.
    `removed` is a fraction of the n values; those that tie with the threshold go too (as in the code of Rare Gems).
    """
    count = math.ceil(removed * values.numel())
    if count == 0:
        return torch.ones_like(values, dtype=torch.bool), values.new_tensor(float("-inf"))
    threshold = torch.sort(values).values[count - 1] if values.is_cuda else torch.kthvalue(values, count).values
    return values > threshold, threshold


def edge_popup_count(size: int, remaining: float) -> int:
    """Weights of `size` that edge-popup keeps at density `remaining`: the lowest int((1 - k) * size) go (Ramanujan et
    al., 2020).
    """
    return size - int((1.0 - remaining) * size)
