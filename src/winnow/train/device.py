"""The device and the numerical settings of a run."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from winnow.config.parts import Compute
from winnow.errors import WinnowError


def choose_device(name: str) -> torch.device:
    """`auto`: the first visible GPU, else the CPU. Raises WinnowError when a named device is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise WinnowError(f"--device: {name!r} is not a device; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise WinnowError(
            f"--device: {name} is not available here ({torch.cuda.device_count()} GPUs visible); use auto or cpu"
        )
    return device


def configure(compute: Compute, device: torch.device) -> None:
    """Threads, memory, determinism and matrix precision; call once before any tensor work."""
    torch.set_num_threads(compute.threads)
    keep_freed_memory()
    if device.type == "cuda":  # the CPU kernels in use here are deterministic at a fixed thread count
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(compute.deterministic)
        torch.backends.cudnn.benchmark = not compute.deterministic
        # else a pass over every new tensor; nothing here reads one unwritten
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = compute.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = compute.precision == "tf32"


def on_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy of a NumPy array on the device; a GPU takes it without the host waiting for what is queued there."""
    tensor = torch.from_numpy(array)
    return tensor.to(device) if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def explained(smaller: str) -> Iterator[None]:
    """Within: what a user can mend ends in one line. `smaller`: the key to change when the memory of the GPU is too
    small.

    The others are a kernel that has no deterministic form (a VGG's pooling on a GPU) and a batch of one example.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        told = " ".join(str(error).split(". ")[:2])
        raise WinnowError(f"{told}; {smaller}") from None
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        raise WinnowError(
            "a batch of one example meets a batch normalisation that sees one value a channel: nothing to normalise "
            "over; take 2 examples or more in a batch (train.batch_size, train_images), or larger images"
        ) from None
    except RuntimeError as error:
        if "deterministic" not in str(error) or not torch.are_deterministic_algorithms_enabled():
            raise
        raise WinnowError(f"compute.deterministic: {str(error).partition('.')[0]}; set it to false") from None


def keep_freed_memory() -> None:
    """Let freed tensors be reused instead of returned to the kernel, which zeroes every page of the next one (15 % of a
    step).

    By default the GNU C library maps and unmaps each block above 128 KiB to 32 MiB. Other C libraries are left as they
    are.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        adjust(trim_threshold, 2**31 - 1)
        adjust(mmap_threshold, 2**30)


def autocast(compute: Compute, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast when the configuration asks for it, else nothing."""
    if compute.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def working_dtype(weight: torch.Tensor) -> torch.dtype:
    """The dtype in which a layer computes with `weight` here: autocast's within it, else its own."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def start(compute: Compute, device: torch.device, seed: int) -> torch.device:
    """Configure the process and seed whatever is drawn before the first training step; returns `device`."""
    configure(compute, device)
    torch.manual_seed(seed)
    return device
