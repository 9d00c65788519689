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


def table_parents() -> dict[str, set[str]]:
    """Everything that each table is made of: every run, and nothing else."""
    evaluations = {f"{transfer_folder(*run)}/evaluation.json" for run in transfers()}
    evaluations |= {
        f"{transfer_folder(*run)}/autoattack.json" for run in transfers() if run[2] == "many" and run[5] == "adv"
    }
    masks = {
        f"results/double_win/src/{p}/s{s}/tickets/{t}.mask.safetensors"
        for p, tickets in TICKETS.items()
        for t, s in product(tickets, SEEDS)
        if t != "dense"
    }
    text = [f"results/robust_bert/tiny_bert/{t}/s{s}" for t, s in product(("short", "long"), SEEDS)]
    attacks = {f"{folder}/attacks/{a}/{n}.json" for folder, a, n in product(text, ("fooler", "pwws"), NETWORKS)}
    drawn = {f"{folder}/tickets/{n}.mask.safetensors" for folder, n in product(text, NETWORKS) if "-" in n}
    one = {f"results/rare_gems/one/{b}/s{s}/tuned/{t}.json" for b, s, t in product(DRAWN, SEEDS, (40, 15))}
    checked = ("gem", "popup", "warm", "renda")
    one |= {f"results/rare_gems/one/{b}/s{s}/sanity/{t}.json" for b, s, t in product(checked, SEEDS, (40, 15))}
    one |= {
        f"results/rare_gems/one/{b}/s{s}/imp/round{k}.json"
        for b, s, k in product(("warm", "cold", "renda"), SEEDS, (1, 2))
    }
    one |= {f"results/rare_gems/one/dense/s{s}/imp/round0.json" for s in SEEDS}
    two = {f"results/rare_gems/two/random/s{s}/tuned/25.json" for s in SEEDS}
    return {"double_win": evaluations | masks, "robust_bert": attacks | drawn, "rare_gems": one | two}
