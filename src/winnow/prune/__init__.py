"""Pruning: which weights a ticket keeps. A file a method (`methods.py` lists them), each with exact counts.

    from winnow.prune import lamp
    masks = lamp.masks(weights, count)                  # arrays by name in, bool arrays out

`winnow.prune(model, "lamp", 10)` does the same for a torch module, see `prune` in model.py. What it needs is imported
at the call: whoever takes one light method never imports torch, and depends on no other method's code.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def prune(*arguments: Any, **options: Any) -> Any:
    """`winnow.prune.model.prune`, with its arguments."""
    return import_module("winnow.prune.model").prune(*arguments, **options)


class _Callable(ModuleType):
    """`winnow.prune` is this package, and the function that users call."""

    __call__ = staticmethod(prune)


sys.modules[__name__].__class__ = _Callable
