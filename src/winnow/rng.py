"""Stateless randomness: every draw is a function of named counters, so a resumed run needs no generator state."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any printable parts, e.g. `seed_of(seed, "attack", step)`; equal parts, equal seed."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_generator(*parts: object) -> np.random.Generator:
    """A fresh NumPy generator for these parts."""
    return np.random.Generator(np.random.PCG64(seed_of(*parts)))


def uniform(counters: npt.NDArray[np.integer], draws: int, *parts: object) -> npt.NDArray[np.float64]:
    """U[0,1) of shape (len(counters), draws): row i depends on counters[i] and `parts` alone (splitmix64 finaliser).

    An image gets the same augmentation whatever batch, loader or worker it passes through.
    """
    base = np.uint64(seed_of(*parts))
    columns = np.arange(draws, dtype=np.uint64)[None, :]
    with np.errstate(over="ignore"):
        z = base + _GOLDEN * (
            np.asarray(counters, dtype=np.uint64)[:, None] * np.uint64(draws) + columns + np.uint64(1)
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
