"""Attention heads and hidden units that a ticket has emptied, removed from encoders of the BERT family.

Their forward pass is not traced: the places are known by the names that Hugging Face gives them. A head goes when
nothing reads its context (its columns of the output layer are empty) or nothing writes it (its rows of the value layer
are empty: every position then has the same context, the value's bias, whatever the attention, and it goes into the bias
of the output layer). A hidden unit of the feed-forward part goes for the same reasons. The hidden state itself passes
through layer normalisations, which mix all of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from winnow.sparse.channels import plain_layer


def remove(model: nn.Module) -> dict[str, int] | None:
    """Remove what is empty in place; how many heads and units went, by the name of their part. None: not of this
    family.
    """
    found, known = {}, False
    for name, part in model.named_modules():
        if _is_attention(part):
            known = True
            found[name] = _heads(part)
        elif _is_feed_forward(part):
            found[name] = _units(part)
    return {name: gone for name, gone in found.items() if gone} if known else None


def _is_attention(part: nn.Module) -> bool:
    """BertAttention and its kin: `self` with query, key, value; `output.dense`."""
    inner, output = getattr(part, "self", None), getattr(part, "output", None)
    layers = [getattr(inner, n, None) for n in ("query", "key", "value")] + [getattr(output, "dense", None)]
    counted = all(hasattr(inner, n) for n in ("num_attention_heads", "attention_head_size", "all_head_size"))
    plain = all(isinstance(layer, nn.Linear) and plain_layer(layer) for layer in layers)
    return counted and plain and not getattr(inner, "is_decoder", False)


def _is_feed_forward(part: Any) -> bool:
    """BertLayer and its kin: `intermediate.dense`, an activation, `output.dense`."""
    first, second = (getattr(getattr(part, n, None), "dense", None) for n in ("intermediate", "output"))
    plain = all(isinstance(layer, nn.Linear) and plain_layer(layer) for layer in (first, second))
    return plain and isinstance(getattr(part.intermediate, "intermediate_act_fn", None), nn.Module)


@torch.no_grad()
def _heads(part: Any) -> int:
    inner, output = part.self, part.output.dense
    heads, size = inner.num_attention_heads, inner.attention_head_size
    written = inner.value.weight.view(heads, size, -1).ne(0).flatten(1).any(1)
    read = output.weight.view(-1, heads, size).ne(0).any(2).any(0)
    alive = written & read
    if alive.all():
        return 0
    if not alive.any():
        alive[0] = True
    kept = alive.repeat_interleave(int(size)).nonzero()[:, 0]
    bias = inner.value.bias
    _give_to_bias(output, torch.zeros(0) if bias is None else bias, kept)
    for name in ("query", "key", "value"):
        _keep_rows(getattr(inner, name), kept)
    _keep_columns(output, kept)
    inner.num_attention_heads, inner.all_head_size = int(alive.sum()), len(kept)
    return int(heads) - int(alive.sum())


@torch.no_grad()
def _units(part: Any) -> int:
    first, second = part.intermediate.dense, part.output.dense
    alive = first.weight.ne(0).any(1) & second.weight.ne(0).any(0)
    if alive.all():
        return 0
    if not alive.any():
        alive[0] = True
    kept = alive.nonzero()[:, 0]
    bias = first.bias if first.bias is not None else torch.zeros(len(alive))
    _give_to_bias(second, part.intermediate.intermediate_act_fn(bias), kept)
    _keep_rows(first, kept)
    _keep_columns(second, kept)
    return len(alive) - len(kept)


def _give_to_bias(layer: nn.Linear, values: Tensor, kept: Tensor) -> None:
    """Add to the bias what the inputs outside `kept` give, which have these values everywhere (where they are read)."""
    gone = values.detach().double().clone()
    if not len(gone):
        return
    gone[kept] = 0.0
    added = layer.weight.double() @ gone
    if layer.bias is not None:
        layer.bias.add_(added)
    elif added.any():
        layer.bias = nn.Parameter(added.to(layer.weight))


def _keep_rows(layer: nn.Linear, kept: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight[kept].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias[kept].clone())
    layer.out_features = len(kept)


def _keep_columns(layer: nn.Linear, kept: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight[:, kept].clone())
    layer.in_features = len(kept)
