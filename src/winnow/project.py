"""Where the workflow lies that belongs to this library: the checkout, or what an installation brought along."""

from __future__ import annotations

import sys
from pathlib import Path

from winnow.errors import WinnowError

CHECKOUT = Path(__file__).resolve().parents[2]
INSTALLED = Path(sys.prefix) / "share/winnow"
ROOT = CHECKOUT if (CHECKOUT / "Snakefile").is_file() else INSTALLED


def workflow() -> Path:
    """The folder with Snakefile, workflow/, config/, profiles/ and envs/. Raises WinnowError when there is none."""
    if (ROOT / "Snakefile").is_file():
        return ROOT
    raise WinnowError(
        f"{INSTALLED}: the workflow is not there; install winnow again, or run from a checkout (pip install -e .)"
    )
