"""Hard-concrete masks over the linear layers (robust tickets, ACL 2022.acl-long.157, section 3.1; Louizos et al. 2018).

Symbols as in the paper: score (log alpha), beta (temperature), l and r (the stretched interval; `low` and `high` here),
u (uniform noise). A sample is m = clamp(s (r - l) + l, 0, 1) with s = sigmoid((log u - log(1 - u) + score) / beta).

Memory: while a forward pass is open, each layer keeps its masked weight and d(masked weight)/d(score); noise and
intermediate values live in blocks of 64 Ki numbers. With the scores beside the frozen weights that is three copies of
the masked weights more than plain training, which has a gradient and AdamW's two moments as well (bench/mask_memory.py
measures it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from winnow.artifacts import write_tensors
from winnow.config.text import HardConcrete
from winnow.errors import WinnowError
from winnow.prune.layers import is_linear, transposed
from winnow.train import ranks
from winnow.train.device import working_dtype

U_MIN = 1e-4  # u is kept in [U_MIN, 1 - U_MIN]
_BLOCK = 1 << 16


def train_mask(score: Tensor, u: Tensor, config: HardConcrete) -> Tensor:
    """A mask sample in [0, 1] for uniform noise `u`; shapes are equal. Section 3.1, equations of s and m."""
    u = u.clamp(U_MIN, 1.0 - U_MIN)
    s = torch.sigmoid((torch.log(u) - torch.log(1.0 - u) + score) / config.beta)
    return (s * (config.high - config.low) + config.low).clamp(0.0, 1.0)


def eval_mask(score: Tensor, config: HardConcrete) -> Tensor:
    """The mask without noise, in [0, 1]: s = sigmoid(score)."""
    return (torch.sigmoid(score) * (config.high - config.low) + config.low).clamp(0.0, 1.0)


def initial_score(config: HardConcrete) -> float:
    """The score whose noiseless mask is `init_mask`."""
    p = (config.init_mask - config.low) / (config.high - config.low)
    return math.log(p / (1.0 - p))


def l0_probability(score: Tensor, config: HardConcrete) -> Tensor:
    """P(mask > 0) = sigmoid(score - beta log(-l / r)), elementwise."""
    return torch.sigmoid(score - config.beta * math.log(-config.low / config.high))


def l0_term(scores: Mapping[str, Tensor], config: HardConcrete) -> Tensor:
    """The regulariser: mean over the matrices of each matrix's mean P(mask > 0), a scalar in [0, 1]."""
    return torch.stack([l0_probability(s, config).mean() for s in scores.values()]).mean()


def l0_weight(step: int, total_steps: int, config: HardConcrete) -> float:
    """lambda at optimisation step `step`, counted from 1: 0, then a linear ramp to `l0_amplitude`, then constant."""
    begun = step - config.l0_start_fraction * total_steps
    return config.l0_amplitude * min(1.0, max(0.0, begun / (config.l0_ramp_fraction * total_steps)))


@torch.no_grad()
def add_l0_gradient(scores: Mapping[str, Tensor], weight: float, config: HardConcrete) -> None:
    """Add `weight` times the gradient of `l0_term` to each score's .grad, in closed form: p (1 - p) / (numel *
    matrices).
    """
    for score in scores.values():
        p = l0_probability(score, config)
        gradient = torch.addcmul(p, p, p, value=-1.0).mul_(weight / (score.numel() * len(scores)))
        score.grad = gradient if score.grad is None else score.grad.add_(gradient)


def uniform_noise(shape: torch.Size, device: torch.device) -> Tensor:
    """u of `shape`, a fresh draw from torch's default generator; the same in all of several processes.

    On the CPU it lies on a grid of 2^-16 (a quarter of the random bits, a third of the time; the clamp at 1e-4 is 6
    cells).
    """
    if device.type != "cpu":
        return torch.rand(shape, device=device, generator=ranks.generator(device))
    count = shape.numel()
    seed = int(torch.randint(0, 2**62, (1,), generator=ranks.generator(device)))
    raw = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.uint16)[:count]
    return torch.from_numpy(raw.view(np.int16)).to(torch.float32).add_(32768.5).mul_(2.0**-16).view(shape)


@torch.no_grad()
def _sample(score: Tensor, u: Tensor, config: HardConcrete) -> tuple[Tensor, Tensor]:
    """(mask, d mask / d score) for noise `u`, which is overwritten; the values of `train_mask` without a logarithm.

    sigmoid((logit u + score) / beta) = 1 / (1 + ((1 - u) / u)^(1/beta) exp(-score / beta)); with beta = 2/3 the power
    is q sqrt(q). 1 - u is exact in float32.
    """
    u.clamp_(U_MIN, 1.0 - U_MIN)
    q = torch.sub(1.0, u).div_(u)
    power = torch.sqrt(q, out=u).mul_(q) if abs(config.beta - 2 / 3) < 1e-12 else torch.pow(q, 1.0 / config.beta, out=u)
    s = torch.mul(score, -1.0 / config.beta, out=q).exp_().mul_(power).add_(1.0).reciprocal_()
    span = config.high - config.low
    slope = torch.addcmul(s, s, s, value=-1.0, out=power).mul_(span / config.beta)
    stretched = s.mul_(span).add_(config.low)
    slope = torch.ops.aten.hardtanh_backward(slope, stretched, 0.0, 1.0)
    return stretched.clamp_(0.0, 1.0), slope


class _Masked(torch.autograd.Function):
    """weight * mask(score, u) with the gradient to the score alone: the weights are frozen during the search, as a
    rule.

    Under autocast the result has its dtype already (rounded from float32, once), and no pass over the weights casts it.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, score: Tensor, u: Tensor, config: HardConcrete) -> Tensor:
        if ctx.needs_input_grad[0]:
            mask, slope = _sample(score, u, config)
            ctx.save_for_backward(slope, weight, mask)
            return (weight * mask).to(working_dtype(weight))
        if score.shape != weight.shape or weight.device.type != "cpu":
            mask, slope = _sample(score, u, config)
            ctx.save_for_backward(slope * weight if score.shape == weight.shape else slope, weight)
            return (weight * mask).to(working_dtype(weight))
        masked, gain = torch.empty_like(weight, dtype=working_dtype(weight)), torch.empty_like(weight)
        flat = [t.reshape(-1) for t in (weight, score, u, masked, gain)]
        for blocks in zip(*(t.split(_BLOCK) for t in flat), strict=True):  # blocks that stay in the processor's cache
            w, block_score, noise, out, out_gain = blocks
            mask, slope = _sample(block_score, noise, config)
            torch.mul(w, mask, out=out)
            torch.mul(w, slope, out=out_gain)
        ctx.save_for_backward(gain, None)
        return masked

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        if ctx.needs_input_grad[0]:
            slope, weight, mask = ctx.saved_tensors
            return grad * mask, (grad * weight).sum_to_size(slope.shape) * slope, None, None
        gain, weight = ctx.saved_tensors
        if weight is None:
            result = torch.empty_like(gain)
            for g, factor, out in zip(*(t.reshape(-1).split(_BLOCK) for t in (grad, gain, result)), strict=True):
                torch.mul(g, factor, out=out)
            return None, result, None, None
        if gain.shape == weight.shape:
            return None, grad * gain, None, None
        whole = grad * weight
        dims = [d for d in range(whole.dim()) if gain.shape[d] == 1]
        return None, whole.sum(dims, keepdim=True) * gain, None, None


def block_of(config: HardConcrete, transposed: bool) -> tuple[int, int]:
    """Sides of a block along the two dimensions of a weight as it is stored."""
    assert config.block is not None
    out, inner = config.block
    return (inner, out) if transposed else (out, inner)


class MaskedWeight(nn.Module):
    """Parametrization weight -> weight * mask. In training mode a fresh mask at every access (one per forward pass).

    transposed: the weight is (in, out), as GPT-2's.
    """

    def __init__(self, weight: Tensor, config: HardConcrete, transposed: bool = False):
        super().__init__()
        row = (1, weight.shape[1]) if transposed else (weight.shape[0], 1)
        shapes = {"weight": tuple(weight.shape), "row": row, "matrix": (1, 1)}
        shape: tuple[int, ...] = shapes[config.granularity]
        self.blocked: tuple[int, ...] | None = None
        if config.block is not None:
            (a, b), (one, other) = block_of(config, transposed), weight.shape
            self.blocked, shape = (a, one // a, b, other // b), (1, one // a, 1, other // b)
        self.config = config
        self.score = nn.Parameter(torch.full(shape, initial_score(config), device=weight.device))
        self.sampled = True

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight; sampled in training, noiseless in evaluation or when `sampled` is off."""
        seen = weight if self.blocked is None else weight.view(self.blocked)
        if self.training and self.sampled:
            noise = uniform_noise(self.score.shape, self.score.device)
            return _Masked.apply(seen, self.score, noise, self.config).view(weight.shape)
        return (seen * eval_mask(self.score, self.config)).view(weight.shape)


def attach(model: nn.Module, names: list[str], config: HardConcrete, frozen: bool = True) -> dict[str, nn.Parameter]:
    """Freeze `model` (unless told not to), put a mask on each named weight; returns the scores (trainable) by weight
    name.
    """
    model.requires_grad_(not frozen)
    scores = {}
    for name in names:
        path, _, leaf = name.rpartition(".")
        layer = model.get_submodule(path)
        if leaf != "weight" or not is_linear(layer):
            raise WinnowError(f"{name}: masks go on the weights of linear layers only")
        turned = transposed(layer)
        if config.block and any(
            size % of
            for size, of in zip(layer.weight.shape, block_of(config, turned), strict=True)  # type: ignore
        ):
            shape = "x".join(map(str, layer.weight.shape))  # type: ignore[arg-type]
            raise WinnowError(f"masks.block: {config.block} does not divide {name}, {shape}; take divisors of both")
        mask = MaskedWeight(layer.weight, config, turned)  # type: ignore[arg-type]
        parametrize.register_parametrization(layer, "weight", mask)
        scores[name] = mask.score
    return scores


def write_scores(path: Path, scores: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write scores as draw_ticket reads them; `record` holds at least shapes, search_epoch and seed."""
    write_tensors(path, scores, {"kind": "scores", **record})
