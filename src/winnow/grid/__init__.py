"""What each pipeline runs: which jobs there are, where their artifacts lie, and the configuration that each one gets."""

from __future__ import annotations

from typing import Any


def named(items: list[Any], name: str) -> Any:
    """The item of that name."""
    return next(i for i in items if i.name == name)


def percent(fraction: float) -> str:
    """0.1 -> '10', as in paths."""
    return f"{100 * fraction:g}"
