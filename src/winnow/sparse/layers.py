"""Layers that compute in one of several ways; which one is chosen for them (`winnow.sparse.choice`)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.sparse import ways
from winnow.sparse.ways import Geometry, Sums, Way

Built = tuple[Way, int]  # and the bytes that it holds beside the dense weight


class Layer(nn.Module):
    """A layer with a dense weight and, once asked for, other ways of computing with it. For inference only."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.way = "dense"
        self.contiguous = False  # whether what it returns must be stored in the usual order
        self.seen: set[tuple[int, ...]] | None = None  # shapes of the inputs, while they are looked at
        self._built: dict[tuple[str, tuple[int, ...]], Built | None] = {}
        self._ready: dict[torch.Size, Way] = {}  # by the shape of the input, in the present way

    @property
    def remaining_percent(self) -> float:
        """Percentage of the weights here that are not zero, 0..100."""
        return 100.0 * int(self.weight.count_nonzero()) / self.weight.numel()

    def names(self) -> tuple[str, ...]:
        """Ways that this kind of layer has, dense first."""
        raise NotImplementedError

    def build(self, name: str, shape: tuple[int, ...]) -> Built | None:
        """The way for inputs of `shape`; None where it does not apply."""
        raise NotImplementedError

    def key(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What of an input's shape a built way depends on."""
        raise NotImplementedError

    def built(self, name: str, shape: tuple[int, ...]) -> Built | None:
        """The way of that name, built at the first call."""
        place = (name, self.key(shape))
        if place not in self._built:
            self._built[place] = self.build(name, shape)
        return self._built[place]

    def choose(self, way: str, memory_format: torch.memory_format) -> None:
        """Compute in this way from now on; keep the dense weight of a convolution in this order."""
        self.way = way
        self._ready.clear()
        if self.weight.dim() == 4:
            self.weight = self.weight.contiguous(memory_format=memory_format)

    def forget(self, kept: str) -> None:
        """Drop what is built for other ways."""
        self._built = {k: v for k, v in self._built.items() if k[0] == kept}
        self._ready.clear()

    @property
    def extra_bytes(self) -> int:
        """Bytes of the indices and values that the chosen way holds beside the dense weight."""
        return sum(v[1] for k, v in self._built.items() if v is not None and k[0] == self.way)

    def forward(self, x: Tensor) -> Tensor:
        """As the dense layer."""
        found = self._ready.get(x.shape)
        return self._first(x) if found is None else found(x)

    def _first(self, x: Tensor) -> Tensor:
        """The first input of its shape in this way."""
        if self.seen is not None:
            self.seen.add(tuple(x.shape))
        found: Way = self.dense
        if self.way != "dense":
            built = self.built(self.way, tuple(x.shape))
            assert built is not None, self.way
            found = built[0]
        if self.contiguous:
            strided = found
            found = lambda x: strided(x).contiguous()  # noqa: E731
        self._ready[x.shape] = found
        return found(x)

    def dense(self, x: Tensor) -> Tensor:
        """Torch's own kernel."""
        raise NotImplementedError

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._built.clear()  # on another device, or of another type
        self._ready.clear()
        return super()._apply(fn, recurse)


class SparseLinear(Layer):
    """y = x W^T + b for x (..., inputs)."""

    def names(self) -> tuple[str, ...]:
        """See `winnow.sparse.ways`."""
        return ("dense", "csr", "bag", "n:m")

    def key(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Nothing of the input's shape."""
        return ()

    def dense(self, x: Tensor) -> Tensor:
        """torch.nn.functional.linear."""
        return F.linear(x, self.weight, self.bias)

    def build(self, name: str, shape: tuple[int, ...]) -> Built | None:
        """See `winnow.sparse.ways`."""
        if name == "csr":
            matrix = ways.csr(self.weight)
            return self._transposed(matrix.matmul), ways.held_bytes(matrix)
        if name == "bag":
            weight = self.weight.cpu()
            rows, columns = weight.nonzero(as_tuple=True)
            values = weight[rows, columns].numpy()
            sums = Sums.of(rows.numpy(), columns.numpy(), values, len(weight), self.weight.device)
            return self._transposed(sums), sums.bytes
        if name == "n:m" and ways.two_of_four(self.weight):
            packed, bias = torch.sparse.to_sparse_semi_structured(self.weight), self.bias
            return (lambda x: F.linear(x, packed, bias)), self.weight.numel() * self.weight.element_size() * 9 // 16
        return None

    def _transposed(self, product: Way) -> Way:
        """The layer by a product with (inputs, examples)."""
        outputs, bias = len(self.weight), None if self.bias is None else self.bias[:, None]

        def computed(x: Tensor) -> Tensor:
            y = product(x.reshape(-1, x.shape[-1]).t().contiguous())
            if bias is not None:
                y.add_(bias)
            return y.t().reshape(*x.shape[:-1], outputs)

        return computed


class SparseConv2d(Layer):
    """A convolution with zero padding. `border`: weight (O,1,kh,kw) on an input of ones, added to the output.

    Removed input channels that are constant (and not zero) contribute the same map to every image: constant inside,
    less at the padded edge. It is computed once for each size of image.
    """

    border: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, how: Geometry, border: Tensor | None = None):
        super().__init__(weight, bias)
        self.how = how
        self.register_buffer("border", None if border is None else border.detach().clone())
        self._maps: dict[tuple[int, ...], Tensor] = {}

    def names(self) -> tuple[str, ...]:
        """See `winnow.sparse.ways`."""
        return ("dense", "rows", "points") if self.how.groups > 1 else ("dense", "csr", "rows", "points")

    def key(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Height and width."""
        return tuple(shape[2:])

    def dense(self, x: Tensor) -> Tensor:
        """torch.nn.functional.conv2d."""
        how, bias = self.how, self.bias if self.border is None else None
        out = F.conv2d(x, self.weight, bias, how.stride, how.padding, how.dilation, how.groups)
        return out if self.border is None else out + self.shift(tuple(x.shape[2:]))

    def shift(self, size: tuple[int, ...]) -> Tensor:
        """Bias and border for images of this size: (1,O,1,1), or (1,O,Ho,Wo) with a border."""
        if self.border is None:
            assert self.bias is not None
            return self.bias.view(1, -1, 1, 1)
        if size not in self._maps:
            how, ones = self.how, self.border.new_ones(1, 1, *size)
            self._maps[size] = F.conv2d(ones, self.border, self.bias, how.stride, how.padding, how.dilation)
        return self._maps[size]

    def build(self, name: str, shape: tuple[int, ...]) -> Built | None:
        """See `winnow.sparse.ways`."""
        size, kernel, how = (shape[2], shape[3]), (self.weight.shape[2], self.weight.shape[3]), self.how
        out = how.output(size, kernel)
        if name == "points" and (points := ways.sums_of_points(self.weight, how, size)) is not None:
            return self._by_points(points, size, out), points.bytes
        if name == "rows":
            sums = ways.sums_of_lines(self.weight, how, size)
            return self._computed(sums, lambda x: ways.lines(x, kernel[1], how, out[1]), size, out), sums.bytes
        if name != "csr" or how.groups > 1:
            return None
        flat = self.weight.flatten(1)
        if kernel == how.stride == (1, 1) and how.padding == (0, 0):
            matrix = ways.csr(flat)
            return self._computed(matrix.matmul, lambda x: x.view(x.shape[0], -1), size, out), ways.held_bytes(matrix)
        used = flat.ne(0).any(0).nonzero()[:, 0]
        if not len(used):
            return None
        matrix = ways.csr(flat[:, used].contiguous())
        which = (used // (kernel[0] * kernel[1]), used // kernel[1] % kernel[0], used % kernel[1])
        gathered = self._computed(matrix.matmul, lambda x: ways.columns(x, which, how, out), size, out)
        return gathered, ways.held_bytes(matrix) + 24 * len(used)

    def _computed(self, product: Way, cut: Way, size: tuple[int, int], out: tuple[int, int]) -> Way:
        """The layer by a product with what `cut` makes of (C,H,W,B)."""
        shifted = self.bias is not None or self.border is not None
        shift = self.shift(size)[0].unsqueeze(3) if shifted else None
        dims = (len(self.weight), *out, -1)

        def computed(x: Tensor) -> Tensor:
            y = product(cut(ways.stored_as(x, ways.CHANNELS_FIRST))).view(dims)
            if shift is not None:
                y.add_(shift)
            return ways.from_stored(y, ways.CHANNELS_FIRST)

        return computed

    def _by_points(self, sums: Sums, size: tuple[int, int], out: tuple[int, int]) -> Way:
        """The layer by sums of (H*W*C,B)."""
        outputs, shifted = len(self.weight), self.bias is not None or self.border is not None
        shift = self.shift(size)[0].permute(1, 2, 0).unsqueeze(3) if shifted else None  # (1,1,O,1) or (Ho,Wo,O,1)
        wide: dict[int, Tensor] = {}  # without a border, for a whole position: one long addition each

        def computed(x: Tensor) -> Tensor:
            stored = ways.stored_as(x, ways.CHANNELS_INSIDE)
            batch = stored.shape[3]
            y = sums(stored.view(-1, batch)).view(*out, outputs, batch)
            if shift is not None:
                if batch not in wide:
                    wide[batch] = shift if self.border is not None else shift.expand(1, 1, outputs, batch).contiguous()
                y.add_(wide[batch])
            return ways.from_stored(y, ways.CHANNELS_INSIDE)

        return computed

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._maps.clear()
        return super()._apply(fn, recurse)
