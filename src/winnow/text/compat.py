"""Shims for transformers and textattack; apart from the vision shims, so that an edit here leaves the vision stages fresh."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import logging
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from winnow.errors import WinnowError


class _Absent:
    """Within: packages that are installed but not yet imported look absent, so optional imports of them are passed over."""

    def __init__(self, *names: str):
        self.names = [n for n in names if n not in sys.modules]

    def __enter__(self) -> None:
        sys.modules.update(dict.fromkeys(self.names))  # type: ignore[arg-type]

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            sys.modules.pop(name, None)


class _DeferredIndexMode:
    """torch's TransformGetItemToIndex, imported when one is made; importing its module takes in the whole compiler."""

    def __new__(cls) -> Any:
        from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

        return TransformGetItemToIndex()


@contextmanager
def _without_compiler_and_shards() -> Iterator[None]:
    """Within: imports leave out torch._dynamo (wanted for flex attention) and torch.distributed.tensor (for sharded models).

    Both come in as usual when something asks for them later. transformers 5 uses more of the compiler while it is imported, so
    it gets the whole of it and takes seconds longer.
    """
    import torch

    if "torch._dynamo" in sys.modules or not importlib.metadata.version("transformers").startswith("4."):
        yield
        return
    compiler = types.ModuleType("torch._dynamo")
    compiler.disable = lambda fn=None, *_, **__: fn or (lambda f: f)  # type: ignore[attr-defined]
    compiler.allow_in_graph = lambda fn: fn  # type: ignore[attr-defined]
    masks = types.ModuleType("torch._dynamo._trace_wrapped_higher_order_op")
    masks.TransformGetItemToIndex = _DeferredIndexMode  # type: ignore[attr-defined]
    available = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    sys.modules.update({m.__name__: m for m in (compiler, masks)})
    try:
        yield
    finally:
        torch.distributed.is_available = available
        vars(torch).pop("_dynamo", None)
        for module in (compiler, masks):
            del sys.modules[module.__name__]


@cache
def transformers() -> Any:
    """transformers, imported in under a second beside torch's own time instead of 5, and whatever torchvision's state.

    `import transformers` takes in scikit-learn, SciPy, pandas, accelerate and torchvision when they are installed, torch's
    compiler and its sharded tensors, all for features that winnow never touches; a torchvision built for CUDA makes it fail
    on a CPU-only torch (see `torchvision`).
    """
    absent = _Absent("sklearn", "scipy", "pandas", "accelerate", "torchvision", "matplotlib", "flax", "tensorflow")
    with absent, _without_compiler_and_shards():
        module = importlib.import_module("transformers")
        importlib.import_module("transformers.models.bert.modeling_bert")
        importlib.import_module("transformers.models.bert.tokenization_bert")
        for name in ("AutoModelForSequenceClassification", "AutoTokenizer", "AutoModel"):
            getattr(module, name)
    logging = module.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return module


class _PlaceholderClass(type):
    """Classes whose every attribute is again such a class: enough for module-level code and base-class lists."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _PlaceholderClass(name, (), {})


class _Placeholder(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _PlaceholderClass(name, (), {})
        setattr(self, name, value)
        return value


class _Placeholders(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import hook that stands in for packages which textattack imports at module level and winnow's attacks never call."""

    roots = frozenset(
        [
            "flair",
            "language_tool_python",
            "bert_score",
            "datasets",
            "lemminflect",
            "num2words",
            "pinyin",
            "OpenHowNet",
            "wandb",
            "terminaltables",
            "pandas",
            "scipy",
        ]
    )

    def __init__(self) -> None:
        self.made: list[str] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        root = name.partition(".")[0]
        if root in self.roots and isinstance(sys.modules.get(root), _Placeholder | None):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None  # unknown, or the real package is in use already

    def create_module(self, spec: Any) -> types.ModuleType:
        self.made.append(spec.name)
        return _Placeholder(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


@cache
def textattack() -> Any:
    """textattack 0.3.11's attack machinery in 2.5 s instead of 12, without its download attempts.

    Several things are worked round. `import textattack` takes in every dataset, trainer and logger it has, and with them
    flair, datasets, language-tool and more (QData/TextAttack issue 717 and others on start-up time): here the package's
    `__init__` is passed over, the parts that attacks need are imported, and unused packages are stood in for while that
    happens. On first import it tries six NLTK downloads and prints an error for each when offline: its own marker file is put
    into the cache folder first. TA_CACHE_DIR, if set, overrides HF_HOME, which is put back; so are the loggers that its
    logging.config.dictConfig call disables.
    """
    transformers()
    folder = Path(os.environ.get("TA_CACHE_DIR", Path("~/.cache/textattack").expanduser()))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "post_install_check_3").touch()
    spec = importlib.util.find_spec("textattack")
    if spec is None:
        raise WinnowError("textattack is not installed; install the text requirements (envs/text.yaml)")
    package = types.ModuleType("textattack")
    package.__path__ = list(spec.submodule_search_locations or [])
    package.__spec__ = spec
    package.__file__ = spec.origin
    sys.modules["textattack"] = package
    saved = {k: os.environ.get(k) for k in ("HF_HOME", "XDG_CACHE_HOME", "TFHUB_CACHE_DIR", "PYTORCH_TRANSFORMERS_CACHE")}
    silenced = [x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger) and not x.disabled]
    finder = _Placeholders()
    sys.meta_path.insert(0, finder)
    try:
        with _Absent("sklearn", "accelerate", "torchvision", "matplotlib"):
            parts = ("shared", "constraints", "transformations", "goal_functions", "search_methods", "attack_results", "attack")
            for part in (*parts, "models.wrappers.model_wrapper"):
                importlib.import_module(f"textattack.{part}")
    finally:
        sys.meta_path.remove(finder)
        for name in finder.made:
            if isinstance(sys.modules.get(name), _Placeholder):
                del sys.modules[name]
        for logger in silenced:
            logger.disabled = False
        for key, value in saved.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})
    logging.getLogger("textattack.shared.utils.install").setLevel(logging.WARNING)
    package.Attack = sys.modules["textattack.attack"].Attack  # type: ignore[attr-defined]
    return package


def attention(kind: Any) -> str:
    """The attention of a model class: torch's own wherever the class has it, whatever faster packages are installed."""
    return "sdpa" if kind._supports_sdpa else "eager"


def local_model(kind: str, folder: Path) -> tuple[Any, Any]:
    """A model of transformers class `kind` and its tokenizer from a local folder; WinnowError when they do not load."""
    module = transformers()
    try:
        settings = {"local_files_only": True, "trust_remote_code": False}  # code in the folder is neither run nor asked about
        model = getattr(module, kind).from_pretrained(folder, dtype="float32", **settings)
        return model, module.AutoTokenizer.from_pretrained(folder, use_fast=True, **settings)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WinnowError(f"{folder}: does not load as {kind} ({reason}); give a complete model folder") from None
