"""Reading .safetensors, torch checkpoints and the pickled masks of the released IMP program; nothing in a file is
executed.
"""

from __future__ import annotations

import argparse
import io
import pathlib
import pickle
import re
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from winnow import outside
from winnow.artifacts import read_tensors
from winnow.errors import WinnowError

CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "ema", "init_weight")
_SMALL = 16 << 20  # bytes that a tensor expanded from fewer may have
_NUMPY = np._core.multiarray  # type: ignore[attr-defined]


def _harmless() -> list[Any]:
    """Types beside tensors that hold values alone: namespaces, paths, NumPy scalars and arrays (under their old names
    too).
    """
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefdgFDGSUOMm"}
    found: list[Any] = [argparse.Namespace, types.SimpleNamespace, pathlib.PosixPath, np.ndarray, np.dtype, *dtypes]
    for name in ("scalar", "_reconstruct"):
        function = getattr(_NUMPY, name)
        found += [(function, f"numpy.core.multiarray.{name}"), (function, f"numpy._core.multiarray.{name}")]
    return [*found, (pathlib.PureWindowsPath, "pathlib.WindowsPath")]


def read_checkpoint(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth, .pt, .bin, .pth.tar or (masks of released IMP runs) .npy file, by name.

    The state dict is looked for under `entry` (a key, or keys joined by dots) if given, else under the usual keys
    (`CONTAINERS`), else the file's own mapping is it. Raises WinnowError.
    """
    _check_kind(path)
    if path.suffix == ".safetensors":
        state = read_tensors(path)
        for name, tensor in state.items():
            _check_values(path, name, tensor)
        return state
    loaded = _read_imp_mask(path) if path.suffix == ".npy" else _load(path)
    for name in entry.split(".") if entry else ():
        if not isinstance(loaded, Mapping) or name not in loaded:
            keys = ", ".join(map(str, list(loaded)[:12])) if isinstance(loaded, Mapping) else type(loaded).__name__
            raise WinnowError(f"{path}: no entry {entry!r}; it holds {keys}")
        loaded = loaded[name]
    seen: list[Any] = []
    while isinstance(loaded, Mapping):
        if any(loaded is s for s in seen):
            raise WinnowError(
                f"{path}: holds itself under the keys of a state dict ({', '.join(CONTAINERS)}); it is no checkpoint"
            )
        seen.append(loaded)
        inner = next((loaded[k] for k in CONTAINERS if isinstance(loaded.get(k), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping):
        raise WinnowError(f"{path}: holds a {type(loaded).__name__}, expected a state dict")
    state = {str(k): v.detach() for k, v in loaded.items() if isinstance(v, Tensor)}
    if not state:
        raise WinnowError(f"{path}: no state dict found; looked for the keys {', '.join(CONTAINERS)}")
    for name, tensor in state.items():
        _check_values(path, name, tensor)
    return state


def _check_values(path: Path, name: str, tensor: Tensor) -> None:
    """Raise WinnowError for a tensor that no network computes with: complex, not on the CPU, or larger than what is
    stored of it.
    """
    if tensor.is_complex():
        raise WinnowError(f"{path}: {name} is complex; save its real weights alone")
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        raise WinnowError(
            f"{path}: {name} holds no plain values ({tensor.device.type}, {tensor.layout}); save it dense, with values"
        )
    size = tensor.numel() * tensor.element_size()
    if size > max(tensor.untyped_storage().nbytes(), _SMALL):
        raise WinnowError(
            f"{path}: {name} is a view of {size:,} bytes on fewer that are stored; save a contiguous copy of it"
        )


def _check_kind(path: Path) -> None:
    """Raise WinnowError for what often lies under the name of a weights file: nothing, a Git LFS pointer, a web
    page.
    """
    with outside.opened(path) as f:
        head = f.read(64)
    if not head:
        raise WinnowError(f"{path}: is empty; fetch the file again")
    if head.startswith(b"version https://git-lfs"):
        raise WinnowError(f"{path}: is a Git LFS pointer, not the weights; fetch them with `git lfs pull`")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WinnowError(
            f"{path}: is a web page, not weights; fetch the file itself (its download address, not its page)"
        )


def _load(path: Path) -> Any:
    outside.check_zip(path)
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)|class (\S+)|type (\S+)", str(error))
        if named is None or "Unsupported operand" in str(error):
            reason = re.sub(r"\s+", " ", str(error).partition("WeightsUnpickler error:")[2] or str(error)).strip()[:160]
            raise WinnowError(f"{path}: truncated or not a torch checkpoint ({reason})") from None
        raise WinnowError(
            f"{path}: holds an object of type {next(filter(None, named.groups()))} beside tensors and is not loaded, "
            f"since that "
            "would run its code; where you trust it, load it with weights_only=False and re-save its state dict alone: "
            "torch.save(model.state_dict(), ...)"
        ) from None
    except MemoryError:
        raise WinnowError(f"{path}: needs more memory than there is; save its state dict alone") from None
    except Exception as error:  # a broken file fails in as many ways as a pickle has instructions
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise WinnowError(f"{path}: truncated or not a torch checkpoint ({reason})") from None


class _Array:
    """Stands in for a pickled NumPy array of objects: keeps the list of its elements, and nothing is called."""

    items: list[Any]

    def __setstate__(self, state: Any) -> None:
        self.items = list(state[-1])


class _Nothing:
    """Stands in for a pickled dtype: its values do not matter."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Mask(dict[str, Any]):
    """Stands in for `Mask`, the dict subclass of the released IMP program; its own state is passed over."""

    def __setstate__(self, state: Any) -> None:
        pass


def _storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


class _UnknownName(Exception):  # noqa: N818  (a finding, not a fault)
    """A pickle names something that plain masks do not need."""


class _MaskReader(pickle.Unpickler):
    """Knows the names that a pickled dict of tensors in a NumPy array needs, and no others."""

    known: Mapping[tuple[str, str], Callable[..., Any]] = {
        **{(module, "Mask"): _Mask for module in ("imp_mask", "IMP_codebase.mask", "mask")},  # it has moved
        ("collections", "OrderedDict"): OrderedDict,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Nothing,
        ("numpy.core.multiarray", "_reconstruct"): lambda *arguments: _Array(),
        ("numpy._core.multiarray", "_reconstruct"): lambda *arguments: _Array(),
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch.storage", "_load_from_bytes"): _storage,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; _UnknownName for any that is not known."""
        if (module, name) not in self.known:
            raise _UnknownName(f"{module}.{name}")
        return self.known[module, name]


def _read_imp_mask(path: Path) -> Any:
    """The dict of 0/1 tensors in a round_<k>_mask.npy."""
    with path.open("rb") as f:
        try:
            version = np.lib.format.read_magic(f)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(f)
            if shape != () or dtype != np.dtype(object):
                raise WinnowError(
                    f"{path}: holds an array of {dtype}, expected the pickled masks of a released IMP run"
                )
            (masks,) = _MaskReader(f).load().items
        except _UnknownName as error:
            raise WinnowError(
                f"{path}: holds an object of type {error} and is not loaded, since that would run its code"
            ) from None
        except WinnowError:
            raise
        except Exception as error:  # a broken pickle fails in as many ways as there are instructions
            raise WinnowError(
                f"{path}: truncated or not a released IMP mask ({type(error).__name__}: {error})"
            ) from None
    return masks
