"""Tensors as they were after some epochs of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


class Snapshots:
    """Copies of live tensors after the epochs that are kept; they lie in the checkpoint until the stage writes them."""

    def __init__(self, tensors: Mapping[str, Tensor], epochs: Sequence[int]):
        self.tensors, self.epochs = tensors, epochs
        self.taken: dict[int, dict[str, Tensor]] = {}

    def after_epoch(self, epoch: int) -> None:
        """`epoch` counted from 1."""
        if epoch in self.epochs:
            self.taken[epoch] = {name: t.detach().to("cpu", copy=True) for name, t in self.tensors.items()}

    def state_dict(self) -> dict[str, Any]:
        """The copies so far."""
        return {"taken": self.taken}

    def load_state_dict(self, state: Any) -> None:
        """Take the copies back."""
        self.taken = state["taken"]
