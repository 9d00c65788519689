"""Gradient attacks in pixel space, batched on the device.

The attacked model gets images in [0,1] and normalises inside, so `eps` means what the papers mean. Attacks run with the
model in evaluation mode (batch statistics frozen), unless adversarial training asks for `batch_statistics`, and take
gradients of the image only: no parameter gradient is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.config.parts import Attack
from winnow.errors import WinnowError
from winnow.train import ranks
from winnow.vision.folding import folded

Model = Callable[[Tensor], Tensor]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within: the model is in eval mode, its normalisations folded; afterwards every part is in the mode it was in."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with folded(model):
            yield
    finally:
        for part, training in modes:
            part.training = training


def check_pixels(x: Tensor) -> None:
    """WinnowError unless all values lie in [0,1]: an attack would clip them there, and measure other images. Waits for
    the device.
    """
    low, high = torch.stack(x.aminmax()).cpu().tolist() if x.numel() else (0.0, 1.0)
    if not (low >= 0 and high <= 1):
        raise WinnowError(
            f"attack: images must lie in [0,1], these run from {low:.4g} to {high:.4g}; leave the normalisation to the "
            f"model"
        )


def random_start(x: Tensor, attack: Attack, generator: torch.Generator | None = None) -> Tensor:
    """A uniform perturbation of x in the ball (linf: each pixel; l2: direction uniform, radius by volume), clipped to
    [0,1].
    """
    if attack.norm == "linf":
        delta = ranks.noise(x, lambda t, common: t.uniform_(-attack.eps, attack.eps, generator=generator or common))
    else:
        delta = ranks.noise(x, lambda t, common: t.normal_(generator=generator or common))
        uniform = ranks.noise(x[:, 0, 0, 0], lambda t, common: t.uniform_(generator=generator or common))
        radius = uniform ** (1 / x[0].numel())
        delta = delta * (attack.eps * radius / delta.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    return (x + delta).clamp_(0, 1).sub_(x)


def pgd(model: Model, x: Tensor, y: Tensor, attack: Attack, start: Tensor | None = None) -> Tensor:
    """Projected gradient ascent on the cross-entropy (Madry et al., ICLR 2018); returns adversarial images like x.

    x: (B,C,H,W) in [0,1]; y: (B,) labels; start: first perturbation (default: random or zero, by
    `attack.random_start`). Same arithmetic as advertorch's LinfPGDAttack / L2PGDAttack: step, project on the ball, clip
    to [0,1]. Raises WinnowError for images outside [0,1].
    """
    check_pixels(x)
    return _ascent(model, x, y, attack, start)


def _ascent(model: Model, x: Tensor, y: Tensor, attack: Attack, start: Tensor | None = None) -> Tensor:
    delta = start if start is not None else random_start(x, attack) if attack.random_start else torch.zeros_like(x)
    for _ in range(attack.steps):
        adversarial = (x + delta).requires_grad_(True)
        loss = F.cross_entropy(model(adversarial), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        delta = _project(x, delta, gradient, attack)
    return x + delta


def _project(x: Tensor, delta: Tensor, gradient: Tensor, attack: Attack) -> Tensor:
    if attack.norm == "linf":
        delta = (delta + attack.step_size * gradient.sign_()).clamp_(-attack.eps, attack.eps)
        return (x + delta).clamp_(0, 1).sub_(x)
    norms = gradient.flatten(1).norm(dim=1).clamp_min(1e-6).view(-1, 1, 1, 1)
    delta = (x + delta + attack.step_size * gradient / norms).clamp_(0, 1).sub_(x)
    sizes = delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return delta * (attack.eps / sizes).clamp_(max=1.0)


def advertorch_pgd(model: Any, x: Tensor, y: Tensor, attack: Attack) -> Tensor:
    """The same attack by advertorch 0.2.3, the reference back end."""
    from winnow.compat import advertorch_attacks

    kind = "LinfPGDAttack" if attack.norm == "linf" else "L2PGDAttack"
    adversary = getattr(advertorch_attacks(), kind)(
        model,
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        eps=float(attack.eps),
        nb_iter=attack.steps,
        eps_iter=float(attack.step_size),
        rand_init=attack.random_start,
        clip_min=0.0,
        clip_max=1.0,
        targeted=False,
    )
    return adversary.perturb(x, y).detach()


def perturb(model: nn.Module, x: Tensor, y: Tensor, attack: Attack) -> Tensor:
    """Adversarial images by the configured back end, the model in evaluation mode meanwhile.

    A model that trains is attacked as it is when the attack asks for `batch_statistics`: each forward pass of the
    attack uses the statistics of its batch, and moves the running ones. x in [0,1], as a Loader makes it; not checked,
    for that would wait for the device at every training step.
    """
    with nullcontext() if attack.batch_statistics and model.training else evaluation_mode(model):
        if attack.backend == "advertorch":
            return advertorch_pgd(model, x, y, attack)
        return _ascent(model, x, y, attack).detach()
