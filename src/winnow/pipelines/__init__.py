"""A folder a pipeline: configuration, jobs, paths, table and figure of one paper.

`NAMES` is the one registration: the root of the configuration, the Snakefile, `make plan`, tables and the report ask
it.
"""

from __future__ import annotations

import importlib
from typing import Any

NAMES = ("double_win", "robust_bert", "rare_gems")


def grid(name: str) -> Any:
    """The module that says what a pipeline runs: targets(section), table_inputs(section), jobs, paths."""
    return importlib.import_module(f"winnow.pipelines.{name}.grid")


def named(items: list[Any], name: str) -> Any:
    """The item of that name."""
    return next(i for i in items if i.name == name)


def percent(fraction: float) -> str:
    """0.1 -> '10', as in paths."""
    return f"{100 * fraction:g}"
