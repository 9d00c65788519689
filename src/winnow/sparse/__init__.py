"""Tickets that run fast: `winnow.sparse(model, ticket)`, its formats, and whether it is worth it.

    fast = winnow.sparse(model, ticket)                  # the same outputs; see `sparse` in model.py
    compressed_bits(ticket)                              # sizes.py: bits a kept weight, and the bound

What it needs is imported at the call.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def sparse(*arguments: Any, **options: Any) -> Any:
    """`winnow.sparse.model.sparse`, with its arguments."""
    return import_module("winnow.sparse.model").sparse(*arguments, **options)


class _Callable(ModuleType):
    """`winnow.sparse` is this package, and the function that users call."""

    __call__ = staticmethod(sparse)


sys.modules[__name__].__class__ = _Callable
