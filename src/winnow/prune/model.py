"""`winnow.prune`: a ticket for any torch module in one call."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from winnow.errors import WinnowError
from winnow.prune import methods
from winnow.prune.layers import Layers, coverage_warning
from winnow.rng import seed_of
from winnow.ticket import Ticket

log = logging.getLogger("winnow")


def prune(
    model: nn.Module,
    method: str = "magnitude",
    remaining_percent: float | None = None,
    *,
    batches: Iterable[Any] | None = None,
    seed: int = 0,
    layers: Layers | None = None,
    like: Ticket | None = None,
    **options: Any,
) -> Ticket:
    """The ticket that `method` finds; the model stays as it is (`ticket.apply(model)` zeroes the removed weights).

    remaining_percent: percentage of the chosen layers' weights to keep, 0..100 (smart_ratio: at most).
    batches: what snip, grasp, synflow and wanda look at, (inputs, labels) or keyword arguments; e.g. islice(loader, 4).
    layers: by default all convolutions and linear layers but the last (wanda: linear layers).
    like: the ticket whose counts random_like takes.
    options: those of the method.

    Raises WinnowError for what does not go together; warns when the layers hold under 20 % of the model.

        ticket = winnow.prune(model, "lamp", 10)
        ticket.apply(model)
    """
    entry, module = methods.find(method), methods.load(method)
    if entry.takes == "training":
        raise WinnowError(f"method: {method} moves its masks in training; use the class in {module.__name__}")
    if (like is None) == (entry.takes == "ticket"):
        raise WinnowError(
            f"like: {method} {'needs the ticket that gives the counts' if like is None else 'takes none'}"
        )
    if (batches is None) == (entry.takes == "model"):
        raise WinnowError(f"batches: {method} {'needs a few batches to look at' if batches is None else 'takes none'}")
    if like is not None:
        like.check_fits({n: tuple(p.shape) for n, p in model.named_parameters()}, type(model).__name__)
        return Ticket(module.masks(like, seed), {"method": method, "seed": seed})
    if remaining_percent is None or not 0 < remaining_percent <= 100:
        raise WinnowError(
            f"remaining_percent: {remaining_percent} is no percentage of weights to keep; give one above 0 up to 100"
        )
    chosen = layers or replace(Layers(), kinds=entry.kinds)
    names, parameters = chosen.names(model), dict(model.named_parameters())
    if warning := coverage_warning(names, {n: tuple(p.shape) for n, p in parameters.items()}):
        log.warning("%s", warning)
    count = round(sum(parameters[n].numel() for n in names) * remaining_percent / 100.0)
    seeds = {"seed": seed} if entry.draws else {}
    if batches is not None:
        with torch.random.fork_rng(devices=[p.device for p in model.parameters() if p.is_cuda][:1]):
            torch.manual_seed(seed_of(seed, "prune"))  # dropout
            found = module.masks(model, names, count, list(batches), **options)
    else:
        arrays = {n: parameters[n].detach().float().cpu().contiguous().numpy() for n in names}
        found = module.masks(arrays, count, **seeds, **options)
    return Ticket(found, {"method": method, **seeds})
