"""A rule from a layer's shape and number of weights to its time in each way, with rates that are measured here.

    rates = calibrate()                                  # seconds; some hundred measurements of made-up layers
    rates.seconds(LayerShape(...), kept=1000)            # the fastest way's

The time of a way is a sum of counts (calls, values copied, vectors of 16 values multiplied and added, indices read,
values written) times rates. The rates are the non-negative ones with the smallest relative errors over the measured
layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import torch

from winnow.sparse.choice import times
from winnow.sparse.layers import Layer, SparseConv2d, SparseLinear
from winnow.sparse.ways import MOST_INDICES, Geometry

CPU = torch.device("cpu")
VECTOR = 16  # values that one instruction handles


@dataclass(frozen=True)
class LayerShape:
    """A layer and the input that it gets: weight (O,I) or (O,I/groups,kh,kw), input (...,I) or (B,I,H,W)."""

    weight: tuple[int, ...]
    input: tuple[int, ...]
    how: Geometry | None = None

    @classmethod
    def of(cls, layer: Layer, shape: tuple[int, ...]) -> LayerShape:
        """Of a layer that gets inputs of `shape`."""
        return cls(tuple(layer.weight.shape), tuple(shape), getattr(layer, "how", None))

    @property
    def size(self) -> int:
        """Weights, removed ones included."""
        return prod(self.weight)


def counts(layer: LayerShape, kept: int) -> dict[str, list[float]]:
    """What each way has to do with `kept` weights, in the order of its rates."""
    outputs = layer.weight[0]
    if layer.how is None:
        examples = prod(layer.input[:-1])
        vectors, written = kept * ceil(examples / VECTOR), outputs * examples
        moved = examples * layer.input[-1]
        dense: list[float] = [1, layer.size * ceil(examples / VECTOR), moved, layer.size, written]
        return {"dense": dense, "csr": [1, moved, vectors, kept, written], "bag": [1, moved, vectors, kept, written]}
    batch, channels, high, wide = layer.input
    kernel = (layer.weight[2], layer.weight[3])
    out = layer.how.output((high, wide), kernel)
    places, written = prod(out), outputs * prod(out) * batch
    copied = 0 if kernel == layer.how.stride == (1, 1) else channels * kernel[1] * high * out[1] * batch
    windows = layer.weight[1] * prod(kernel) * places * batch  # values that they read: what narrow layers wait for
    found: dict[str, list[float]] = {
        "dense": [1, layer.size * ceil(places * batch / VECTOR), prod(layer.input), layer.size, written, windows],
        "rows": [1, copied, kept * out[0] * ceil(out[1] * batch / VECTOR), kept * out[0], written],
    }
    if kept * places <= MOST_INDICES:
        found["points"] = [1, kept * places * ceil(batch / VECTOR), kept * places, written]
    if layer.how.groups == 1:
        columns = layer.size // outputs
        used = columns * (1 - (1 - 1 / columns) ** kept)  # of those, on average over places
        gathered = 0.0 if not copied else used * places * batch
        found["csr"] = [1, gathered, kept * ceil(places * batch / VECTOR), kept, written]
    return found


@dataclass(frozen=True)
class Rates:
    """Seconds per count, by kind of layer and way; how far the calibration's own layers are off (median of relative
    errors).
    """

    values: Mapping[tuple[str, str], tuple[float, ...]]
    error: float

    def by_way(self, layer: LayerShape, kept: int) -> dict[str, float]:
        """Seconds of each way."""
        kind = "linear" if layer.how is None else "conv"
        return {
            w: float(np.dot(c, self.values[kind, w]))
            for w, c in counts(layer, kept).items()
            if (kind, w) in self.values
        }

    def seconds(self, layer: LayerShape, kept: int) -> float:
        """Of the fastest way."""
        return min(self.by_way(layer, kept).values())

    def dense(self, layer: LayerShape) -> float:
        """Of the dense kernel."""
        return self.by_way(layer, layer.size)["dense"]


@torch.no_grad()
def calibrate(examples: tuple[int, ...] = (1, 8, 64), images: bool = True, device: torch.device = CPU) -> Rates:
    """Measure made-up layers at torch's present number of threads, and fit the rates.

    examples: images of a batch, or tokens of a batch for networks without convolutions (images: false).
    """
    found: dict[tuple[str, str], list[tuple[list[float], float]]] = {}
    for layer, kept, measured in measurements(examples, images, device):
        kind = "linear" if layer.how is None else "conv"
        expected = counts(layer, kept)
        for way, seconds in measured.items():
            if way in expected:
                found.setdefault((kind, way), []).append((expected[way], seconds))
    values, errors = {}, []
    for name, pairs in found.items():
        values[name], off = _fit(pairs)
        errors += off
    return Rates(values, float(np.median(errors)))


def measurements(
    examples: tuple[int, ...], images: bool, device: torch.device = CPU, seed: int = 0
) -> Iterator[tuple[LayerShape, int, dict[str, float]]]:
    """Layer, kept weights, seconds by way: of shapes as CIFAR and ImageNet networks and small transformers have
    them.
    """
    matrices = ((10, 64), (512, 128)) if images else ((128, 128), (128, 512), (512, 128), (768, 768))
    shapes: list[tuple[tuple[int, ...], tuple[int, ...], int]] = [(m, (n, m[1]), 0) for m in matrices for n in examples]
    if images:
        # the smallest tell what a call costs whatever it does
        maps = (
            (8, 8, 8, 3),
            (32, 32, 4, 3),
            (16, 16, 32, 3),
            (32, 32, 16, 3),
            (64, 64, 8, 3),
            (128, 128, 8, 3),
            (64, 256, 14, 1),
            (256, 64, 14, 1),
        )
        shapes += [((o, i, k, k), (b, i, side, side), k // 2) for o, i, side, k in maps for b in examples]
    generator = torch.Generator().manual_seed(seed)
    for weight, given, pad in shapes:
        for share in (0.3, 0.1, 0.03):
            full = torch.randn(weight, generator=generator)
            tensor = full * (torch.rand(weight, generator=generator) < share)
            how = Geometry(padding=(pad, pad)) if len(weight) == 4 else None
            layer: Layer = SparseLinear(tensor, None) if how is None else SparseConv2d(tensor, None, how)
            layer.to(device)
            yield LayerShape(weight, given, how), int(tensor.count_nonzero()), times(layer, {given}, device)


def _fit(pairs: list[tuple[list[float], float]]) -> tuple[tuple[float, ...], list[float]]:
    """Rates >= 0 with the least squared relative errors, and the errors."""
    from scipy.optimize import nnls

    seconds = np.array([t for _, t in pairs])
    relative = np.array([c for c, _ in pairs]) / seconds[:, None]
    scale = np.maximum(relative.max(0), 1e-300)
    rates = nnls(relative / scale, np.ones(len(pairs)))[0] / scale
    return tuple(rates.tolist()), np.abs(relative @ rates - 1).tolist()
