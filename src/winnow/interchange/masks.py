"""Tickets in other people's files: which tensors are masks, or scores, and by whose rule scores become masks.

Layouts: `X_mask` (torch.nn.utils.prune; Double-win), `X.flag` with `X.scores` (Gem-Miner and the search programs of the
same code), a mapping of 0/1 tensors (the IMP program's .npy), `X.mask.mask_scores` (Robust tickets).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from torch import Tensor

from winnow.errors import WinnowError
from winnow.gems.pruning import edge_popup_count
from winnow.interchange.names import fit_names, shaped
from winnow.prune.counts import keep_largest, tiled
from winnow.ticket import Ticket

log = logging.getLogger("winnow")
Rule = Literal["auto", "flags", "flags_and_scores", "ep", "global_ep", "weights"]
Shapes = Mapping[str, tuple[int, ...]]
DRAWN = 20.0  # the score, or its negative, that the released retraining writes for a weight that is kept, or removed
_SCORES, _FLAG, _MASK = re.compile(r"(\.mask)?\.mask_scores$"), ".flag", "_mask"


@dataclass(frozen=True)
class Found:
    """A ticket, and the layout that it was in."""

    ticket: Ticket
    layout: Literal["mask", "gem_miner", "masks", "mask_scores"]


def tickets_from_file(
    state: Mapping[str, Tensor], what: str, shapes: Shapes, remaining_percent: float | None = None, rule: Rule = "auto"
) -> Found:
    """The ticket in a released checkpoint, under the names and in the shapes of the model (`shapes`: parameter ->
    shape).

    `remaining_percent` draws a ticket from scores that are no masks yet; `rule`: see `_gem_miner`. Raises WinnowError
    when `state` (of the file `what`) holds no ticket, or not one that these settings decide.
    """
    scores = {_SCORES.sub(".weight", k): v for k, v in state.items() if _SCORES.search(k)}
    if scores:
        return Found(Ticket(_robust(_fitted(scores, shapes), shapes, what, remaining_percent)), "mask_scores")
    flags = {f"{k.removesuffix(_FLAG)}.weight": v for k, v in state.items() if k.endswith(_FLAG)}
    if flags:
        return Found(Ticket(_gem_miner(state, flags, shapes, what, remaining_percent, rule)), "gem_miner")
    masks = {k.removesuffix(_MASK): v for k, v in state.items() if k.endswith(_MASK)}
    if masks:
        return Found(Ticket(_binary(_fitted(masks, shapes), what)), "mask")
    binary = all(((v == 0) | (v == 1)).all() for v in state.values())
    if binary and (any((v == 0).any() for v in state.values()) or all(v.dim() > 1 for v in state.values())):
        return Found(Ticket(_binary(_fitted(state, shapes), what)), "masks")
    raise WinnowError(
        f"{what}: no masks found; looked for names ending in weight_mask, .flag and .mask.mask_scores, and for tensors "
        f"of 0 and 1"
    )


def is_drawn(scores: Mapping[str, Tensor]) -> bool:
    """Whether mask_scores stand for a drawn ticket: all of them 20 or -20."""
    return all((v.abs() == DRAWN).all() for v in scores.values())


def _fitted(tensors: Mapping[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
    """`tensors` by the model's names and in its shapes."""
    names = fit_names(tensors, shapes)
    return {names[theirs]: shaped(value, shapes.get(names[theirs], ())) for theirs, value in tensors.items()}


def _binary(masks: Mapping[str, Tensor], what: str) -> dict[str, np.ndarray]:
    for name, values in masks.items():
        if not ((values == 0) | (values == 1)).all():
            raise WinnowError(f"{what}: {name} holds values other than 0 and 1, so it is no mask")
    return {name: (values != 0).numpy() for name, values in masks.items()}


def _robust(
    scores: Mapping[str, Tensor], shapes: Shapes, what: str, remaining_percent: float | None
) -> dict[str, np.ndarray]:
    """Masks from `mask_scores` (1, out/a, 1, in/b): a score covers weight [i, j] with i mod (out/a) and j mod (in/b);
    or of the shape of the weights.

    A searched file: the round(f n) smallest of its n scores go, over all matrices together, for the removed fraction f.
    A drawn one (+20 and -20): what is positive stays.
    """
    small = {}
    for name, values in scores.items():
        shape, given = shapes.get(name, ()), tuple(values.shape)
        if not shape:
            raise WinnowError(f"{what}: the mask_scores of {name} belong to no weight of the model")
        if given == tuple(shape):  # a score a weight, without the axes of blocks
            small[name] = values
            continue
        blocks = len(given) == 4 and given[0] == given[2] == 1 and len(shape) == 2
        if not blocks or shape[0] % given[1] or shape[1] % given[3]:
            raise WinnowError(f"{what}: {name} is {tuple(shape)}, its mask_scores {given} do not divide it")
        small[name] = values[0, :, 0, :]
    total = sum(v.numel() for v in small.values())
    if is_drawn(small):
        kept = {name: (values > 0).numpy() for name, values in small.items()}
        stays = sum(int(k.sum()) for k in kept.values())
        if remaining_percent is not None and stays != total - round((100 - remaining_percent) / 100 * total):
            raise WinnowError(
                f"{what}: its ticket is drawn already, at {100 * stays / total:.4g} % remaining; leave "
                f"remaining_percent out"
            )
    elif remaining_percent is None:
        raise WinnowError(f"{what}: holds scores, not masks; say remaining_percent to draw a ticket from them")
    else:
        arrays = {name: values.float().numpy() for name, values in small.items()}
        kept = keep_largest(arrays, total - round((100 - remaining_percent) / 100 * total))
    return tiled(kept, shapes)


def _gem_miner(
    state: Mapping[str, Tensor],
    flags: Mapping[str, Tensor],
    shapes: Shapes,
    what: str,
    remaining_percent: float | None,
    rule: Rule,
) -> dict[str, np.ndarray]:
    """Masks from a state dict with `weight`, `flag` and `scores` in each layer; the file does not say which program
    wrote it.

    flags: what no hard prune removed (the ticket that is fine-tuned with unflag_before_finetune); flags_and_scores: of
    that, what the scores round to 1 (the network that the search itself computes with); ep: the `remaining_percent`
    largest |score| of each layer; global_ep: of all layers together; weights: what is not exactly zero (IMP rounds,
    whose flags and scores mean nothing). auto: flags_and_scores, unless all flags are 1 and weights are zero (weights),
    or scores lie outside [0,1], as only those of edge-popup do, and then ep or global_ep has to be said.
    """
    layers = [name.removesuffix(".weight") for name in flags]
    scores = {f"{n}.weight": state[f"{n}.scores"] for n in layers if f"{n}.scores" in state}
    weights = {f"{n}.weight": state[f"{n}.weight"] for n in layers if f"{n}.weight" in state}
    if rule == "auto":
        rule = _guess(flags, state, layers, weights, what)
    needed = {"flags": flags, "weights": weights}.get(rule, scores)
    if lacking := [n for n in flags if n not in needed]:
        raise WinnowError(
            f"{what}: {lacking[0].removesuffix('.weight')} has no {'weight' if rule == 'weights' else 'scores'}"
        )
    for name, values in needed.items():
        if values.shape != flags[name].shape:
            raise WinnowError(
                f"{what}: {name}: flag {tuple(flags[name].shape)} and {tuple(values.shape)} are of two shapes"
            )
        if values.isnan().any():
            raise WinnowError(f"{what}: {name} holds NaN; the run that wrote it diverged")
    if rule in ("ep", "global_ep"):
        if remaining_percent is None:
            raise WinnowError(
                f"{what}: holds scores, not masks; say remaining_percent, the percentage that {rule} keeps"
            )
        return _popup(_fitted(scores, shapes), remaining_percent / 100, every_layer=rule == "ep")
    if remaining_percent is not None:
        raise WinnowError(f"{what}: holds masks (rule: {rule}); leave remaining_percent out")
    if rule == "weights":
        return {n: (v != 0).numpy() for n, v in _fitted(weights, shapes).items()}
    alive = _binary(_fitted(flags, shapes), what)
    if rule == "flags":
        return alive
    rounded = {n: alive[n] & (v > 0.5).numpy() for n, v in _fitted(scores, shapes).items()}
    if differs := sum(int((alive[n] & ~rounded[n]).sum()) for n in alive):
        kept = sum(int(k.sum()) for k in rounded.values())
        log.info("%s: %d weights remain; %d more were not hard-pruned (rule: flags keeps them)", what, kept, differs)
    return rounded


def _guess(
    flags: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    layers: list[str],
    weights: Mapping[str, Tensor],
    what: str,
) -> Rule:
    scores = [state[f"{n}.scores"] for n in layers if f"{n}.scores" in state]
    if not scores:
        return "flags"
    if all((v == 1).all() for v in flags.values()):
        if any((v == 0).any() for v in weights.values()):
            return "weights"
        if any(((v < 0) | (v > 1)).any() for v in scores):
            raise WinnowError(
                f"{what}: holds the scores of an edge-popup search, not masks; say rule (ep or global_ep) and "
                f"remaining_percent"
            )
    return "flags_and_scores"


def _popup(scores: Mapping[str, Tensor], remaining: float, every_layer: bool) -> dict[str, np.ndarray]:
    """Edge-popup's masks: n - int((1 - k) n) of each layer, or all but ceil((1 - k) n) of the layers together."""
    arrays = {n: v.abs().float().numpy() for n, v in scores.items()}
    if not every_layer:
        total = sum(a.size for a in arrays.values())
        return keep_largest(arrays, total - ceil((1 - remaining) * total))
    return {n: keep_largest({n: a}, edge_popup_count(a.size, remaining))[n] for n, a in arrays.items()}
