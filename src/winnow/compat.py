"""Shims for dependencies that break on current torch; each is applied at most once per process."""

from __future__ import annotations

import importlib.util
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any

from winnow.errors import WinnowError


@cache
def repair_torchvision() -> bool:
    """Make torchvision importable where its wheel was built for CUDA and torch was not; False where it is not
    installed.

    Such a wheel's `_C.so` does not load, and `import torchvision` then fails at `torchvision::nms` (pytorch/vision
    issues 8985 and 9085). Declaring the operators' schemas lets models, transforms and datasets import; `ops.nms` and
    `torchvision.io`, which need the library itself, stay unusable, and winnow uses neither.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    if "torchvision" not in sys.modules:
        libraries = sorted(Path(spec.origin).parent.glob("_C*.so"))
        try:
            for library in libraries:
                torch.ops.load_library(str(library))
        except OSError:
            _declare_operators(torch)
    return True


@cache
def torchvision() -> Any:
    """torchvision. Raises WinnowError where it is not installed."""
    if not repair_torchvision():
        raise WinnowError("torchvision is not installed; install the vision requirements (requirements/lock.txt)")
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

    BorealisAI/advertorch issues 91, 99 and 115. The attribute `torch.autograd.gradcheck` is a function, so the module
    is reached through sys.modules.
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
