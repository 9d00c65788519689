"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference trajectories and data; tests that need it skip when it is not there."""
    root = Path(__file__).resolve().parent.parent
    options = [Path(p) for p in [os.environ.get("WINNOW_SHARED", "")] if p] + [
        root.parent / "shared",
        root.parent.parent / "shared",
    ]
    for folder in options:
        if (folder / "golden").is_dir():
            return folder
    pytest.skip(f"no reference data: none of {', '.join(map(str, options))} exists (set WINNOW_SHARED)")
