"""Names of architectures, known without importing torch: configurations are checked where only the workflow is installed."""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

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
EXAMPLES = ("resnet8", "resnet20", "resnet56", "wideresnet-28-2", "vgg16_cifar", "mobilenet_v2_cifar", "conv4")
_NO_CLASSIFIERS = ("detection", "segmentation", "optical_flow", "video", "quantization")


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


def unknown(arch: str) -> str | None:
    """Why no classifier has this name; None when one has, or when torchvision is not here to say."""
    kind, _, name = arch.partition(":")
    if kind in ("python", "timm", "hf") and name:
        return _foreign(kind, name)
    if OWN.fullmatch(arch) or arch in RELEASED or arch in torchvision_names() or not torchvision_names():
        return None
    return f"{arch!r} is no known architecture{nearest(arch, [*EXAMPLES, *RELEASED, *torchvision_names()])}"


def _foreign(kind: str, name: str) -> str | None:
    if kind == "timm":
        return (
            None if importlib.util.find_spec("timm") else f"timm:{name} needs the package timm; install it (pip install timm)"
        )
    if kind == "hf":
        folder = Path(name)
        there = (folder / "config.json").is_file() or (not folder.exists() and name.count("/") <= 1)
        return None if there else f"{name}: a folder without config.json; name one that holds a Hugging Face model"
    path, _, class_name = name.rpartition(":")
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        return f"python:{name}: {error}; give python:FILE.py:Class"
    names = [n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    return None if class_name in names else f"{path} has no class {class_name!r}{nearest(class_name, names)}"
