"""RigL: masks that move in training, by magnitude and gradient (Evci et al., ICML 2020, algorithm 1)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from winnow.errors import WinnowError
from winnow.gems.pruning import keep_top
from winnow.ticket import Ticket


class RigL:
    """Trains `model` under masks that start as `ticket` (ERK in the paper) and move every `every` steps of `steps`.

    Every layer keeps its count. An update at step t drops the smallest weights of a layer, the fraction
    fraction/2 * (1 + cos(pi * t / end)) of them with end = stop * steps, and grows as many where the dense gradient is
    largest; what was just dropped may grow back, as it was. New weights and their optimiser state start at zero. The
    step of an update moves nothing else, as in the paper. Call `before_update` between the backward pass and the
    optimiser's step (`train.loop.Fit.before_update`), with gradients that are averaged over all processes, and let the
    checkpoint hold its state (`Fit.extras`).
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, ticket: Ticket, *, steps: int,
        every: int = 100, fraction: float = 0.3, stop: float = 0.75,
    ):  # fmt: skip
        placed, parameters = ticket.apply(model), dict(model.named_parameters())
        self.optimizer, self.every, self.fraction, self.end = optimizer, every, fraction, stop * steps
        self.weights = {name: parameters[name] for name in placed}
        self.masks = {n: torch.empty_like(self.weights[n], dtype=torch.bool).copy_(m) for n, m in placed.items()}
        self.done = 0  # optimisation steps
        for name, weight in self.weights.items():
            weight.register_hook(lambda gradient, name=name: self._seen(gradient, name))

    @property
    def moves(self) -> bool:
        """Whether the step that comes moves the masks."""
        return self.done > 0 and self.done % self.every == 0 and self.done < self.end

    def _seen(self, gradient: Tensor, name: str) -> Tensor:
        return gradient if self.moves else gradient * self.masks[name]

    @torch.no_grad()
    def before_update(self) -> None:
        """After the backward pass: move the masks when it is time, and then let the optimiser pass over this step."""
        if self.moves:
            fraction = self.fraction / 2 * (1 + math.cos(math.pi * self.done / self.end))
            for name, weight in self.weights.items():
                self._move(name, weight, fraction)
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        self.done += 1

    def _move(self, name: str, weight: nn.Parameter, fraction: float) -> None:
        mask, gradient = self.masks[name], weight.grad
        if gradient is None or not torch.isfinite(gradient).all():
            reason = "missing; exclude the layer" if gradient is None else "not finite; lower lr"
            raise WinnowError(f"rigl: the gradient of {name} is {reason}")
        before, kept = mask.reshape(-1).clone(), int(mask.sum())
        dropped = int(fraction * kept)
        staying = keep_top(weight.abs().reshape(-1), kept - dropped, among=before)
        grown = keep_top(gradient.abs().reshape(-1), dropped, among=~staying)
        mask.copy_((staying | grown).view(weight.shape))
        moved = mask ^ before.view(weight.shape)
        state = self.optimizer.state.get(weight, {}).values()
        for values in (weight, *(s for s in state if isinstance(s, Tensor) and s.shape == weight.shape)):
            values.masked_fill_(moved, 0.0)

    def ticket(self) -> Ticket:
        """The masks as they are now."""
        return Ticket({n: m.cpu().numpy().copy() for n, m in self.masks.items()}, {"method": "rigl"})

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"done": self.done, "masks": {n: m.clone() for n, m in self.masks.items()}}

    def load_state_dict(self, state: Any) -> None:
        """From the checkpoint, after the model and the optimiser took theirs."""
        self.done = state["done"]
        for name, mask in state["masks"].items():
            self.masks[name].copy_(mask)
