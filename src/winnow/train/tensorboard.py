"""Epoch records for TensorBoard, where its package is installed: one hook, and nothing else knows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from winnow.errors import WinnowError


def writer(folder: Path) -> Callable[[Mapping[str, Any], int], None]:
    """A function that writes the numbers of a record below `folder`; WinnowError without the package tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise WinnowError(
            "tensorboard: the package is not installed; `pip install tensorboard`, or leave the key out"
        ) from None
    events = SummaryWriter(str(folder))

    def write(record: Mapping[str, Any], step: int) -> None:
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                events.add_scalar(name, value, step)
        events.flush()

    return write
