"""A network before anything is trained, built without memory for its weights where that can be."""

from __future__ import annotations

import torch
from torch import nn

from winnow.config.parts import Model
from winnow.errors import WinnowError
from winnow.prune.layers import coverage_warning
from winnow.vision.models import named_prunable, networks


def network(config: Model, num_classes: int) -> nn.Module:
    """The network, on torch's meta device if its constructor allows. Raises WinnowError when it cannot be built."""
    try:
        with torch.device("meta"):
            return networks.network(config, num_classes)
    except (WinnowError, RuntimeError):  # a constructor that looks at values, which a tensor without memory has not
        return networks.network(config, num_classes)


def few_pruned(config: Model, num_classes: int) -> str | None:
    """One line when the chosen layers hold under a fifth of the network, else None. Raises WinnowError when they are
    none.
    """
    model = network(config, num_classes)
    return coverage_warning(
        named_prunable(model, config.layers), {n: tuple(p.shape) for n, p in model.named_parameters()}
    )
