"""Networks that winnow does not have: a class in a file of one's own, timm's by name, Hugging Face's image classifiers.

arch: python:nets/mine.py:MyNet     # MyNet(num_classes) -> a module of (B,3,H,W) images to (B,num_classes) logits
arch: timm:vit_tiny_patch16_224     # drawn anew; needs the package timm
arch: hf:FOLDER or hf:OWNER/NAME    # by its config.json, drawn anew; needs transformers
"""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

from torch import nn

from winnow.config.parts import Model, code_of
from winnow.errors import WinnowError


def is_foreign(arch: str) -> bool:
    """Whether the name says where the network comes from."""
    return arch.partition(":")[0] in ("python", "timm", "hf") and ":" in arch


def build(config: Model, num_classes: int) -> nn.Module:
    """The network, freshly drawn. Raises WinnowError in one line when it cannot be made or takes no number of classes."""
    kind, _, name = config.arch.partition(":")
    if config.width or config.bn != "affine" or config.classifier != "linear" or not config.imagenet_stem:
        raise WinnowError(
            f"model: width, bn, classifier and imagenet_stem are for winnow's own networks, not for {config.arch}"
        )
    return {"python": _own, "timm": _timm, "hf": _hugging_face}[kind](config, name, num_classes)


def _own(config: Model, name: str, num_classes: int) -> nn.Module:
    path, _, class_name = name.rpartition(":")
    if config.code is not None and code_of(path) != config.code:
        raise WinnowError(f"model.arch: {path} has changed since this job was planned; run snakemake again")
    spec = importlib.util.spec_from_file_location("winnow_own_network", Path(path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = getattr(module, class_name)
        keyword = "num_classes" in inspect.signature(made).parameters
        network = made(num_classes=num_classes) if keyword else made(num_classes)
    except Exception as error:  # the user's code may raise anything
        raise WinnowError(f"model.arch: {config.arch}: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise WinnowError(f"model.arch: {config.arch} gives a {type(network).__name__}, not a torch module")
    return network


def _timm(config: Model, name: str, num_classes: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise WinnowError(f"model.arch: {config.arch} needs the package timm; install it (pip install timm)") from None
    from winnow.errors import nearest

    if not timm.is_model(name):
        raise WinnowError(f"model.arch: timm has no {name!r}{nearest(name, timm.list_models())}")
    return timm.create_model(name, pretrained=False, num_classes=num_classes)


def _hugging_face(config: Model, name: str, num_classes: int) -> nn.Module:
    from winnow.text import compat

    transformers = compat.transformers()
    try:
        settings = transformers.AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        settings.num_labels = num_classes
        network: Any = transformers.AutoModelForImageClassification.from_config(settings, trust_remote_code=False)
    except Exception as error:  # HTTP, cache, name and configuration errors of several packages
        reason = " ".join(str(error).split())[:160]
        raise WinnowError(
            f"model.arch: {config.arch}: no image classifier here ({reason}); name a folder with config.json"
        ) from None
    network.register_forward_hook(lambda module, arguments, output: getattr(output, "logits", output))
    return network
