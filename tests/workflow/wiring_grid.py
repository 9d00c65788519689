"""What wiring.yaml spans: its runs by name, and where their figures lie."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT

CONFIG = yaml.safe_load((ROOT / "tests/workflow/wiring.yaml").read_text())
SEEDS, TASKS = (3, 5), {"few": (100, 50), "many": (50,)}
TICKETS = {
    "plain": ["dense", "imp-std-2", "omp-2", "random-std-2"],
    "fast": ["dense", "imp-std-2", "imp-adv-2"],
    "pgd": ["dense"],
    "imported": ["dense", "extra-released"],
}
NETWORKS = ["dense", "freelb", *(f"{t}-{p}" for p in (30, 60) for t in ("robust-1", "robust-2", "random", "magnitude"))]
DRAWN = ["gem", "popup", "warm_gem", "random", "smart", "snip", "grasp", "synflow"]


def transfers() -> set[tuple[str, int, str, int, str, str]]:
    return {
        (p, s, d, f, t, mode)
        for p, tickets in TICKETS.items()
        for s, d, mode, t in product(SEEDS, TASKS, ("std", "adv"), tickets)
        for f in TASKS[d]
    }


def transfer_folder(p: str, s: int, d: str, f: int, t: str, mode: str) -> str:
    return f"results/double_win/src/{p}/s{s}/transfer/{d}/{f}/{t}/{mode}/s{s}"


def figures(wired: Path, path: str) -> dict[str, Any]:
    return json.loads((wired / path).read_text())
