"""Networks from outside winnow: a class in a user's file, timm's and Hugging Face's classifiers, freshly
initialised.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from winnow.compat import repair_torchvision
from winnow.config import own_models
from winnow.errors import WinnowError


def network(arch: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """The network that `arch` (`python:`, `timm:` or `hf:`, see config/own_models.py) names, with the state dict that
    it has there.

    options: keyword arguments of the class or of timm's constructor, or keys of the Hugging Face configuration. It
    takes (B,3,H,W) images and returns (B,num_classes) logits. Raises WinnowError, in one line, for whatever keeps it
    from being built.
    """
    if why := own_models.unknown(arch):
        raise WinnowError(f"model.arch: {why}")
    kind, _, name = arch.partition(":")
    build = {"python": _from_file, "timm": _from_timm, "hf": _from_transformers}[kind]
    try:
        model = build(arch if kind == "python" else name, num_classes, dict(options))
    except WinnowError:
        raise
    except Exception as error:  # a stranger's code: it may raise anything
        raise WinnowError(f"model.arch: {arch} cannot be built ({type(error).__name__}: {error})") from error
    if not isinstance(model, nn.Module):
        raise WinnowError(f"model.arch: {arch} makes a {type(model).__name__}, no torch module")
    return model


def check_head(arch: str, name: str, layer: nn.Module, num_classes: int) -> None:
    """WinnowError unless the last layer has an output a class: it is what a transfer replaces."""
    outputs = getattr(layer, "out_features", getattr(layer, "out_channels", None))
    if outputs != num_classes:
        raise WinnowError(
            f"model.arch: the last linear or convolution layer of {arch}, {name}, has {outputs} outputs for "
            f"{num_classes} classes; "
            "define the classification head last"
        )


def _from_file(arch: str, num_classes: int, options: dict[str, Any]) -> Any:
    file, name = own_models.python_parts(arch)
    made = getattr(_module(file.resolve(), own_models.code_of(arch)), name, None)
    if made is None:
        raise WinnowError(f"model.arch: {file} holds no {name!r}")
    by_name = "num_classes" in inspect.signature(made).parameters
    return made(num_classes=num_classes, **options) if by_name else made(num_classes, **options)


def _module(file: Path, code: str | None) -> Any:
    """The module in `file`, imported once for each state of its code."""
    root = own_models.root_of(file)
    if root != file.parent:  # within a package, whose relative imports need its name
        with _first(root):
            return importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))
    known = f"winnow_own_{code}_{file.stem}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module
        try:
            with _first(root):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[known]
            raise
    return sys.modules[known]


@contextmanager
def _first(folder: Path) -> Iterator[None]:
    """Within: modules of `folder` are found before all others."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _from_timm(name: str, num_classes: int, options: dict[str, Any]) -> Any:
    repair_torchvision()
    return importlib.import_module("timm").create_model(name, pretrained=False, num_classes=num_classes, **options)


def _from_transformers(name: str, num_classes: int, options: dict[str, Any]) -> Any:
    repair_torchvision()
    transformers = importlib.import_module("transformers")
    transformers.utils.logging.set_verbosity_error()
    try:
        config, unused = transformers.AutoConfig.from_pretrained(
            name,
            num_labels=num_classes,
            local_files_only=True,
            trust_remote_code=False,
            return_unused_kwargs=True,
            **options,
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WinnowError(
            f"model.arch: hf:{name} is not here ({reason}); name a folder with its config.json, or fetch it first: hf "
            f"download {name}"
        ) from None
    if unused := set(unused) & set(options):
        raise WinnowError(f"model.options: the configuration of hf:{name} has no {sorted(unused)[0]!r}")
    if config.model_type not in own_models.transformers_types():
        raise WinnowError(f"model.arch: hf:{name} is a {config.model_type}, which classifies no images")
    model = transformers.AutoModelForImageClassification.from_config(config)
    model.register_forward_hook(_logits)
    return model


def _logits(_: nn.Module, __: Any, output: Any) -> Any:
    return output.logits
