"""What a network is like before anything is trained: built without memory for its weights."""

from __future__ import annotations

import torch

from winnow.config.parts import Model, PrunedLayers
from winnow.errors import WinnowError
from winnow.prune.layers import Layers, covered_percent
from winnow.schema import plain
from winnow.vision.models import networks


def pruned_percent(config: Model, num_classes: int) -> float:
    """Percentage of a network's parameters that tickets may remove, 0..100. Raises WinnowError when it cannot be built, or none may."""
    try:
        with torch.device("meta"):
            model = networks.network(config, num_classes)
    except (WinnowError, RuntimeError):  # a constructor that looks at values, which a tensor without memory has not
        model = networks.network(config, num_classes)
    names = Layers(**plain(config.layers or PrunedLayers())).names(model)
    return covered_percent(names, {n: tuple(p.shape) for n, p in model.named_parameters()})
