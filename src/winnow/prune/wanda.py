"""Wanda: weights of linear layers by |W| times the norm of their inputs, row by row (Sun et al., ICLR 2024)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from winnow.errors import WinnowError
from winnow.prune.counts import apportion, check_count
from winnow.prune.layers import is_linear, transposed
from winnow.prune.passes import Batch, borrowed, forward


@torch.no_grad()
def masks(model: nn.Module, names: list[str], count: int, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
    """Masks that keep `count` weights, every row of every (out, in) weight the same share of its own, within one.

    Blocks of layers (those whose names are the same up to the first number, as `encoder.layer.3`) are pruned in the
    order in which they run, each on the inputs that it gets from the pruned blocks before it. Labels are not read;
    positions that an attention mask hides do not count. Weights are left as they were. Raises WinnowError for what is
    no linear layer that runs.
    """
    layers = {name: model.get_submodule(name.rpartition(".")[0]) for name in names}
    if wrong := [n for n in names if not n.endswith(".weight") or not is_linear(layers[n])]:
        raise WinnowError(f"layers: wanda prunes nn.Linear and {wrong[0]} is of none; leave it out by kind or pattern")
    turned = {name for name, layer in layers.items() if transposed(layer)}
    weights: dict[str, Tensor] = {n: m.weight.T if n in turned else m.weight for n, m in layers.items()}  # type: ignore
    check_count(count, total := sum(w.numel() for w in weights.values()))
    shares = [np.full(w.shape[0], w.shape[1] * (count / total)) for w in weights.values()]
    rows = np.split(apportion(np.concatenate(shares), count), np.cumsum([s.size for s in shares])[:-1])
    counts, found, saved = dict(zip(names, rows, strict=True)), {}, {n: w.clone() for n, w in weights.items()}
    with borrowed(model, names, training=False):
        try:
            order = list(input_norms(model, layers, batches[:1]))
            if missing := [n for n in names if n not in order]:
                raise WinnowError(f"layers: {missing[0]} is not called by the model and has no inputs; exclude it")
            for _, block in groupby(order, key=lambda n: re.sub(r"((?:^|\.)\d+)\..*|\.weight$", r"\1", n)):
                norms = input_norms(model, {name: layers[name] for name in block}, batches)
                for name, norm in norms.items():
                    scores = (weights[name].abs().float() * norm.float()).cpu().numpy()
                    found[name] = keep_in_rows(scores, counts[name])
                    weights[name].masked_fill_(~torch.from_numpy(found[name]).to(norm.device), 0.0)
        finally:
            for name, weight in weights.items():
                weight.copy_(saved[name])
    return {name: np.ascontiguousarray(found[name].T) if name in turned else found[name] for name in names}


def keep_in_rows(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Bool mask (rows, in) of the `counts[i]` largest scores of row i (ties: earlier positions first)."""
    places = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
    return places < counts[:, None]


def input_norms(model: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Batch]) -> dict[str, Tensor]:
    """||X_j||_2 (in,) over all examples and positions, float64, of the layers that run, in the order of their calls."""
    sums: dict[str, Tensor] = {}
    shown: Tensor | None = None  # (B, positions): the attention mask of the batch

    def watch(name: str, x: Tensor) -> None:
        seen = x[shown.to(x.device).bool()] if shown is not None and x.dim() == 3 and shown.shape == x.shape[:2] else x
        squares = seen.reshape(-1, x.shape[-1]).double().square().sum(0)
        sums[name] = sums[name] + squares if name in sums else squares

    hooks = [m.register_forward_pre_hook(lambda _, x, name=n: watch(name, x[0])) for n, m in layers.items()]
    try:
        for batch in batches:
            shown = batch.get("attention_mask") if isinstance(batch, Mapping) else None
            forward(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: values.sqrt() for name, values in sums.items()}
