"""A lottery ticket: one boolean mask per prunable parameter, bit-packed in a safetensors file.

Every pipeline writes and reads the same format: a tensor per masked parameter, named as in the model's state dict,
uint8, eight weights a byte; shapes, kept counts and provenance in the file's one metadata key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow.artifacts import read_arrays, read_metadata, write_tensors
from winnow.errors import WinnowError, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn


SHARED = "ticket.mask.safetensors"  # in an exported folder, and on the hub
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True, repr=False)
class Ticket:
    """Masks by parameter name (True = kept), with how and from what they were made.

    `arrays`: bool NumPy arrays or torch tensors, shaped as the parameters; kept as NumPy arrays. `metadata`: at least
    `method` when it was read from a file. Raises WinnowError for no masks, and for masks of another kind.
    """

    arrays: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.arrays:
            raise WinnowError("ticket: holds no masks; a ticket needs at least one prunable parameter")
        arrays = {
            name: mask.detach().cpu().numpy() if hasattr(mask, "detach") else mask for name, mask in self.arrays.items()
        }
        for name, mask in arrays.items():
            if getattr(mask, "dtype", None) != np.bool_:
                kind = getattr(mask, "dtype", type(mask).__name__)
                raise WinnowError(f"ticket: mask {name} is {kind}, expected bool (a NumPy array or a torch tensor)")
        object.__setattr__(self, "arrays", arrays)

    def __repr__(self) -> str:
        method = f"{self.metadata['method']}, " if "method" in self.metadata else ""
        return (
            f"Ticket({method}{self.remaining_percent:.4g} % of {self.total:,} weights kept, {len(self.arrays)} masks)"
        )

    @property
    def masks(self) -> dict[str, torch.Tensor]:
        """The masks as bool tensors on the CPU."""
        import torch

        return {name: torch.from_numpy(np.ascontiguousarray(mask)) for name, mask in self.arrays.items()}

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(mask.size for mask in self.arrays.values())

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return sum(int(mask.sum()) for mask in self.arrays.values())

    @property
    def remaining_percent(self) -> float:
        """Percentage of the prunable weights that are kept, 0..100."""
        return 100.0 * self.kept / self.total

    @property
    def removed_percent(self) -> float:
        """Percentage of the prunable weights that are removed, 0..100."""
        return 100.0 - self.remaining_percent

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read and check a `*.mask.safetensors`, that of a folder that `winnow export` wrote, or of one on the hub
        (owner/name).

        Raises WinnowError when it is truncated, foreign or inconsistent, and where the hub cannot be reached.
        """
        if Path(path).is_dir():
            path = Path(path) / SHARED
        elif not Path(path).exists() and _HUB_ID.fullmatch(str(path)) and not str(path).endswith(".safetensors"):
            # by name: no stage depends on the hub's code
            path = import_module("winnow.share.hub").fetch(str(path), SHARED)
        metadata = read_metadata(path)
        if metadata.get("kind") != "ticket":
            raise WinnowError(
                f"{path}: not a winnow ticket; import masks of other formats with winnow.stages.import_ticket"
            )
        packed, shapes, counts = read_arrays(path), metadata.get("shapes"), metadata.get("kept")
        if not (isinstance(shapes, dict) and isinstance(counts, dict) and set(counts) == set(shapes)):
            raise WinnowError(
                f"{path}: records no shapes and counts of its masks; delete it and rerun the stage that writes it"
            )
        if set(packed) != set(shapes):
            raise WinnowError(
                f"{path}: tensors and recorded shapes disagree; delete it and rerun the stage that writes it"
            )
        arrays = {}
        for name, shape in shapes.items():
            if not (isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape) and len(shape) <= 64):
                raise WinnowError(
                    f"{path}: the shape of mask {name} is no list of sizes; delete it and rerun its stage"
                )
            size = math.prod(shape)
            if packed[name].dtype != np.uint8 or packed[name].size != (size + 7) // 8:
                raise WinnowError(f"{path}: mask {name} is not {size} bits in bytes; delete it and rerun its stage")
            arrays[name] = np.unpackbits(packed[name], count=size).astype(np.bool_).reshape(shape)
            if int(arrays[name].sum()) != counts[name]:
                raise WinnowError(
                    f"{path}: mask {name} keeps {int(arrays[name].sum())} weights, recorded are {counts[name]}: "
                    "the file is damaged; delete it and rerun the stage that writes it"
                )
        return cls(arrays, metadata)

    def save(self, path: str | Path, /, **metadata: Any) -> None:
        """Write the ticket (atomic, byte-stable). `metadata` adds to the ticket's own, e.g. method=..., parents=..."""
        packed = {name: np.packbits(mask.reshape(-1)) for name, mask in self.arrays.items()}
        record = {
            **self.metadata,
            **metadata,
            "kind": "ticket",
            "shapes": {name: list(mask.shape) for name, mask in self.arrays.items()},
            "kept": {name: int(mask.sum()) for name, mask in self.arrays.items()},
            "remaining_percent": self.remaining_percent,
        }
        write_tensors(path, packed, record)

    def check_fits(self, shapes: Mapping[str, tuple[int, ...]], what: str = "the model") -> None:
        """Raise WinnowError unless every mask names a parameter of that shape (`shapes`: parameter name -> shape)."""
        for name, mask in self.arrays.items():
            if name not in shapes:
                raise WinnowError(f"ticket does not fit {what}: no parameter {name!r}{nearest(name, shapes)}")
            if tuple(shapes[name]) != mask.shape:
                raise WinnowError(f"ticket does not fit {what}: {name} is {tuple(shapes[name])}, its mask {mask.shape}")

    def apply(self, model: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
        """Zero the removed weights of `model` in place, once; returns the bool masks by name on each parameter's
        device.

        prefix: what stands before the ticket's names in this model, as `backbone.`. Raises WinnowError when it does not
        fit.
        """
        import torch

        if prefix:
            return Ticket({prefix + name: mask for name, mask in self.arrays.items()}).apply(model)
        parameters = dict(model.named_parameters())
        self.check_fits({k: tuple(v.shape) for k, v in parameters.items()}, type(model).__name__)
        placed = {name: mask.to(parameters[name].device) for name, mask in self.masks.items()}
        with torch.no_grad():
            for name, mask in placed.items():
                parameters[name].masked_fill_(~mask, 0.0)
        return placed

    def is_within(self, other: Ticket) -> bool:
        """Whether every weight kept here is kept in `other` too (masks of successive pruning rounds are nested)."""
        return set(self.arrays) == set(other.arrays) and all(
            not np.any(mask & ~other.arrays[name]) for name, mask in self.arrays.items()
        )

    def report(self) -> list[dict[str, Any]]:
        """One row per layer (name, shape, total, kept, remaining_percent) and a last row `total`."""
        rows = [
            {
                "name": name,
                "shape": list(mask.shape),
                "total": mask.size,
                "kept": int(mask.sum()),
                "remaining_percent": 100.0 * int(mask.sum()) / mask.size,
            }
            for name, mask in self.arrays.items()
        ]
        whole = {"name": "total", "shape": [], "total": self.total, "kept": self.kept}
        return [*rows, {**whole, "remaining_percent": self.remaining_percent}]
