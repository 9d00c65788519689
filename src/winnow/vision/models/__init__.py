"""Classifiers by name, with the input normalisation inside and outside their state dict."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.config import own_models
from winnow.config.architectures import LANGUAGE
from winnow.config.parts import Model, PrunedLayers
from winnow.config.vision import Normalisation
from winnow.errors import WinnowError
from winnow.language import networks as language
from winnow.prune.layers import Layers, coverage_warning
from winnow.schema import parse, plain
from winnow.vision.models import networks

log = logging.getLogger("winnow")
STEM = "conv1.weight"  # what `imagenet_stem: false` replaces
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def build(config: Model, num_classes: int) -> nn.Module:
    """A freshly initialised classifier that takes (B,3,H,W) images in [0,1] and returns (B,num_classes) logits.

    Its state dict has the architecture's own names, so plain torchvision reads what winnow writes and the reverse. The
    released rare-gems networks are known by their released names (`networks.RELEASED`). GoogLeNet and Inception v3 come
    without auxiliary outputs; their published weights expect (x - 0.5) / 0.5, to which torchvision carries inputs over
    that were normalised with ImageNet's statistics (`transform_input`): with these statistics they get that here too.
    A language model takes words and returns logits of the next ones (`winnow.language.networks`); `num_classes` is its
    vocabulary. Raises WinnowError for an unknown `arch`.
    """
    if config.arch in LANGUAGE:
        return language.build(config, num_classes)
    model = networks.network(config, num_classes)
    if config.dropout:
        drop_before(networks.last_layer(model)[1], config.dropout)
    mean, std = list(config.mean), list(config.std)
    if networks.transforms_input(model) and (mean, std) == (IMAGENET_MEAN, IMAGENET_STD):
        mean, std = [0.5] * 3, [0.5] * 3
    return normalise_input(model, mean, std)


def drop_before(layer: nn.Module, fraction: float) -> None:
    """Make `layer` drop that fraction of its input features in training: whole channels where its input is a map."""

    def drop(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        dropped = F.dropout2d if arguments[0].dim() == 4 else F.dropout
        return (dropped(arguments[0], fraction, module.training), *arguments[1:])

    layer.register_forward_pre_hook(drop)


def normalise_input(model: nn.Module, mean: list[float], std: list[float]) -> nn.Module:
    """Make `model` normalise its own input (a forward pre-hook over buffers that stay out of the state dict)."""
    model.register_buffer("input_mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
    model.register_buffer("input_std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def normalise(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return ((arguments[0] - module.input_mean) / module.input_std, *arguments[1:])  # type: ignore[operator]

    model.register_forward_pre_hook(normalise)
    return model


def spec(config: Model, num_classes: int) -> dict[str, Any]:
    """What a weights artifact records of its model, so that later stages rebuild it."""
    return {**plain(config), "num_classes": num_classes}


def from_spec(recorded: Mapping[str, Any], num_classes: int | None = None) -> nn.Module:
    """The model that `spec` described, with another number of classes if given."""
    keys = {k: v for k, v in recorded.items() if k != "num_classes"}
    config = parse(Model, keys, "model")
    if config.code is not None and (now := own_models.code_of(config.arch)) != config.code:
        raise WinnowError(
            f"model.arch: the code of {config.arch} {'is not there' if now is None else 'has changed'} since these "
            f"weights were made; "
            "put it back, or make the weights anew"
        )
    return build(config, num_classes or recorded["num_classes"])


def head_names(model: nn.Module) -> list[str]:
    """State-dict names of the classification head: those of the last linear (or 1x1 conv) layer."""
    name, layer = networks.last_layer(model)
    return [f"{name}.{p}" for p, _ in layer.named_parameters()]


def named_prunable(model: nn.Module, chosen: PrunedLayers | None = None) -> list[str]:
    """Names of the weights that tickets may remove: by default all convolutions', never the head's. WinnowError when
    none are.
    """
    return Layers(**plain(chosen or PrunedLayers())).names(model)


def prunable(model: nn.Module, chosen: PrunedLayers | None = None) -> list[str]:
    """`named_prunable`, and a warning when they hold under 20 % of the network."""
    names = named_prunable(model, chosen)
    if warning := coverage_warning(names, {n: tuple(p.shape) for n, p in model.named_parameters()}):
        log.warning("model.%s", warning)
    return names


def load_state(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Strict load, as PyTorch's own: batch counters that old files lack begin at 0; WinnowError lists what is missing,
    unexpected or of another shape.
    """
    own = model.state_dict()
    state = {**{k: torch.zeros_like(v) for k, v in own.items() if k.endswith("num_batches_tracked")}, **state}
    problems = [f"missing {k}" for k in own if k not in state]
    problems += [f"unexpected {k}" for k in state if k not in own]
    problems += [
        f"{k} is {tuple(v.shape)}, the model's {tuple(own[k].shape)}"
        for k, v in state.items()
        if k in own and v.shape != own[k].shape
    ]
    if problems:
        raise WinnowError(
            f"{what} does not fit the model: {'; '.join(problems[:8])}"
            + (f" and {len(problems) - 8} more" if len(problems) > 8 else "")
        )
    if broken := next((k for k, v in state.items() if not torch.isfinite(v).all()), None):
        raise WinnowError(f"{what}: {broken} holds values that are not finite; the training that made them diverged")
    model.load_state_dict(dict(state), strict=True)


def load_pretrained(
    path: Any,
    num_classes: int | None = None,
    normalisation: Normalisation | None = None,
    imagenet_stem: bool = True,
) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a winnow weights artifact and its spec; with `num_classes`, a fresh head of that size in place of
    its own.

    With it, `normalisation` replaces the statistics by which the model normalises its input, and `imagenet_stem` false
    a ResNet's first convolution and its pooling by a fresh 3x3 convolution; in the spec too.
    What is fresh is drawn from torch's global generator: seed it first.
    """
    from winnow.artifacts import read_metadata, read_tensors

    recorded = read_metadata(path).get("model")
    if recorded is None:
        raise WinnowError(f"{path}: not weights that winnow wrote; bring them in with winnow.stages.import_weights")
    if normalisation is not None:
        recorded = {**recorded, **plain(normalisation)}
    state = read_tensors(path)
    if num_classes is None:
        model = from_spec(recorded)
        load_state(model, state, str(path))
        return model, recorded
    if not imagenet_stem:
        recorded = {**recorded, "imagenet_stem": False}
    model = from_spec(recorded, num_classes)
    replaced = {*head_names(model), *([] if imagenet_stem else [STEM])}
    fresh = {k: v for k, v in model.state_dict().items() if k in replaced}
    load_state(model, {**{k: v for k, v in state.items() if k not in replaced}, **fresh}, str(path))
    return model, {**recorded, "num_classes": num_classes}
