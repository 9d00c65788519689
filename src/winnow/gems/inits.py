"""Published initialisations of frozen weights and of scores, by their names in the papers' configurations.

Weights: Ramanujan et al. (CVPR 2020) and Rare Gems; gain is that of ReLU. Scores: Rare Gems, appendix on
initialisation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from winnow.rng import seed_of

GAIN = math.sqrt(2.0)


def generator(*parts: object) -> torch.Generator:
    """A fresh CPU generator for these parts."""
    return torch.Generator().manual_seed(seed_of(*parts))


def fans(shape: torch.Size | tuple[int, ...]) -> tuple[int, int]:
    """Fan-in and fan-out of a linear (O,I) or convolution (O,I,kh,kw) weight."""
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def draw_weight(shape: tuple[int, ...], init: str, fan_scale: float, rng: torch.Generator) -> Tensor:
    """A weight tensor of `shape`; `fan_scale` (the remaining fraction when scale_fan is set, else 1) multiplies the
    fans.

    signed_constant: sign * gain / sqrt(fan_in); unsigned_constant: all positive; xavier_constant: sign * gain *
    sqrt(2 / (fan_in + fan_out)); standard: uniform as torch's layers; the others are He's and Glorot's.
    Raises ValueError for another name.
    """
    fan_in, fan_out = (f * fan_scale for f in fans(shape))
    normal = torch.randn(shape, generator=rng)
    constant = GAIN / math.sqrt(fan_in)
    xavier = GAIN * math.sqrt(2.0 / (fan_in + fan_out))
    uniform = torch.rand(shape, generator=rng) * 2 - 1
    drawn = {
        "signed_constant": lambda: torch.where(normal < 0, -constant, constant),
        "unsigned_constant": lambda: torch.full(shape, constant),
        "kaiming_normal": lambda: normal * constant,
        "kaiming_uniform": lambda: uniform * constant * math.sqrt(3.0),
        "xavier_normal": lambda: normal * xavier,
        "xavier_constant": lambda: torch.where(normal < 0, -xavier, xavier),
        "standard": lambda: uniform / math.sqrt(fan_in),
    }
    if init not in drawn:
        raise ValueError(f"unknown weight initialisation {init!r}")
    return drawn[init]().to(torch.float32)


@torch.no_grad()
def initialise(model: nn.Module, names: list[str], init: str, fan_scale: float, *seed: object) -> None:
    """Draw the weights `names` of `model` in place, each from its own generator; biases become zero."""
    parameters = dict(model.named_parameters())
    for name in names:
        drawn = draw_weight(tuple(parameters[name].shape), init, fan_scale, generator(*seed, "weights", name))
        parameters[name].copy_(drawn)
    for name, parameter in parameters.items():
        if name.endswith(".bias") and name.removesuffix("bias") + "weight" in names:
            parameter.zero_()


def draw_scores(shape: tuple[int, ...], score_init: str, rng: torch.Generator) -> Tensor:
    """Start scores of one layer: in [0,1], or around 0 for kaiming_uniform.

    unif: U[0,1); half: 0.5; bern: 0 or 1; bimodal: Beta(0.1, 0.1); skew: Beta(1, 5); kaiming_uniform: with a = sqrt(5),
    which is U(-b, b) with b = 1 / sqrt(fan_in) (Ramanujan et al., CVPR 2020, and edge-popup in Rare Gems). Raises
    ValueError for another name.
    """
    uniform = torch.rand(shape, generator=rng)
    if score_init == "kaiming_uniform":
        return (2 * uniform - 1) / math.sqrt(fans(shape)[0])
    if score_init == "unif":
        return uniform
    if score_init == "half":
        return torch.full(shape, 0.5)
    if score_init == "bern":
        return (uniform < 0.5).float()
    if score_init == "skew":  # Beta(1,5) by its inverse distribution function
        return 1 - (1 - uniform) ** 0.2
    if score_init == "bimodal":
        return _beta(0.1, 0.1, shape, rng)
    raise ValueError(f"unknown score initialisation {score_init!r}")


def _beta(a: float, b: float, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Beta(a, b) as a ratio of gammas, taken in logarithms: with a = 0.1 the gammas themselves underflow."""
    import numpy as np

    draws = np.random.Generator(np.random.PCG64(int(torch.randint(2**62, (1,), generator=rng))))
    # log Gamma(a) = log Gamma(a+1) + log(U)/a in distribution
    log_x = np.log(draws.gamma(a + 1, size=shape)) + np.log(draws.random(shape)) / a
    log_y = np.log(draws.gamma(b + 1, size=shape)) + np.log(draws.random(shape)) / b
    return torch.from_numpy(1.0 / (1.0 + np.exp(np.clip(log_y - log_x, -700, 700)))).float()
