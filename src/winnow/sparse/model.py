"""`winnow.sparse`: a network that really runs as fast as its ticket allows here."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from winnow.errors import WinnowError
from winnow.sparse import choice
from winnow.sparse.compact import Compaction, compact, in_layers
from winnow.ticket import Ticket

log = logging.getLogger("winnow")


class SparseModel(nn.Module):
    """A network for inference; at the first input of a new shape it measures which way each layer takes (seconds).

    layers: what became of each layer's weight. untraced: why no channel was removed, None where the network was traced.
    """

    def __init__(self, network: nn.Module, layers: list[Compaction], cache: Path | None, untraced: str | None = None):
        super().__init__()
        self.network, self.layers, self.untraced = network, layers, untraced
        self._cache = cache
        self._plans: dict[tuple[Any, ...], choice.Plan] = {}
        self._in_use: choice.Plan | None = None
        self.requires_grad_(False)
        super().train(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the dense network in evaluation mode, up to rounding. No gradient goes through."""
        plan = self.plan(*args, **kwargs)
        if plan is not self._in_use:
            choice.use(self.network, plan)
            self._in_use = plan
        return choice.answer(self.network, plan, args, kwargs)

    @torch.no_grad()
    def plan(self, *args: Any, **kwargs: Any) -> choice.Plan:
        """The plan for inputs of these shapes, at torch's present number of threads; measured if it was not before."""
        call = choice.signature(args, kwargs)
        if call not in self._plans:
            self._in_use = None
            self._plans[call] = choice.plan_for(self.network, args, kwargs, self._cache)
        return self._plans[call]

    def ways(self, plan: choice.Plan) -> dict[str, int]:
        """Layers by the way that they take: {"rows": 18, "dense": 2}."""
        names = [plan.ways.get(name, "dense") for name in choice.layers_of(self.network)]
        return {way: names.count(way) for way in dict.fromkeys(names)}

    @property
    def smaller_layers(self) -> int:
        """Layers that lost channels, heads or units."""
        return sum(layer.before != layer.after for layer in self.layers)

    def held_bytes(self) -> int:
        """Bytes of weights, buffers, and the indices and values of the ways in use."""
        tensors = [*self.network.parameters(), *self.network.buffers()]
        extra = sum(layer.extra_bytes for layer in choice.layers_of(self.network).values())
        return extra + sum(t.numel() * t.element_size() for t in tensors)

    def train(self, mode: bool = True) -> Self:
        """Refused: removed weights are no longer there to be trained."""
        if mode:
            raise WinnowError(
                "sparse: the network is for inference only; train the dense one under its ticket, then convert it"
            )
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._plans.clear()
        self._in_use = None
        return super()._apply(fn, recurse)


def sparse(model: nn.Module, ticket: Ticket, *, cache: Path | None = None, keep_plans: bool = True) -> SparseModel:
    """`model` under `ticket`, with the outputs of the dense network up to rounding (1e-5), as fast as this machine
    allows.

    Channels, filters, hidden units and attention heads that no surviving weight reads or writes are removed exactly;
    each remaining layer computes in the way that is fastest for its shape, density and input here
    (`winnow.sparse.ways`). That is measured at the first input of a new shape, and kept in `cache` (by default the
    user's cache folder) unless `keep_plans` is false. `model` stays as it is.

    Raises WinnowError when the ticket does not fit, or when a layer is parametrized.

        fast = winnow.sparse(model, ticket)
        logits = fast(images)
    """
    for name, module in model.named_modules():
        if hasattr(module, "parametrizations"):
            raise WinnowError(
                f"sparse: {name or 'the model'} is parametrized; remove its parametrizations first, then convert"
            )
    smaller = copy.deepcopy(model).eval()
    ticket.apply(smaller)
    folder = (cache or choice.cache_folder()) if keep_plans else None
    try:
        network: nn.Module
        network, layers = compact(smaller)
    except (torch.fx.proxy.TraceError, TypeError, NotImplementedError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        log.info("%s: channels stay, its forward pass is not traced (%s)", type(model).__name__, reason)
        network, layers = in_layers(smaller)
        return SparseModel(network, layers, folder, reason)
    return SparseModel(network, layers, folder)
