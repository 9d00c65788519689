"""Between two trained networks: loss and accuracy on the path, the barrier, and how sharp the minimum of each is.

Linear mode connectivity (Frankle et al., ICML 2020): two networks lie in one basin when no network on the straight line
between them is worse than they are. Batch statistics belong to the weights, so they are taken anew at every point, the
ends included.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from winnow.errors import WinnowError
from winnow.rng import seed_of
from winnow.ticket import Ticket

Measure = Callable[[nn.Module], dict[str, float]]


def path(
    one: nn.Module,
    other: nn.Module,
    points: int,
    measure: Measure,
    *,
    sampled: bool = False,
    draws: int = 1,
    seed: int = 0,
) -> list[dict[str, float]]:
    """What `measure(network)` says at `points` equally spaced positions from `one` (at 0) to `other` (at 1).

    sampled: each weight is the other network's with the probability of the position, mean over `draws`; else the
    weighted mean. `measure` may change the network that it gets (batch statistics). Raises WinnowError when the
    networks do not match.
    """
    ends = [dict(m.named_parameters()) for m in (one, other)]
    if [(k, p.shape) for k, p in ends[0].items()] != [(k, p.shape) for k, p in ends[1].items()]:
        raise WinnowError(
            "networks: not the same parameters in both; compare networks of one architecture and number of classes"
        )
    found = []
    for i in range(points):
        at = i / (points - 1)
        several = draws if sampled and 0 < at < 1 else 1
        seen = []
        for draw in range(several):
            between = copy.deepcopy(one)
            generator = torch.Generator().manual_seed(seed_of(seed, "path", i, draw))
            _set(between, {k: _mixed(ends[0][k], ends[1][k], at, generator if sampled else None) for k in ends[0]})
            seen.append(measure(between))
        found.append({"at": at, **_means(seen)})
    return found


def barrier(rows: Sequence[Mapping[str, float]], name: str, *, higher_is_worse: bool = True) -> float:
    """How much worse than the straight line between its ends the measure `name` gets on the path; 0: nowhere."""
    values = np.array([row[name] for row in rows])
    line = np.linspace(values[0], values[-1], len(values))
    return float(np.max(values - line if higher_is_worse else line - values))


def instability(rows: Sequence[Mapping[str, float]], name: str) -> float:
    """Frankle et al., section 2: the largest error on the path less the mean error of its ends, in percentage
    points.
    """
    errors = [100.0 - row[name] for row in rows]
    return max(errors) - (errors[0] + errors[-1]) / 2


def sharpness(
    model: nn.Module,
    ticket: Ticket,
    percents: list[float],
    draws: int,
    measure: Measure,
    seed: int,
    initial: nn.Module | None = None,
) -> list[dict[str, float]]:
    """What `measure` says when a percentage of the mask's entries, drawn at random, are flipped; mean and std over
    `draws`.

    As connect_mask of the rare-gems code goes in a random direction: removed weights that come back have the values of
    `initial` (zero without it), kept ones go. The first row is the network itself.
    """
    parameters = dict(model.named_parameters())
    before = dict(initial.named_parameters()) if initial is not None else {}
    masks = ticket.masks
    rows = [{"flipped_percent": 0.0, **{f"{k}_mean": v for k, v in measure(copy.deepcopy(model)).items()}}]
    for percent in percents:
        seen = []
        for draw in range(draws):
            flipped = copy.deepcopy(model)
            generator = torch.Generator().manual_seed(seed_of(seed, "flips", percent, draw))
            changed = {}
            for name, mask in masks.items():
                flips = torch.rand(mask.shape, generator=generator) < percent / 100.0
                own = parameters[name].detach().cpu()
                back = before[name].detach().cpu() if before else torch.zeros_like(own)
                changed[name] = torch.where(mask ^ flips, torch.where(mask, own, back), 0.0)
            _set(flipped, changed)
            seen.append(measure(flipped))
        stds = {f"{k}_std": float(np.std([s[k] for s in seen])) for k in seen[0]}
        rows.append({"flipped_percent": percent, **{f"{k}_mean": v for k, v in _means(seen).items()}, **stds})
    return rows


def _means(seen: list[dict[str, float]]) -> dict[str, float]:
    return {k: float(np.mean([s[k] for s in seen])) for k in seen[0]}


def _mixed(one: Tensor, other: Tensor, at: float, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return torch.lerp(one, other, at)
    chosen = torch.rand(one.shape, generator=generator).to(one.device) < at
    return torch.where(chosen, other, one)


@torch.no_grad()
def _set(model: nn.Module, values: Mapping[str, Any]) -> None:
    parameters = dict(model.named_parameters())
    for name, value in values.items():
        parameters[name].copy_(value)
