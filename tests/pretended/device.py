"""A pretended GPU: tensors that say `gpu:0` and compute on the CPU, with the rules of a real one.

A tensor of the CPU that meets one of the device is an error (numbers and index tensors excepted, as on CUDA). What
makes the host wait for the device is counted by the line of winnow that asked for it: copies that are blocking or come
from memory that is not page-locked, numbers that are read, shapes that depend on values. Numbers are the CPU's, so
results can be compared exactly. One process, eager, no autocast. Built on torch's Python-side device backends, so it
needs torch alone.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "gpu"
DEPENDS_ON_VALUES = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "histc"}
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_unsafe_index_put", "_index_put_impl_"}


class MixedDevicesError(RuntimeError):
    """Tensors of both devices in one operation."""


class _Backend(_DummyBackendModule):
    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """The CPU's generator makes the numbers."""

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        """As above."""


def _is_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _line() -> str:
    """File and line of the innermost frame within winnow."""
    frame = sys._getframe(1)
    while frame is not None:
        _, found, name = frame.f_code.co_filename.rpartition("/src/winnow/")
        if found:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


class Pretended(torch.Tensor):
    """A tensor of the device; `held` is the CPU's tensor that it stands for."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Pretended:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip
        made.held = held
        return made

    def __init__(self, held: torch.Tensor) -> None:
        """All is done in __new__."""

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.held})"

    def __format__(self, spec: str) -> str:
        return format(self.held.detach(), spec)

    def __deepcopy__(self, memo: Any) -> torch.Tensor:
        copied = Pretended(self.held.clone())
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().held.__reduce_ex__(protocol)  # what a checkpoint holds

    @property
    def data(self) -> torch.Tensor:
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, other: Pretended) -> None:
        torch.Tensor.data.__set__(self, other)
        self.held = other.held

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _LEDGERS[-1].run(function, args, kwargs or {})


class Ledger:
    """`waits`: (what, line) -> how often the host waited; `operations`: how many ran on the device."""

    def __init__(self) -> None:
        self.waits: Counter[tuple[str, str]] = Counter()
        self.operations = 0
        self.pinned: set[int] = set()

    def wait(self, what: str) -> None:
        self.waits[what, _line()] += 1

    def run(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        ours = [t for t in tensors if isinstance(t, Pretended)]
        if not ours and not any(map(_is_device, self._devices(args, kwargs))):
            return function(*args, **kwargs)
        self.operations += 1
        name = function._schema.name.partition("::")[2]
        if name in ("_to_copy", "to"):
            return self._copied(function, args, kwargs)
        if name in ("copy_", "_foreach_copy_"):
            return self._copied_into(function, args, kwargs)
        if name == "_local_scalar_dense":
            self.wait("a number read")
        if name in DEPENDS_ON_VALUES:
            self.wait(name)
        self._check(function, name, args, tensors)
        out = function(*tree_map(_inside, args), **tree_map(_inside, kwargs))
        known = {id(t.held): t for t in ours}

        def outside(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            return known[id(value)] if id(value) in known else Pretended(value)

        return tree_map(outside, out)

    @staticmethod
    def _devices(args: Any, kwargs: dict[str, Any]) -> list[Any]:
        return [kwargs.get("device"), *(a for a in args if isinstance(a, torch.device))]

    def _copied(self, function: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        source = args[0]
        asked = [d for d in self._devices(args[1:], kwargs) if d is not None]
        here = isinstance(source, Pretended)
        there = _is_device(asked[0]) if asked else here
        if here and not there:
            self.wait("copy to the host")
        if there and not here and not (kwargs.get("non_blocking") and id(source) in self.pinned):
            self.wait("blocking copy to the device")
        plain = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking")}
        rest = [a for a in args[1:] if not isinstance(a, torch.device)]
        out = (
            torch.ops.aten._to_copy.default(_inside(source), **plain)
            if not rest
            else function(_inside(source), *rest, **plain)
        )
        out = out.clone() if out is _inside(source) else out
        return Pretended(out) if there else out

    def _copied_into(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        into, source = (tree_flatten(a)[0] for a in args[:2])
        for a, b in zip(into, source, strict=True):
            if isinstance(a, Pretended) != isinstance(b, Pretended):
                self.wait("copy to the device in place" if isinstance(a, Pretended) else "copy to the host in place")
        function(*tree_map(_inside, args), **kwargs)
        return args[0] if isinstance(args[0], torch.Tensor) else None

    def _check(self, function: Any, name: str, args: Any, tensors: list[torch.Tensor]) -> None:
        strangers = [t for t in tensors if not isinstance(t, Pretended)]
        if name in INDEXING:
            indices = [i for i in args[1] if i is not None]
            if any(i.dtype == torch.bool for i in indices):
                self.wait("indexing by a mask")
            if any(not isinstance(i, Pretended) for i in indices):
                self.wait("an index copied")
            strangers = [t for t in strangers if all(t is not i for i in indices)]
            if not isinstance(args[0], Pretended):
                raise MixedDevicesError(f"{function}: a tensor of the CPU indexed by one of the device at {_line()}")
        if any(t.dim() for t in strangers):
            raise MixedDevicesError(f"{function}: tensors of the CPU and of the device at {_line()}")


def _inside(value: Any) -> Any:
    if isinstance(value, Pretended):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _LEDGERS[-1].run(function, args, kwargs or {})


_LEDGERS: list[Ledger] = [Ledger()]


def register() -> None:
    """Make the name `gpu` known to torch; once a process, and for good."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())


@contextmanager
def counting() -> Iterator[Ledger]:
    """Within: tensors may be on the device; the ledger counts."""
    ledger = Ledger()
    _LEDGERS.append(ledger)
    kept: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
        kept.append(tensor.clone())  # kept, so that its id stays its own
        ledger.pinned.add(id(kept[-1]))
        return kept[-1]

    try:
        # inference mode hides operations from a mode; what it changes is speed
        with (
            patch.object(torch.Tensor, "pin_memory", pin),
            patch.object(torch, "inference_mode", torch.no_grad),
            _Mode(),
        ):
            yield ledger
    finally:
        _LEDGERS.pop()
