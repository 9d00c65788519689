"""SynFlow: iterated synaptic flow, found without data (Tanaka et al., NeurIPS 2020, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from winnow.errors import WinnowError
from winnow.prune.counts import keep_largest
from winnow.prune.passes import Batch, borrowed, forward, weights_of

ROUNDS = 100


def masks(model: nn.Module, names: list[str], count: int, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
    """Masks that keep `count` weights by iterated synaptic flow, |w| * dR/d|w| on an all-ones input.

    100 rounds at exponentially falling density, in float64, in evaluation mode. Of `batches` only the size of one
    example is read. The model's weights are left as they were. Raises WinnowError for inputs that are not real.
    """
    weights = weights_of(model, names)
    total = sum(w.numel() for w in weights)
    alive = {n: np.ones(tuple(w.shape), dtype=bool) for n, w in zip(names, weights, strict=True)}
    with borrowed(model, names, training=False), _positive_double(model):
        started = [w.detach().clone() for w in weights]
        ones = _all_ones(model, batches)
        for k in range(1, ROUNDS + 1):
            with torch.no_grad():
                for weight, start, name in zip(weights, started, names, strict=True):
                    weight.copy_(start * torch.from_numpy(alive[name]).to(weight.device))
            flow = torch.autograd.grad(forward(model, (ones,))[0].sum(), weights, materialize_grads=True)
            with torch.no_grad():
                scores = {n: (g * w).abs().cpu().numpy() for n, g, w in zip(names, flow, weights, strict=True)}
            largest = max(float(s.max()) for s in scores.values()) or 1.0
            ranked = {n: np.where(alive[n], np.log(s / largest + 1e-300), -np.inf) for n, s in scores.items()}
            left = round(total * (count / total) ** (k / ROUNDS))
            alive = keep_largest(ranked, left)
    return alive


def _all_ones(model: nn.Module, batches: Sequence[Batch]) -> Tensor:
    """(1, ...): what the model's first layer sees as ones, where the model normalises its own input too."""
    example = batches[0][0] if batches and isinstance(batches[0], Sequence) else None
    if not isinstance(example, Tensor) or not example.is_floating_point():
        raise WinnowError(
            "batches: synflow takes batches of (inputs, labels) with real inputs such as images; use snip for text"
        )
    weight = next(model.parameters())
    ones = torch.ones(1, *example.shape[1:], device=weight.device, dtype=weight.dtype)
    buffers = dict(model.named_buffers())
    if "input_mean" not in buffers:
        return ones
    return ones * (buffers["input_mean"] + buffers["input_std"])


@contextmanager
def _positive_double(model: nn.Module) -> Iterator[None]:
    """Within: float64, every parameter replaced by its absolute value; afterwards as before."""
    saved = {k: v.detach().clone() for k, v in model.state_dict().items()}
    dtype = next(model.parameters()).dtype
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    try:
        yield
    finally:
        model.to(dtype)
        model.load_state_dict(saved)
