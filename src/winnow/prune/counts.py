"""What all methods share: exact counts with reproducible ties, masks of given counts drawn by a seed. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from winnow.errors import WinnowError
from winnow.rng import numpy_generator

Arrays = Mapping[str, np.ndarray]


def keep_largest(scores: Arrays, count: int, dtype: npt.DTypeLike = np.float32) -> dict[str, np.ndarray]:
    """Masks that keep exactly the `count` largest scores over all arrays together.

    Ties: earlier names and positions first. Scores are compared in `dtype`. Raises WinnowError when `count` is out of
    range or a score is NaN.
    """
    names = list(scores)
    flat = np.concatenate([np.asarray(scores[n], dtype=dtype).reshape(-1) for n in names])
    if np.isnan(flat).any():
        broken = next(n for n in names if np.isnan(scores[n]).any())
        raise WinnowError(f"{broken} holds NaN; the run that wrote it diverged, rerun it with a lower learning rate")
    check_count(count, flat.size)
    chosen = np.zeros(flat.size, dtype=bool)
    if count:
        threshold = np.partition(flat, flat.size - count)[flat.size - count]
        chosen = flat > threshold
        ties = np.flatnonzero(flat == threshold)
        chosen[ties[: count - int(chosen.sum())]] = True
    return split(chosen, {n: np.shape(scores[n]) for n in names})


def check_count(count: int, total: int) -> None:
    """Raise WinnowError unless `count` of `total` weights can be kept."""
    if not 0 <= count <= total:
        raise WinnowError(f"cannot keep {count} of {total} weights")


def imp_count(total: int, round_number: int, prune_percent: float) -> int:
    """Weights that remain after round k of IMP: round(total * (1 - p/100)^k), so rounding does not add up."""
    return round(total * (1.0 - prune_percent / 100.0) ** round_number)


def apportion(shares: npt.ArrayLike, count: int) -> np.ndarray:
    """Whole numbers (int64) that sum to `count`: shares rounded down, the largest remainders up (ties: earlier first).

    shares: (n,) non-negative, with a sum of `count` to within rounding errors.
    """
    exact = np.asarray(shares, dtype=np.float64)
    rounded = np.round(exact)
    exact = np.where(np.abs(exact - rounded) < 1e-9 * (1.0 + rounded), rounded, exact)  # 3 - 4e-16 is 3, not 2
    whole = np.floor(exact).astype(np.int64)
    up = np.argsort(whole - exact, kind="stable")[: count - int(whole.sum())]
    whole[up] += 1
    assert int(whole.sum()) == count
    return whole


def draw(weights: Arrays, counts: Sequence[int], *seed: object) -> dict[str, np.ndarray]:
    """Random masks that keep `counts[i]` weights of the i-th array, each array drawn by its own generator."""
    masks = {}
    for (name, values), count in zip(weights.items(), counts, strict=True):
        kept = np.arange(values.size) < count
        masks[name] = numpy_generator(*seed, name).permutation(kept).reshape(values.shape)
    return masks


def tiled(blocks: Arrays, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Masks over the scores of blocks, (out/a, in/b), as masks over weights: [i, j] takes [i mod out/a, j mod in/b]."""
    return {
        name: np.tile(small, [whole // part for whole, part in zip(shapes[name], small.shape, strict=True)])
        for name, small in blocks.items()
    }


def split(flat: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A flat array cut into arrays of these shapes, in their order."""
    masks, start = {}, 0
    for name, shape in shapes.items():
        size = prod(shape)
        masks[name] = flat[start : start + size].reshape(shape)
        start += size
    return masks
