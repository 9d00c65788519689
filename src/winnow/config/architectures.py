"""Names of architectures, known without importing torch: configurations are checked where only the workflow is
installed.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

from winnow.config import own_models
from winnow.errors import nearest

OWN = re.compile(r"resnet(8|14|20|32|44|56|110)|wideresnet-\d+-\d+|vgg16_cifar|mobilenet_v2_cifar|conv4")
RELEASED = (  # networks of the released rare-gems code
    *(
        "Conv4",
        "Conv4Normal",
        "cResNet18",
        "MobileNetV2",
        "ResNet50",
        "ResNet101",
        "resnet32_double",
        "TinyResNet18",
        "tinyvgg16",
    ),
    "WideResNet28",
)
LANGUAGE = ("transformer", "lstm")  # foretell the next word of a corpus; only rare_gems trains them
EXAMPLES = ("resnet8", "resnet20", "resnet56", "wideresnet-28-2", "vgg16_cifar", "mobilenet_v2_cifar", "conv4")


@cache
def torchvision_names() -> frozenset[str]:
    """torchvision's classifiers by name, read from its sources; empty where it is not installed."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return frozenset()
    files = (f for f in Path(spec.origin).with_name("models").glob("*.py") if not f.name.startswith("_"))
    trees = (ast.parse(f.read_text(encoding="utf-8")) for f in files)
    functions = (n for tree in trees for n in tree.body if isinstance(n, ast.FunctionDef))
    return frozenset(f.name for f in functions if any("register_model" in ast.unparse(d) for d in f.decorator_list))


def is_winnows(arch: str) -> bool:
    """Whether winnow itself builds this network."""
    return bool(OWN.fullmatch(arch)) or arch in RELEASED or arch in LANGUAGE


def unknown(arch: str) -> str | None:
    """Why no classifier has this name; None when one has, or when torchvision is not here to say."""
    if own_models.is_own(arch):
        return own_models.unknown(arch)
    if is_winnows(arch) or arch in torchvision_names() or not torchvision_names():
        return None
    return f"{arch!r} is no known architecture{nearest(arch, [*EXAMPLES, *RELEASED, *torchvision_names()])}"


# networks whose convolutions hold more than a fifth of the weights, whatever the number of classes
_MOSTLY_CONVOLUTIONS = re.compile(
    r"(torchvision/)?(resnet|resnext|wide_resnet|densenet|efficientnet|mobilenet|googlenet|inception|shufflenet|squeezenet|mnasnet|regnet)"
)


def mostly_convolutions(arch: str) -> bool:
    """Whether the convolutions of a network are known, without building it, to hold a fifth of its weights or more."""
    return is_winnows(arch) or bool(_MOSTLY_CONVOLUTIONS.match(arch))


# networks without batch normalisation; of one's own nothing is known
_WITHOUT_BATCHES = re.compile(
    r"conv4|Conv4(Normal)?|(torchvision/)?(alexnet|vgg\d+|squeezenet.*|vit_.*|swin_.*|convnext_.*)"
)


def normalises_batches(arch: str) -> bool:
    """Whether a network is known, without building it, to normalise over batches."""
    return not own_models.is_own(arch) and not _WITHOUT_BATCHES.fullmatch(arch)
