"""Print the tables of a folder in a terminal's width: `python -m winnow.tables.show results/tables`."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

COLUMNS = {
    "double_win": [
        "pretraining", "imp_regime", "method", "removed_percent", "dataset", "fraction", "seeds",
        "std_sa_mean", "std_ra_mean", "adv_sa_mean", "adv_ra_mean", "adv_aa_mean", "double_win", "double_win_margin_se",
    ],
    "robust_bert": [
        "task", "method", "removed_percent", "search_epoch", "attacker", "attacked", "seeds",
        "clean_percent", "aua_percent", "suc_percent", "mean_queries", "perturbed_percent",
    ],
    "rare_gems": [
        "dataset", "arch", "branch", "algo", "target_remaining_percent", "remaining_percent", "seeds", "acc_before",
        "acc_after_mean", "acc_after_std", "reinit_acc", "shuffle_acc", "invert_acc", "is_gem",
        "is_gem_margin_se",
    ],
}  # fmt: skip


def show(path: Path) -> str:
    """The table's main columns as text, a line a row, numbers with one decimal."""
    rows = pd.read_csv(path)
    chosen = [c for c in COLUMNS.get(path.stem, list(rows)) if c in rows]
    text = rows[chosen].to_string(index=False, float_format=lambda v: f"{v:.1f}", na_rep="-")
    return f"{path} ({len(rows)} rows, {rows.shape[1]} columns)\n{text}\n"


def main(arguments: list[str]) -> int:
    """Print each CSV of the folders or files given."""
    for argument in map(Path, arguments or ["results/tables"]):
        for path in sorted(argument.glob("*.csv")) if argument.is_dir() else [argument]:
            print(show(path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
