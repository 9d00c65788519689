"""Classifiers by name, with the input normalisation inside and outside their state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from winnow.config.parts import Model
from winnow.errors import WinnowError, nearest
from winnow.schema import parse, plain
from winnow.vision.models.cifar_resnet import CifarResNet
from winnow.vision.models.small_nets import Conv4, MobileNetV2, Vgg16, WideResNet

_CIFAR_RESNET = re.compile(r"resnet(8|14|20|32|44|56|110)$")
_WIDE = re.compile(r"wideresnet-(\d+)-(\d+)$")
_SMALL = {"vgg16_cifar": Vgg16, "mobilenet_v2_cifar": MobileNetV2, "conv4": Conv4}


def build(config: Model, num_classes: int) -> nn.Module:
    """A freshly initialised classifier that takes (B,3,H,W) images in [0,1] and returns (B,num_classes) logits.

    Its state dict has the architecture's own names, so plain torchvision reads what winnow writes and the reverse.
    Raises WinnowError for an unknown `arch`.
    """
    if match := _CIFAR_RESNET.match(config.arch):
        model: nn.Module = CifarResNet(int(match[1]), num_classes, config.width or 16, config.classifier, config.bn)
    elif config.arch in _SMALL or _WIDE.match(config.arch):
        model = _small(config, num_classes)
    else:
        model = _without_extras(_torchvision(config, num_classes), config)
    return normalise_input(model, config.mean, config.std)


def _small(config: Model, num_classes: int) -> nn.Module:
    bias, affine = config.classifier == "linear", config.bn == "affine"
    if match := _WIDE.match(config.arch):
        try:
            return WideResNet(int(match[1]), int(match[2]), num_classes, bias, affine)
        except ValueError as error:
            raise WinnowError(f"model.arch: {config.arch}: {error}") from None
    return _SMALL[config.arch](num_classes, bias, affine)


def _without_extras(model: nn.Module, config: Model) -> nn.Module:
    """A torchvision model without the bias of its last layer (classifier conv1x1) and without scale and shift (non_affine)."""
    for name, module in list(model.named_modules()):
        if config.bn == "non_affine" and isinstance(module, nn.BatchNorm2d) and module.affine:
            plain_norm = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, affine=False)
            model.set_submodule(name, plain_norm)
    if config.classifier == "conv1x1":
        name, last = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
        last.register_parameter("bias", None)
    return model


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
    return build(parse(Model, keys, "model"), num_classes or recorded["num_classes"])


def head_names(model: nn.Module) -> list[str]:
    """State-dict names of the classification head: those of the last linear (or 1x1 conv) layer."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    name, layer = layers[-1]
    return [f"{name}.{p}" for p, _ in layer.named_parameters()]


def prunable(model: nn.Module) -> list[str]:
    """Names of the weights that magnitude pruning prunes: all convolutions' except a convolutional head's."""
    head = set(head_names(model))
    convolutions = (f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    return [name for name in convolutions if name not in head]


def load_state(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Strict load; WinnowError lists what is missing, unexpected or of another shape."""
    own = model.state_dict()
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
    model.load_state_dict(dict(state), strict=True)


def load_pretrained(path: Any, num_classes: int | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a winnow weights artifact and its spec; with `num_classes`, a fresh head of that size in place of its own.

    The head is drawn from torch's global generator: seed it first.
    """
    from winnow.artifacts import read_metadata, read_tensors

    recorded = read_metadata(path).get("model")
    if recorded is None:
        raise WinnowError(f"{path}: not weights that winnow wrote; bring them in with winnow.stages.import_weights")
    state = read_tensors(path)
    if num_classes is None:
        model = from_spec(recorded)
        load_state(model, state, str(path))
        return model, recorded
    model = from_spec(recorded, num_classes)
    head = set(head_names(model))
    fresh = {k: v for k, v in model.state_dict().items() if k in head}
    load_state(model, {**{k: v for k, v in state.items() if k not in head}, **fresh}, str(path))
    return model, {**recorded, "num_classes": num_classes}


def _torchvision(config: Model, num_classes: int) -> nn.Module:
    from winnow.compat import torchvision

    models = torchvision().models
    name = config.arch.removeprefix("torchvision/")
    known = [m for m in models.list_models() if "/" not in m]
    own = [*(f"resnet{d}" for d in (8, 14, 20, 32, 44, 56)), *_SMALL, "wideresnet-28-2"]
    if name not in models.list_models(module=models):
        raise WinnowError(f"model.arch: {config.arch!r} is no known architecture{nearest(config.arch, [*own, *known])}")
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    if not config.imagenet_stem:
        if not isinstance(model, models.ResNet):
            raise WinnowError(f"model.imagenet_stem: only torchvision ResNets have one to replace, {config.arch} is none")
        model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model
