"""Batch normalisation with frozen statistics, folded into the convolution before it.

In evaluation mode a normalisation is a scale and a shift per channel. An attack runs the same frozen network many
times, so the two are multiplied into the convolution's weights once, and the normalisation's passes over the
activations (forward and backward) go. The function is the same up to rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.fx import Node, Tracer

from winnow.train.compiling import is_compiled
from winnow.train.device import working_dtype

log = logging.getLogger("winnow")
Pair = tuple[nn.Conv2d, nn.BatchNorm2d]
_adjacent_in: WeakKeyDictionary[nn.Module, list[tuple[str, str]]] = WeakKeyDictionary()


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Within: each convolution of `model` whose output only goes into a batch normalisation does both; no gradient
    reaches it.

    The model must be in evaluation mode and its weights must not change meanwhile. Under autocast the folded weights
    have its dtype: cast here once instead of at every forward pass. Nested use and compiled models (which fuse by
    themselves) are left alone.
    """
    pairs = [] if is_compiled(model) else _pairs(model)
    pairs = [(conv, bn) for conv, bn in pairs if "forward" not in vars(bn)]
    kept = [(conv._parameters["weight"], conv._parameters["bias"]) for conv, _ in pairs]
    try:
        for conv, bn in pairs:
            conv._parameters["weight"], conv._parameters["bias"] = _fold(conv, bn)  # type: ignore[assignment]
            vars(bn)["forward"], vars(conv)["folded"] = _identity, True
        yield
    finally:
        for (conv, bn), (weight, bias) in zip(pairs, kept, strict=True):
            conv._parameters["weight"], conv._parameters["bias"] = weight, bias
            vars(bn).pop("forward", None)
            vars(conv).pop("folded", None)


def _identity(x: Tensor) -> Tensor:
    return x


@torch.no_grad()
def _fold(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """w * g and (b - mean) * g + beta per output channel, with g = gamma / sqrt(var + eps)."""
    assert bn.running_mean is not None and bn.running_var is not None
    gain = torch.rsqrt(bn.running_var + bn.eps)
    gain = gain if bn.weight is None else gain * bn.weight
    shift = -bn.running_mean if conv.bias is None else conv.bias - bn.running_mean
    bias = shift * gain if bn.bias is None else torch.addcmul(bn.bias, shift, gain)
    weight = conv.weight * gain.view(-1, 1, 1, 1)
    dtype = working_dtype(weight)
    return weight.to(dtype), bias.to(dtype)


def _pairs(model: nn.Module) -> list[Pair]:
    """The convolutions and normalisations of `model` that can be folded now; which follow each other is found once per
    model.
    """
    if model not in _adjacent_in:
        try:
            nodes = list(Tracer().trace(model).nodes)
        except (
            Exception
        ) as error:  # a forward pass with data-dependent control flow, which tracing reports in many ways
            log.debug("%s runs unfolded in attacks: its graph cannot be traced (%s)", type(model).__name__, error)
            nodes = []
        _adjacent_in[model] = _adjacent(nodes)
    pairs = [(model.get_submodule(conv), model.get_submodule(bn)) for conv, bn in _adjacent_in[model]]
    return [(conv, bn) for conv, bn in pairs if _foldable(conv, bn)]  # type: ignore[misc]


def _foldable(conv: nn.Module, bn: nn.Module) -> bool:
    """A plain convolution (no parametrization, no weight that a hook computes) and a normalisation with running
    statistics.
    """
    plain = type(conv) is nn.Conv2d and "weight" in conv._parameters
    return plain and isinstance(bn, nn.BatchNorm2d) and bn.running_mean is not None


def _adjacent(nodes: list[Node]) -> list[tuple[str, str]]:
    """Names of modules that are called once each, the second alone on what the first returns."""
    calls = [n for n in nodes if n.op == "call_module"]
    targets = [n.target for n in calls]
    found = []
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(before, Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        if targets.count(node.target) == targets.count(before.target) == 1:
            found.append((str(before.target), str(node.target)))
    return found
