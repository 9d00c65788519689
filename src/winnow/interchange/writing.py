"""Tickets and weights in the layouts that the papers' released programs read."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from winnow.artifacts import write_bytes
from winnow.errors import WinnowError
from winnow.interchange.masks import DRAWN
from winnow.ticket import Ticket

Layout = Literal["double_win", "gem_miner", "imp_mask", "imp_model", "robust_bert"]


def write_layout(
    path: Path, layout: Layout, ticket: Ticket, weights: Mapping[str, Tensor] | None, arch: str = ""
) -> None:
    """Write `ticket` with `weights` (dense, by name) as the released programs do; atomic.

    double_win: {"state_dict": {X_mask, X_orig, ...}} (.pth.tar); gem_miner: a state dict of weight, flag and scores in
    each layer; imp_mask: the .npy of a pickled `imp_mask.Mask`, 0/1 by weight name; imp_model: {"model_state_dict":
    ...} whose removed weights are zero; robust_bert: a state dict with scores of +-20 (pytorch_model.bin). `arch`: the
    network, whose names may differ from the released ones. Raises WinnowError when the layout needs weights and has
    none.
    """
    if weights is None and layout not in ("double_win", "imp_mask"):
        raise WinnowError(f"--weights: required for the layout {layout}, which holds the masks beside the weights")
    state, masks = dict(weights or {}), dict(ticket.masks)
    if layout in ("gem_miner", "imp_mask", "imp_model"):
        state = {_released_name(n, arch): _as_convolution(n, v) for n, v in state.items()}
        masks = {_released_name(n, arch): _as_convolution(n, v) for n, v in masks.items()}
    if layout == "imp_mask":
        write_bytes(path, _pickled_masks({n: m.float() for n, m in masks.items()}))
        return
    written: Mapping[str, Any]
    if layout == "double_win":
        dense = {f"{n}_orig" if n in masks else n: v for n, v in state.items()}
        written = {"state_dict": {**{f"{n}_mask": m.float() for n, m in masks.items()}, **dense}}
    elif layout == "robust_bert":
        written = {**state, **{_beside(n, "mask.mask_scores"): _drawn_scores(m) for n, m in masks.items()}}
    elif layout == "gem_miner":
        written = _with_scores(state, {n: m.to(torch.int32) for n, m in masks.items()})
    else:
        zeroed = {n: v * masks[n] if n in masks else v for n, v in state.items()}
        written = {"model_state_dict": _with_scores(zeroed, {}), "optimizer_state_dict": {}}
    buffer = io.BytesIO()
    torch.save(written, buffer)
    write_bytes(path, buffer.getvalue())


def _beside(weight: str, name: str) -> str:
    return f"{weight.removesuffix('weight')}{name}"


def _released_name(name: str, arch: str) -> str:
    return name.replace(".downsample.", ".shortcut.") if arch == "cResNet18" else name


def _as_convolution(name: str, value: Tensor) -> Tensor:
    """Linear layers as the 1x1 convolutions that they are in the rare-gems code."""
    return value[:, :, None, None] if name.endswith("weight") and value.dim() == 2 else value


def _drawn_scores(mask: Tensor) -> Tensor:
    """(out, in) -> (1, out, 1, in), 20 where a weight is kept and -20 where it is removed."""
    return torch.where(mask, DRAWN, -DRAWN)[None, :, None, :]


def _with_scores(state: Mapping[str, Tensor], flags: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with what the rare-gems layers hold beside a weight; `flags` of 1 where none is given, scores of
    1.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        found[name] = value
        if not name.endswith("weight") or value.dim() != 4:
            continue
        bias = state.get(_beside(name, "bias"), torch.zeros(1))
        found[_beside(name, "flag")] = flags.get(name, torch.ones_like(value))
        found[_beside(name, "bias_flag")] = torch.ones_like(bias)
        found[_beside(name, "scores")] = torch.ones_like(value)
        found[_beside(name, "bias_scores")] = torch.ones_like(bias)
    return found


def _pickled_masks(masks: Mapping[str, Tensor]) -> bytes:
    """A NumPy file of one object, an `imp_mask.Mask`; the class stands in a module of that name while it is written."""
    module = types.ModuleType("imp_mask")
    kind = type("Mask", (dict,), {"__module__": "imp_mask"})
    module.Mask = kind  # type: ignore[attr-defined]
    array = np.empty((), dtype=object)
    array[()] = kind(masks)
    buffer, before = io.BytesIO(), sys.modules.get("imp_mask")
    sys.modules["imp_mask"] = module
    try:
        np.lib.format.write_array(buffer, array, allow_pickle=True)
    finally:
        del sys.modules["imp_mask"]
        if before is not None:
            sys.modules["imp_mask"] = before
    return buffer.getvalue()
