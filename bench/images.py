"""What the vision benches share: uint8 images, the same network on every path, and the plain path's data, mask and
attack.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.utils import prune

from winnow.compat import advertorch_attacks, torchvision
from winnow.config.parts import Attack, Model
from winnow.ticket import Ticket
from winnow.vision import models
from winnow.vision.sources import Split


def split(images: int, size: int, classes: int = 10) -> Split:
    """Smooth random pictures (noise alone would be all edges) and random labels."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (images, 3, size // 8, size // 8), dtype=np.uint8)
    return Split(coarse.repeat(8, axis=2).repeat(8, axis=3), rng.integers(0, classes, images))


def network(model: Model, size: int) -> torch.nn.Module:
    """`model` from a fixed seed, its running statistics those of random images: logits and gradients of ordinary
    size.
    """
    torch.manual_seed(0)
    made = models.build(model, 10)
    layers = [m for m in made.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = 1.0
    with torch.no_grad():
        made.train()(fixed_batch(8, size)[0])
    for layer in layers:
        layer.momentum = 0.1
    return made


def fixed_batch(count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and labels on which the paths are compared."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, size, size, generator=generator), torch.arange(count) % 10


def half_ticket(model: torch.nn.Module) -> Ticket:
    """A random half of every prunable weight."""
    rng = np.random.default_rng(2)
    parameters = dict(model.named_parameters())
    return Ticket({n: rng.random(tuple(parameters[n].shape)) < 0.5 for n in models.prunable(model)})


def prune_hooks(model: torch.nn.Module, ticket: Ticket) -> None:
    """torch.nn.utils.prune: weight_orig * weight_mask before every forward pass."""
    for name, mask in ticket.masks.items():
        prune.custom_from_mask(model.get_submodule(name.removesuffix(".weight")), "weight", mask)


class Pictures(torch.utils.data.Dataset):
    """PIL images and the usual transforms: `pad` crops, `resized` crops to `size`, or none (evaluation)."""

    def __init__(self, split: Split, crop: str | None, size: int = 32):
        from PIL import Image

        transforms = torchvision().transforms
        self.images = [Image.fromarray(np.ascontiguousarray(x.transpose(1, 2, 0))) for x in split.images]
        self.labels = split.labels
        crops = {
            "pad": [transforms.RandomCrop(size, padding=4)],
            "resized": [transforms.RandomResizedCrop(size)],
            None: [],
        }
        flips = [transforms.RandomHorizontalFlip()] if crop else []
        self.transform = transforms.Compose([*crops[crop], *flips, transforms.ToTensor()])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(self.images[i]), int(self.labels[i])


def advertorch_pgd(model: torch.nn.Module, attack: Attack, random_start: bool):
    """advertorch's LinfPGDAttack with these settings."""
    return advertorch_attacks().LinfPGDAttack(
        model, loss_fn=torch.nn.CrossEntropyLoss(reduction="sum"), eps=attack.eps, nb_iter=attack.steps,
        eps_iter=attack.step_size, rand_init=random_start, clip_min=0.0, clip_max=1.0, targeted=False,
    )  # fmt: skip
