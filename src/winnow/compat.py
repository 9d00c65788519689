"""Shims for dependencies that break on, or are slow with, current torch; each is applied at most once per process."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any


@cache
def torchvision() -> Any:
    """torchvision, also when its wheel was built for CUDA and torch was not.

    Such a wheel's `_C.so` does not load, and `import torchvision` then fails at `torchvision::nms` (pytorch/vision issue 8375
    is one of the reports). Declaring the operators' schemas lets models, transforms and datasets import; `ops.nms` and
    `torchvision.io`, which need the library itself, stay unusable, and winnow uses neither.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        from winnow.errors import WinnowError

        raise WinnowError("torchvision is not installed; install the vision requirements (requirements/lock.txt)")
    if "torchvision" not in sys.modules:
        libraries = sorted(Path(spec.origin).parent.glob("_C*.so"))
        try:
            for library in libraries:
                torch.ops.load_library(str(library))
        except OSError:
            _declare_operators(torch)
    import torchvision as module

    return module


_libraries: list[Any] = []  # kept alive: the schemas go when the Library object does


def _declare_operators(torch: Any) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                   "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"):  # fmt: skip
        library.define(schema)
    _libraries.append(library)


@cache
def advertorch_attacks() -> Any:
    """`advertorch.attacks` 0.2.3, which imports `zero_gradients` from torch.autograd.gradcheck (gone since torch 1.9).

    BorealisAI/advertorch issues 91, 99 and 115. The attribute `torch.autograd.gradcheck` is a function, so the module is
    reached through sys.modules.
    """
    import torch.autograd

    torchvision()

    def zero_gradients(x: Any) -> None:
        if isinstance(x, torch.Tensor) and x.grad is not None:
            x.grad.detach_().zero_()

    module: types.ModuleType = sys.modules["torch.autograd.gradcheck"]
    if not hasattr(module, "zero_gradients"):
        module.zero_gradients = zero_gradients  # type: ignore[attr-defined]
    import advertorch.attacks as attacks

    return attacks


@cache
def optimizers_without_compiler() -> None:
    """Let optimisers be made without importing torch's compiler, which costs a short job more than all its other imports.

    `torch._disable_dynamo` (torch/_compile.py) imports torch._dynamo at the first call of the optimiser methods that it
    wraps, only to mark them as not to be compiled. Where nothing is compiled the plain method does the same.
    """
    import torch

    for member in vars(torch.optim.Optimizer).values():
        plain = getattr(member, "__wrapped__", None)
        if plain is not None and getattr(member, "__module__", "") == "torch.optim.optimizer":
            setattr(plain, "__dynamo_disable", plain)


def optimizer_step(optimizer: Any) -> None:
    """`optimizer.step()` without the wrapper that imports torch._dynamo to break compiled graphs (and runs step hooks)."""
    import torch

    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)
