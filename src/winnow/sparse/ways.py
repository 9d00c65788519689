"""Ways to compute a linear layer or convolution with few weights, all with the same result up to rounding.

    dense    torch's own kernel on the dense weight
    csr      a CSR product (oneMKL, cuSPARSE); of a k x k convolution on those columns of its unfolded input that a
    weight reads rows     sums of rows of the input, a row being a line of the image (all images of the batch), copied
    once per column of the kernel points   the same with single positions as rows: nothing is copied, and padding,
    stride and groups are mere indices bag      the same for linear layers: a row is a feature of all examples
    n:m      torch's 2:4 layout, on a GPU that has it, where the mask is one

Sums of rows are `torch.embedding_bag` with weights: on x86 FBGEMM compiles a vectorised kernel for the length of the
row, and a zero costs nothing. It is faster than the CSR product from some 8 values a row on. A row is contiguous when
the batch lies innermost: the ways read and return tensors of the usual logical shape (B,C,H,W) stored as (C,H,W,B), or
as (H,W,C,B) by `points`, where all that an output position reads lies close together and stays in the first cache.
Elementwise operations keep the storage, so that neighbouring layers of one kind copy nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MOST_INDICES = 1 << 23  # of `points`: 64 MiB
Way = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Geometry:
    """Of a 2-d convolution: (rows, columns) each, and groups."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def output(self, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output for an input of `size`."""
        spans = zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        high, wide = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in spans)
        return high, wide


@dataclass(frozen=True)
class Sums:
    """Weighted sums of the rows of a table, in CSR form; built once, used at every call.

    `indices` (nnz) rows that are summed, `offsets` (sums + 1) where each sum begins, `values` (nnz) their weights.
    """

    indices: Tensor
    offsets: Tensor
    values: Tensor

    @classmethod
    def of(cls, sums: np.ndarray, rows: np.ndarray, values: np.ndarray, count: int, device: torch.device) -> Sums:
        """From parallel arrays: entry n adds values[n] * table[rows[n]] to sum sums[n] of `count`."""
        order = np.argsort(sums, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(sums, minlength=count))]).astype(np.int32)
        arrays = (rows[order].astype(np.int32), offsets, values[order])
        indices, starts, weights = (torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays)
        return cls(indices, starts, weights)

    def __call__(self, table: Tensor) -> Tensor:
        """(rows, length) contiguous -> (sums, length)."""
        return torch.embedding_bag(table, self.indices, self.offsets, False, 0, False, self.values, True)[0]

    @property
    def bytes(self) -> int:
        """What it holds."""
        return sum(t.numel() * t.element_size() for t in (self.indices, self.offsets, self.values))


CHANNELS_FIRST, CHANNELS_INSIDE = (1, 2, 3, 0), (2, 3, 1, 0)  # orders in which a (B,C,H,W) tensor is stored
LIKED = {"csr": CHANNELS_FIRST, "rows": CHANNELS_FIRST, "points": CHANNELS_INSIDE}


def stored_as(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """(B,C,H,W) -> contiguous with its dimensions in `order`; no copy where it is stored so."""
    return x.permute(order).contiguous()


def from_stored(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """The (B,C,H,W) view of what `stored_as` gives."""
    back = [order.index(i) for i in range(4)]
    return x.permute(back)


def entries(weight: Tensor, groups: int) -> tuple[np.ndarray, ...]:
    """Output channel, input channel, kernel row, kernel column and value of every nonzero of a convolution's weight."""
    o, i, ky, kx = (a.numpy() for a in weight.cpu().nonzero(as_tuple=True))
    values = weight.cpu()[o, i, ky, kx].numpy()
    return o, i + (o // (weight.shape[0] // groups)) * weight.shape[1], ky, kx, values


def sums_of_points(weight: Tensor, how: Geometry, size: tuple[int, int]) -> Sums | None:
    """The sums that make a convolution of inputs of `size` a product with its (H*W*C,B) values; None: too many
    indices.
    """
    (high, wide), (h, w) = how.output(size, tuple(weight.shape[2:])), size  # type: ignore[arg-type]
    o, i, ky, kx, values = entries(weight, how.groups)
    if len(o) * high * wide > MOST_INDICES or weight.shape[0] * high * wide >= 2**31:
        return None
    y, x = np.arange(high), np.arange(wide)
    iy = y * how.stride[0] - how.padding[0] + ky[:, None] * how.dilation[0]
    ix = x * how.stride[1] - how.padding[1] + kx[:, None] * how.dilation[1]
    inside = ((iy >= 0) & (iy < h))[:, :, None] & ((ix >= 0) & (ix < w))[:, None, :]
    sums = np.broadcast_to((y[:, None] * wide + x) * len(weight) + o[:, None, None], inside.shape)
    rows = (iy[:, :, None] * w + ix[:, None, :]) * (weight.shape[1] * how.groups) + i[:, None, None]
    spread = np.broadcast_to(values[:, None, None], inside.shape)
    return Sums.of(sums[inside], rows[inside], spread[inside], weight.shape[0] * high * wide, weight.device)


def sums_of_lines(weight: Tensor, how: Geometry, size: tuple[int, int]) -> Sums:
    """The same over lines of the image, as `lines` copies them: row (kx * C + channel) * H + y."""
    high, _ = how.output(size, tuple(weight.shape[2:]))  # type: ignore[arg-type]
    o, i, ky, kx, values = entries(weight, how.groups)
    y = np.arange(high)
    iy = y * how.stride[0] - how.padding[0] + ky[:, None] * how.dilation[0]
    inside = (iy >= 0) & (iy < size[0])
    sums = np.broadcast_to(o[:, None] * high + y, inside.shape)
    rows = (kx[:, None] * (weight.shape[1] * how.groups) + i[:, None]) * size[0] + iy
    spread = np.broadcast_to(values[:, None], inside.shape)
    return Sums.of(sums[inside], rows[inside], spread[inside], weight.shape[0] * high, weight.device)


def lines(x: Tensor, kernel: int, how: Geometry, wide: int) -> Tensor:
    """(C,H,W,B) -> (kernel*C*H, wide*B): every line as each column of the kernel sees it; itself where that is no
    copy.
    """
    channels, high, _, batch = x.shape
    step, pad, dilation = how.stride[1], how.padding[1], how.dilation[1]
    if kernel == step == 1 and not pad:
        return x.view(channels * high, wide * batch)
    flat = x.view(channels, high, -1)  # (column, image) as one axis: fewer and longer pieces to copy
    flat = torch.constant_pad_nd(flat, (pad * batch, pad * batch)) if pad else flat
    c, h, _ = flat.stride()
    if step == 1:
        seen = flat.as_strided((kernel, channels, high, wide * batch), (dilation * batch, c, h, 1))
    else:
        seen = flat.as_strided((kernel, channels, high, wide, batch), (dilation * batch, c, h, step * batch, 1))
    return seen.reshape(kernel * channels * high, wide * batch)


def columns(x: Tensor, which: tuple[Tensor, Tensor, Tensor], how: Geometry, out: tuple[int, int]) -> Tensor:
    """(C,H,W,B) -> (len(which), out positions * B): the chosen (channel, kernel row, kernel column) of the unfolded
    input.
    """
    x = F.pad(x, (0, 0, how.padding[1], how.padding[1], how.padding[0], how.padding[0]))
    c, h, w, _ = x.stride()
    across = (c, how.dilation[0] * h, how.dilation[1] * w, how.stride[0] * h, how.stride[1] * w, 1)
    taps = (int(which[1].max()) + 1, int(which[2].max()) + 1)
    seen = x.as_strided((x.shape[0], *taps, *out, x.shape[3]), across)
    return seen[which].view(len(which[0]), -1)


def csr(matrix: Tensor) -> Tensor:
    """A dense (rows, columns) matrix as torch CSR with 32-bit indices, which oneMKL takes as they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        found = matrix.to_sparse_csr()
        parts = (found.crow_indices().int(), found.col_indices().int(), found.values())
        return torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=False)


def held_bytes(matrix: Tensor) -> int:
    """Bytes of a CSR matrix."""
    parts = (matrix.crow_indices(), matrix.col_indices(), matrix.values())
    return sum(t.numel() * t.element_size() for t in parts)


def two_of_four(weight: Tensor) -> bool:
    """Whether `weight` (rows, columns) is one for torch's 2:4 layout here: on a GPU, in a 16-bit type, two of each four
    zero.
    """
    if weight.device.type != "cuda" or weight.dtype not in (torch.float16, torch.bfloat16) or weight.shape[1] % 4:
        return False
    fits = weight.shape[0] % 32 == 0 and weight.shape[1] % 64 == 0  # tiles of the kernels
    enough = torch.cuda.get_device_capability(weight.device) >= (8, 0)
    return fits and enough and bool((weight.view(weight.shape[0], -1, 4).ne(0).sum(2) <= 2).all())
