"""Training under a fixed mask: removed weights are zero and stay so, whatever the optimiser and whatever happens to the model.

    handle = winnow.enforce(model, ticket)   # then train as before
    handle.check()                           # raises when a removed weight is not zero
    handle.remove()                          # the weights stay as they are, nothing holds them any more

Gradients of removed weights are zero, so clipping and kept weights see a smaller network; after every step of every torch optimiser
removed weights are set back to zero, so momentum from before, decay or an optimiser of one's own with torch's base class cannot move
them. What is written past the optimiser (load_state_dict, an initialisation) is set back at the next forward pass, and a deep copy is
held from its first forward pass on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from winnow.errors import WinnowError
from winnow.ticket import Ticket

_REMOVED: Any = WeakTensorKeyDictionary()  # parameter -> bool mask of what is removed, on its device
_watching: RemovableHandle | None = None


class Enforced:
    """Holds a model to a ticket. Made by `enforce`; a deep copy of the model has one of its own."""

    def __init__(self, masks: Mapping[str, Tensor]):
        self._masks = masks  # kept weights by parameter name, bool, on the CPU
        self._held: dict[str, tuple[int, int]] = {}  # name -> the parameter that is held, and its version when last zeroed
        self._hooks: list[RemovableHandle] = []
        self._models: list[nn.Module] = []

    def check(self) -> None:
        """Raise WinnowError naming the layer and the count when a removed weight is not zero."""
        for model in self._models:
            parameters = dict(model.named_parameters())
            for name, mask in self._masks.items():
                alive = int((parameters[name].detach() != 0)[~mask.to(parameters[name].device)].sum())
                if alive:
                    raise WinnowError(
                        f"{name}: {alive} removed weights are not zero; something wrote them since the last step or forward pass"
                    )

    def remove(self) -> None:
        """Let the weights go: nothing is masked any more, and no weight changes."""
        for model in self._models:
            for parameter in model.parameters():
                _REMOVED.pop(parameter, None)
        for hook in self._hooks:
            hook.remove()
        self._models, self._hooks, self._held = [], [], {}

    def _hold(self, model: nn.Module, written: bool = False) -> None:
        parameters = dict(model.named_parameters())
        for name, mask in self._masks.items():
            parameter = parameters[name]
            if (
                not parameter.requires_grad
            ):  # frozen, or a stand-in for the length of an attack (folding.py): no optimiser has it
                if written:
                    parameter.data.masked_fill_(~mask.to(parameter.device), 0.0)
                continue
            known, version = self._held.get(name, (0, -1))
            if known != id(parameter) or parameter not in _REMOVED:
                _REMOVED[parameter] = ~mask.to(parameter.device)
                laid_out = _laid_out(mask, parameter)
                self._hooks.append(parameter.register_hook(lambda gradient, kept=laid_out: gradient * kept))
            elif version == parameter._version:
                continue
            _zero(parameter)
            self._held[name] = (id(parameter), parameter._version)

    def __call__(self, model: nn.Module, _: Any) -> None:
        """Before a forward pass: hold what is not held (a deep copy), set back what was written past the optimiser."""
        if not torch.compiler.is_compiling():
            if model not in self._models:
                self._models.append(model)
            self._hold(model)

    def _loaded(self, model: nn.Module, _: Any) -> None:
        self._hold(model, written=True)

    def __deepcopy__(self, memo: dict[int, Any]) -> Enforced:
        copy = Enforced(self._masks)
        memo[id(self)] = copy
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {"masks": dict(self._masks)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["masks"])  # type: ignore[misc]


def enforce(model: nn.Module, ticket: Ticket | None) -> Enforced:
    """Zero the removed weights of `model` and hold them at zero from now on (None: nothing is masked); see the module's text.

    Called again it replaces what it enforced before. Raises WinnowError when the ticket does not fit.
    """
    global _watching
    if _watching is None:
        _watching = register_optimizer_step_post_hook(_after_step)
    for hook in [h for h in model._forward_pre_hooks.values() if isinstance(h, Enforced)]:
        hook.remove()
    if ticket is None:
        return Enforced({})
    ticket.apply(model)
    made = Enforced(ticket.masks)
    made._models.append(model)
    made._hooks.append(model.register_forward_pre_hook(made))
    made._hooks.append(model.register_load_state_dict_post_hook(made._loaded))
    made._hold(model)
    return made


@torch.no_grad()
def _zero(parameter: Tensor) -> None:
    parameter.masked_fill_(_REMOVED[parameter], 0.0)


def _after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter in _REMOVED:
                _zero(parameter)


def _laid_out(mask: Tensor, parameter: Tensor) -> Tensor:
    """The mask in the parameter's dtype, device and memory format: the product with a gradient then reads both in order."""
    last = parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if last and not parameter.is_contiguous() else torch.contiguous_format
    return mask.to(parameter.device, parameter.dtype).contiguous(memory_format=form)
