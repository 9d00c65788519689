"""Weights and masks in other people's files: reading them without running their code, and writing the released format."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from winnow.artifacts import read_tensors, write_bytes
from winnow.errors import WinnowError
from winnow.prune.counts import keep_largest
from winnow.ticket import Ticket

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "ema", "init_weight")
_PREFIXES = ("module.", "model.", "_orig_mod.", "1.", "0.", "net.", "backbone.")
_NORMALISATION = re.compile(r"(^|\.)(normali[sz]e\w*|norm_?layer|0)\.(mean|std|_mean|_std)$|^(mean|std|mu|sigma)$")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth, .pt or .pth.tar file, by name; nested containers are opened.

    Pickled files go through torch's weights-only reader: nothing in them is executed. Raises WinnowError.
    """
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0][:160]
        raise WinnowError(
            f"{path}: holds objects other than tensors and is not loaded, since that would run its code ({reason}); "
            "re-save its state dict alone with torch.save(model.state_dict(), ...)"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise WinnowError(f"{path}: truncated or not a torch checkpoint ({str(error).splitlines()[0][:160]})") from None
    while isinstance(loaded, dict) and not any(isinstance(v, Tensor) for v in loaded.values()):
        inner = next((loaded[k] for k in _CONTAINERS if isinstance(loaded.get(k), dict)), None)
        if inner is None:
            raise WinnowError(f"{path}: no state dict found; looked for the keys {', '.join(_CONTAINERS)}")
        loaded = inner
    if not isinstance(loaded, dict):
        raise WinnowError(f"{path}: holds a {type(loaded).__name__}, expected a state dict")
    return {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}


def split_normalisation(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights, normalisation buffers): layers that normalise the input are kept apart, for winnow's models do it inside."""
    inside = {k: v for k, v in state.items() if _NORMALISATION.search(k) and v.numel() <= 4}
    return {k: v for k, v in state.items() if k not in inside}, inside


def match_names(state: Mapping[str, Tensor], known: set[str]) -> dict[str, Tensor]:
    """`state` with the wrapper prefixes (module., model., 0., 1., ...) removed that hide the `known` names."""
    names = dict(state)
    while names and not known & set(names):
        prefix = next((p for p in _PREFIXES if all(n.startswith(p) for n in names)), None)
        if prefix is None:
            break
        names = {n.removeprefix(prefix): v for n, v in names.items()}
    return names


def dense_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torch.nn.utils.prune's `x_orig` under the plain name `x`, its masks left out."""
    return {k.removesuffix("_orig"): v for k, v in state.items() if not k.endswith("_mask")}


def masks_from_state(state: Mapping[str, Tensor], what: str, known: set[str], remaining_percent: float | None = None) -> Ticket:
    """A ticket from a released checkpoint: `*_mask` (Double-win), `*.flag` (Gem-Miner) or `*mask_scores` (Robust tickets).

    Scores are not masks yet: they need `remaining_percent` and keep the largest. Raises WinnowError when there is none.
    """
    kinds = {"weight_mask": "weight", "flag": "weight", "mask_scores": "weight"}
    for suffix, target in kinds.items():
        found = {k.removesuffix(suffix) + target: v for k, v in state.items() if k.endswith(suffix)}
        if not found:
            continue
        arrays = {k: v.float().numpy() for k, v in match_names(found, known).items()}
        if suffix == "mask_scores":
            if remaining_percent is None:
                raise WinnowError(f"{what}: holds scores, not masks; say remaining_percent to draw a ticket from them")
            total = sum(a.size for a in arrays.values())
            return Ticket(keep_largest(arrays, round(total * remaining_percent / 100)))
        for name, values in arrays.items():
            if not ((values == 0) | (values == 1)).all():
                raise WinnowError(f"{what}: {name} holds values other than 0 and 1, so it is no mask")
        return Ticket({name: values != 0 for name, values in arrays.items()})
    raise WinnowError(f"{what}: no masks found; looked for names ending in {', '.join(kinds)}")


def write_released(path: Path, ticket: Ticket, weights: Mapping[str, Tensor] | None) -> None:
    """The released .pth.tar layout: {"state_dict": {x_mask: float 0/1, x_orig: dense values, ...}}; atomic."""
    import io

    state: dict[str, Any] = {f"{name}_mask": mask.float() for name, mask in ticket.masks.items()}
    for name, value in (weights or {}).items():
        state[f"{name}_orig" if name in ticket.arrays else name] = value
    buffer = io.BytesIO()
    torch.save({"state_dict": state}, buffer)
    write_bytes(path, buffer.getvalue())
