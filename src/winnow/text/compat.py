"""transformers and textattack, imported where their plain import fails: what is worked round here, and why."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from winnow.compat import repair_torchvision
from winnow.errors import WinnowError

PARTS = (
    "shared",
    "constraints",
    "transformations",
    "goal_functions",
    "search_methods",
    "attack_results",
    "attack",
    "models.wrappers.model_wrapper",
)


@cache
def transformers() -> Any:
    """transformers, quiet, and also beside a torchvision that does not import (transformers takes it in where it is
    installed).
    """
    repair_torchvision()
    module = importlib.import_module("transformers")
    module.utils.logging.set_verbosity_error()
    module.utils.logging.disable_progress_bar()
    return module


@cache
def textattack() -> Any:
    """The parts of textattack 0.3.11 that attacks need; whole, if it was imported before.

    `import textattack` itself fails without NLTK's stop words, which attacks with a list of their own do without: one
    of the modules that its `__init__` takes in (augmentation/recipes.py) reads them when it is imported. The parts are
    therefore imported one by one, and the package's `__init__` is not run.

    The first import tries six NLTK downloads, prints an error for each without a network, and leaves a file to say that
    it has been done (shared/utils/install.py); the file is put there first.
    """
    if "textattack" in sys.modules:
        return sys.modules["textattack"]
    transformers()
    spec = importlib.util.find_spec("textattack")
    if spec is None:
        raise WinnowError("textattack is not installed; install the text requirements (envs/text.yaml)")
    folder = Path(os.environ.get("TA_CACHE_DIR", Path("~/.cache/textattack").expanduser()))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "post_install_check_3").touch()
    package = importlib.util.module_from_spec(spec)
    sys.modules["textattack"] = package
    try:
        with _environment_and_loggers_kept():
            for part in PARTS:
                importlib.import_module(f"textattack.{part}")
    except BaseException:
        del sys.modules["textattack"]
        raise
    logging.getLogger("textattack.shared.utils.install").setLevel(logging.WARNING)
    return package


@contextmanager
def _environment_and_loggers_kept() -> Iterator[None]:
    """Within: textattack may be imported. TA_CACHE_DIR, where it is set, overrides HF_HOME and the caches of other
    packages, and a logging.config.dictConfig call disables every logger that exists (shared/utils/install.py); both are
    put back.
    """
    saved = {
        k: os.environ.get(k) for k in ("HF_HOME", "XDG_CACHE_HOME", "TFHUB_CACHE_DIR", "PYTORCH_TRANSFORMERS_CACHE")
    }
    enabled = [x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger) and not x.disabled]
    try:
        yield
    finally:
        for logger in enabled:
            logger.disabled = False
        for key, value in saved.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})


def attention(kind: Any) -> str:
    """The attention of a model class: torch's own wherever the class has it, whatever faster packages are installed."""
    return "sdpa" if kind._supports_sdpa else "eager"


def local_model(kind: str, folder: Path) -> tuple[Any, Any]:
    """A model of transformers class `kind` and its tokenizer from a local folder; WinnowError when they do not load."""
    module = transformers()
    try:
        # code in the folder is neither run nor asked about
        settings = {"local_files_only": True, "trust_remote_code": False}
        model = getattr(module, kind).from_pretrained(folder, dtype="float32", **settings)
        return model, module.AutoTokenizer.from_pretrained(folder, use_fast=True, **settings)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WinnowError(f"{folder}: does not load as {kind} ({reason}); give a complete model folder") from None
