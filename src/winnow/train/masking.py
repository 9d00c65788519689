"""Training under a fixed mask: removed weights are zero and stay so, whatever the optimiser and whatever happens to the
model.

    handle = winnow.enforce(model, ticket)   # then train as before
    handle.check()                           # raises when a removed weight is not zero
    handle.remove()                          # the weights stay as they are, nothing holds them any more

Gradients of removed weights are zero, so clipping and kept weights see a smaller network. After every step of every
torch optimiser (also of one's own class) they are set back to zero, whatever its state or decay would move. What is
written past optimisers is set back after load_state_dict, before state_dict and before each forward pass of the model
or of the layer. A deep copy is held too; a model that was saved whole, from the first of these on. A weight that is no
parameter any more cannot be held: that raises.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from winnow.errors import WinnowError
from winnow.ticket import Ticket

_HELD: Any = WeakTensorKeyDictionary()  # parameter -> what holds it
_watching: RemovableHandle | None = None


class _Guard:
    """Holds one weight of one module; as a hook it is copied and saved with the module, and then takes hold anew."""

    def __init__(self, name: str, kept: Tensor):
        self.name, self.leaf, self.kept = name, name.rpartition(".")[2], kept  # kept: bool, on the CPU
        self.released = False
        self._placed: Tensor | None = None
        self._hook: RemovableHandle | None = None
        self._of: TensorWeakRef | None = None  # the weight that it holds

    def parameter(self, module: nn.Module) -> nn.Parameter | None:
        """The weight; None while an attack's folded stand-in is in its place. WinnowError when it is no parameter."""
        found = module._parameters.get(self.leaf)
        if isinstance(found, nn.Parameter):
            if hasattr(found, "device_mesh"):
                raise WinnowError(f"{self.name} is sharded, which a ticket cannot hold; use DistributedDataParallel")
            return found
        if "folded" in vars(module):
            return None
        raise WinnowError(
            f"{self.name} is no parameter any more (a parametrization, a stand-in of functional_call), so it cannot be "
            f"held at "
            "zero; call handle.remove() first"
        )

    def hold(self, module: nn.Module) -> None:
        """Take hold of the module's weight as it is now, and zero what is removed."""
        parameter = self.parameter(module)
        if parameter is None:
            return
        self._take(parameter)
        self.zero(parameter)

    def _take(self, parameter: nn.Parameter) -> None:
        if _HELD.get(parameter) is not self:
            _watch()
            _HELD[parameter], self._hook, self._of = self, None, TensorWeakRef(parameter)
        if self._hook is None and parameter.requires_grad:
            self._hook = parameter.register_hook(self._masked)

    def zero(self, parameter: Tensor) -> None:
        """Set the removed weights to zero without marking the parameter as changed: graphs that hold it stay valid."""
        parameter.data.mul_(self._mask(parameter))

    def release(self, module: nn.Module) -> None:
        """Let go of the weight and leave the module."""
        self.released = True
        parameter = module._parameters.get(self.leaf)
        if parameter is not None and _HELD.get(parameter) is self:
            del _HELD[parameter]
        if self._hook is not None:
            self._hook.remove()
        _leave(module, self)

    def __call__(self, module: nn.Module, _: Any) -> None:
        """Before the module's forward pass."""
        if not torch.compiler.is_compiling():
            self.hold(module)

    def loaded(self, module: nn.Module, _: Any) -> None:
        """After the module's load_state_dict."""
        self.hold(module)

    def saving(self, module: nn.Module, *_: Any) -> None:
        """Before the module's state_dict."""
        self.hold(module)

    def _masked(self, gradient: Tensor) -> Tensor:
        return gradient * self._mask(gradient)

    def _mask(self, like: Tensor) -> Tensor:
        """1 where kept, with the dtype, device and memory format of `like`: a product then reads both in order."""
        placed = self._placed
        if placed is None or placed.dtype != like.dtype or placed.device != like.device:
            last = (
                like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
            )
            form = torch.channels_last if last else torch.contiguous_format
            placed = self._placed = self.kept.to(like.device, like.dtype).contiguous(memory_format=form)
        return placed

    def __deepcopy__(self, memo: dict[int, Any]) -> _Guard:
        """The copy's guard, which takes hold of the copied weight: a module's weights are copied before its hooks."""
        if id(self) not in memo:
            twin = memo[id(self)] = _Guard(self.name, self.kept)
            copied = memo.get(id(self._of())) if self._of is not None else None
            if isinstance(copied, nn.Parameter):
                twin._take(copied)
        return memo[id(self)]

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "kept": self.kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class _Whole:
    """Before the model's forward pass: weights that it reads without calling their layer (attention's) are held too."""

    def __init__(self, held: list[tuple[nn.Module, _Guard]]):
        self.held = held

    def __call__(self, _: nn.Module, __: Any) -> None:
        if not torch.compiler.is_compiling():
            for module, guard in self.held:
                if not guard.released:  # a part may have been let go, or hold another ticket now
                    guard.hold(module)


class Enforced:
    """What `enforce` returns; as a context manager it lets go at the end."""

    def __init__(self, model: nn.Module, held: list[tuple[nn.Module, _Guard]]):
        self._model, self._held = model, held

    def check(self) -> None:
        """Raise WinnowError naming the layer and the count when a removed weight is not zero, or is no parameter any
        more.
        """
        for module, guard in self._held:
            parameter = None if guard.released else guard.parameter(module)
            if parameter is None:
                continue
            alive = int((parameter.detach() != 0)[~guard.kept.to(parameter.device)].sum())
            if alive:
                raise WinnowError(
                    f"{guard.name}: {alive} removed weights are not zero; something wrote them since the last step or "
                    f"forward pass"
                )

    def remove(self) -> None:
        """Let the weights go: nothing is masked any more, and no weight changes. The model may be enforced anew
        meanwhile.
        """
        if any(not guard.released for _, guard in self._held):
            _release(self._model)
        self._held = []

    def __enter__(self) -> Enforced:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def enforce(model: nn.Module, ticket: Ticket | None, *, prefix: str = "", every_forward: bool = True) -> Enforced:
    """Zero the removed weights of `model` and hold them at zero from now on (None: nothing is masked); see the module's
    text.

    Called again, also on a copy, it replaces what it enforced before. A wrapper (DistributedDataParallel,
    torch.compile) is seen through. prefix: what stands before the ticket's names in this model. every_forward: look
    before every forward pass and state_dict for what was written past the optimisers and load_state_dict. Raises WinnowError when the
    ticket does not fit.
    """
    model = _unwrapped(model)
    if ticket is None:
        _release(model)
        return Enforced(model, [])
    masks = ticket.apply(model, prefix)
    _release(model)
    held = []
    for name, kept in masks.items():
        module, guard = model.get_submodule(name.rpartition(".")[0]), _Guard(name, kept.cpu())
        if every_forward:
            module.register_forward_pre_hook(guard)
            module.register_state_dict_pre_hook(guard.saving)
        module.register_load_state_dict_post_hook(guard.loaded)
        guard.hold(module)
        held.append((module, guard))
    if every_forward:
        model.register_forward_pre_hook(_Whole(held))
    return Enforced(model, held)


def _unwrapped(model: nn.Module) -> nn.Module:
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:  # torch.compile's
            model = model.get_submodule("_orig_mod")
        else:
            return model


def _release(model: nn.Module) -> None:
    """Take out every guard in `model`, those that came with a deep copy or a file as well."""
    for module in model.modules():
        for hook in [h for hooks in _hooks(module) for h in hooks.values()]:
            owner = getattr(hook, "__self__", hook)
            if isinstance(owner, _Guard):
                owner.release(module)
            elif isinstance(owner, _Whole):
                _leave(module, owner)


def _hooks(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """Where guards may be hooked in."""
    return module._forward_pre_hooks, module._load_state_dict_post_hooks, module._state_dict_pre_hooks


def _leave(module: nn.Module, owner: _Guard | _Whole) -> None:
    for hooks in _hooks(module):
        for key in [k for k, hook in hooks.items() if getattr(hook, "__self__", hook) is owner]:
            del hooks[key]


def _watch() -> None:
    global _watching
    if _watching is None:
        _watching = register_optimizer_step_post_hook(_after_step)


@torch.no_grad()
def _after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    if not len(_HELD):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            guard = _HELD.get(parameter)
            if guard is not None:
                guard.zero(parameter)
