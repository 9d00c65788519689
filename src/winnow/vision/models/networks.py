"""The networks by name: CIFAR networks, the released rare-gems networks, torchvision's classifiers; without
normalisation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from winnow.config.own_models import is_own
from winnow.config.parts import Model
from winnow.errors import WinnowError, nearest
from winnow.vision.models import own
from winnow.vision.models.cifar_resnet import CifarResNet
from winnow.vision.models.mobilenet import MobileNetV2
from winnow.vision.models.plain_convs import Conv4, Vgg16
from winnow.vision.models.wide_resnet import WideResNet

_CIFAR_RESNET = re.compile(r"resnet(8|14|20|32|44|56|110)$")
_WIDE = re.compile(r"wideresnet-(\d+)-(\d+)$")
_SMALL = ("vgg16_cifar", "mobilenet_v2_cifar", "conv4")
_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


@dataclass(frozen=True)
class Released:
    """How a network of the released rare-gems code (arXiv 2202.12002) differs from the one that it is built as.

    None of them has biases. `outputs`: width of the head, whatever the data set. `projections_stay`: the 1x1
    convolutions of the shortcuts carry scores, but no hard prune removes their weights and no density counts them (the
    model names them in its `never_hard_pruned`).
    """

    arch: str
    width: int | None = None
    imagenet_stem: bool = False
    outputs: int | None = None
    projections_stay: bool = False


# vgg16, resnet20 and resnet32 of the released code are vgg16_cifar, resnet20 and resnet32 with `classifier: conv1x1`:
# the first name is torchvision's here, the others are these networks' own
RELEASED = {
    "Conv4": Released("conv4"),
    "Conv4Normal": Released("conv4"),
    "cResNet18": Released("resnet18"),
    "MobileNetV2": Released("mobilenet_v2_released"),
    "ResNet50": Released("resnet50", imagenet_stem=True, outputs=1000, projections_stay=True),
    "ResNet101": Released("resnet101", imagenet_stem=True, projections_stay=True),
    "resnet32_double": Released("resnet32", width=32),
    "TinyResNet18": Released("resnet18", imagenet_stem=True, projections_stay=True),
    "tinyvgg16": Released("tinyvgg16"),
    "WideResNet28": Released("wideresnet-28-2"),
}


def network(config: Model, num_classes: int) -> nn.Module:
    """A freshly initialised network of that `arch`; raises WinnowError for an unknown one."""
    if is_own(config.arch):
        found = _without_extras(own.network(config.arch, num_classes, config.options), config.classifier, config.bn)
        own.check_head(config.arch, *last_layer(found), num_classes)
        return found
    as_released = RELEASED.get(config.arch)
    if as_released is None:
        return _network(
            config.arch, num_classes, config.width, config.classifier, config.bn, config.imagenet_stem, config.options
        )
    if not config.imagenet_stem and as_released.imagenet_stem:
        raise WinnowError(f"model.imagenet_stem: {config.arch} has the stem of its released code; leave the key out")
    outputs = as_released.outputs or num_classes
    if num_classes > outputs:
        raise WinnowError(
            f"model.arch: {config.arch} has {outputs} outputs, as released; the task has {num_classes} classes"
        )
    width = config.width or as_released.width
    model = _network(as_released.arch, outputs, width, "conv1x1", config.bn, as_released.imagenet_stem, {})
    if as_released.projections_stay:
        names = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and n.endswith(".downsample.0")]
        model.never_hard_pruned = frozenset(f"{n}.weight" for n in names)  # type: ignore[assignment]
    return model


def last_layer(model: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the classification head: the last linear layer or convolution."""
    return [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]


def auxiliary(arch: str) -> tuple[str, ...]:
    """Prefixes of the auxiliary classifiers that published weights of `arch` hold and winnow's networks leave out."""
    return _AUXILIARY.get(arch.removeprefix("torchvision/"), ())


def transforms_input(model: nn.Module) -> bool:
    """Whether published weights of this network expect (x - 0.5) / 0.5 instead of ImageNet's statistics."""
    return hasattr(model, "transform_input")


def _network(
    arch: str,
    num_classes: int,
    width: int | None,
    classifier: str,
    bn: str,
    imagenet_stem: bool,
    options: Mapping[str, Any],
) -> nn.Module:
    bias, affine = classifier == "linear", bn == "affine"
    if match := _CIFAR_RESNET.match(arch):
        return CifarResNet(int(match[1]), num_classes, width or 16, classifier, bn)
    if match := _WIDE.match(arch):
        try:
            return WideResNet(int(match[1]), int(match[2]), num_classes, bias, affine)
        except ValueError as error:
            raise WinnowError(f"model.arch: {arch}: {error}") from None
    if arch in ("vgg16_cifar", "tinyvgg16"):
        return Vgg16(num_classes, bias, affine, average=arch == "vgg16_cifar")
    if arch in ("mobilenet_v2_cifar", "mobilenet_v2_released"):
        return MobileNetV2(num_classes, bias, affine, released=arch == "mobilenet_v2_released")
    if arch == "conv4":
        return Conv4(num_classes, bias, width or 64)
    return _without_extras(_torchvision(arch, num_classes, imagenet_stem, options), classifier, bn)


def _without_extras(model: nn.Module, classifier: str, bn: str) -> nn.Module:
    """A torchvision model without the bias of its last layer (classifier conv1x1) and without scale and shift
    (non_affine).
    """
    for name, module in list(model.named_modules()):
        if bn == "non_affine" and isinstance(module, nn.BatchNorm2d) and module.affine:
            model.set_submodule(name, nn.BatchNorm2d(module.num_features, module.eps, module.momentum, affine=False))
    if classifier == "conv1x1":
        last_layer(model)[1].register_parameter("bias", None)
    return model


def _torchvision(arch: str, num_classes: int, imagenet_stem: bool, options: Mapping[str, Any]) -> nn.Module:
    from winnow.compat import torchvision

    models = torchvision().models
    name = arch.removeprefix("torchvision/")
    if name not in models.list_models(module=models):
        own = [*(f"resnet{d}" for d in (8, 14, 20, 32, 44, 56)), *_SMALL, "wideresnet-28-2", *RELEASED]
        known = [m for m in models.list_models() if "/" not in m]
        raise WinnowError(f"model.arch: {arch!r} is no known architecture{nearest(arch, [*own, *known])}")
    extra: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in _AUXILIARY else {}
    try:
        model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **extra, **options)
    except TypeError as error:
        raise WinnowError(f"model.options: {arch} does not take them ({error})") from None
    if not imagenet_stem:
        if not isinstance(model, models.ResNet):
            raise WinnowError(f"model.imagenet_stem: only torchvision ResNets have one to replace, {arch} is none")
        model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model
