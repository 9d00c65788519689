"""Architectures from outside winnow, known without importing torch: a class in a file, timm's and Hugging Face's
classifiers.

    python:nets/small.py:SmallNet    a class or function of a file that takes the number of classes
    timm:vit_tiny_patch16_224        by timm's name
    hf:nets/convnext                 a folder with a config.json; or the id of one that was fetched before

`unknown` says why an architecture cannot be built, `code_of` is what decides its result besides its name and options.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
from functools import cache
from pathlib import Path

from winnow.errors import WinnowError, nearest
from winnow.fingerprint import meaning
from winnow.outside import read_bytes

KINDS = ("python:", "timm:", "hf:")
LARGEST_CODE = 16 << 20  # bytes of one file of code, or of a config.json
_TIMM_NAME = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def is_own(arch: str) -> bool:
    """Whether an architecture comes from outside winnow and torchvision."""
    return arch.startswith(KINDS)


def unknown(arch: str) -> str | None:
    """Why this cannot be built, in one line that says how to mend it; None when it can, as far as can be told without
    building.
    """
    kind, _, name = arch.partition(":")
    try:
        if kind == "python":
            return _no_class(*python_parts(arch))
        return _not_in_timm(name.partition(".")[0]) if kind == "timm" else _not_in_transformers(name)
    except WinnowError as error:
        return str(error)


def python_parts(arch: str) -> tuple[Path, str]:
    """The file and the name in it of `python:path/file.py:Class`; WinnowError for anything else."""
    kind, _, rest = arch.partition(":")
    file, _, name = rest.rpartition(":")
    if kind != "python" or not file.endswith(".py") or not name.isidentifier():
        raise WinnowError(f"{arch!r} is not python:path/file.py:Class")
    return Path(file), name


def code_of(arch: str) -> str | None:
    """16 hex digits over the code of a `python:` class or the config.json of an `hf:` folder; None where there is none
    at hand.

    Of a class count its file and the modules beside it that it imports, without comments and docstrings.
    """
    kind, _, name = arch.partition(":")
    if kind == "hf" and (file := Path(name) / "config.json").is_file():
        return _digest(read_bytes(file, LARGEST_CODE))
    if kind != "python":
        return None
    file, _ = python_parts(arch)
    if not file.is_file():
        return None
    return _digest("\n".join(f"{name} {_meaning(path)}" for name, path in sorted(modules(file).items())).encode())


def modules(file: Path) -> dict[str, Path]:
    """The files that count for a class in `file`, by name relative to its root: itself, and what it imports from beside
    it.
    """
    root, found, waiting = root_of(file), {}, [file.resolve()]
    while waiting:
        path = waiting.pop()
        if not path.is_file():
            continue  # a package without __init__.py
        name = path.relative_to(root).as_posix()
        if name in found:
            continue
        found[name] = path
        waiting += [p for p in map(_file_of, _imported(path, root)) if p is not None]
        waiting += [p / "__init__.py" for p in path.parents if p != root and p.is_relative_to(root)]
    return found


def root_of(file: Path) -> Path:
    """The folder from which the file's imports are found: its own, or that which holds its outermost package."""
    folder = file.resolve().parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(read_bytes(path, LARGEST_CODE))
    except (SyntaxError, ValueError) as error:
        raise WinnowError(f"{path}: is no Python ({error})") from None


def _meaning(path: Path) -> str:
    _tree(path)
    return meaning(read_bytes(path, LARGEST_CODE).decode("utf-8"))


def _file_of(base: Path) -> Path | None:
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _imported(path: Path, root: Path) -> list[Path]:
    """Where the modules that `path` imports would lie below `root`, without ending."""
    bases: list[Path] = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            bases += [root.joinpath(*alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = path.parents[node.level - 1] if node.level else root
            base = start.joinpath(*(node.module or "").split(".")) if node.module else start
            bases += [base, *(base / alias.name for alias in node.names)]
    return [b for b in bases if b != root and b.is_relative_to(root)]


def _no_class(file: Path, name: str) -> str | None:
    if not file.is_file():
        return f"{file}: no such file; correct the path, which counts from the working folder"
    named: set[str] = set()
    for node in _tree(file).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            named.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            named |= {a.asname or a.name for a in node.names}
        elif isinstance(node, ast.Assign):
            named |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return None if name in named else f"{file}: holds no class {name!r}{nearest(name, named)}"


@cache
def timm_names() -> frozenset[str]:
    """timm's classifiers by name, read from its sources; empty where it is not installed."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return frozenset()
    files = Path(spec.origin).with_name("models").glob("*.py")
    return frozenset(name for f in files for name in _TIMM_NAME.findall(f.read_text(encoding="utf-8")))


def _not_in_timm(name: str) -> str | None:
    if not timm_names():
        return "timm is not installed; pip install timm"
    return None if name in timm_names() else f"timm has no {name!r}{nearest(name, timm_names())}"


@cache
def transformers_types() -> frozenset[str]:
    """Values of `model_type` that have an image classifier in transformers, read from its sources; empty without
    transformers.
    """
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        return frozenset()
    tree = ast.parse(Path(spec.origin).parent.joinpath("models/auto/modeling_auto.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"
        ):
            pairs = next((n for n in ast.walk(node.value) if isinstance(n, ast.List)), ast.List([]))
            return frozenset(str(ast.literal_eval(p.elts[0])) for p in pairs.elts if isinstance(p, ast.Tuple))
    return frozenset()


def _not_in_transformers(name: str) -> str | None:
    types = transformers_types()
    if not types:
        return "transformers is not installed; pip install 'winnow[text]'"
    folder = Path(name)
    if not folder.is_dir():
        return None if _HUB_ID.fullmatch(name) else f"hf: {name!r} is neither a folder nor the id of a model"
    try:
        kind = json.loads(read_bytes(folder / "config.json", LARGEST_CODE)).get("model_type")
    except (ValueError, AttributeError):
        return f"{folder / 'config.json'}: holds no configuration of a model"
    return None if kind in types else f"{folder}: model_type {kind!r} classifies no images{nearest(str(kind), types)}"
