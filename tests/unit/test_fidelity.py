"""docs/fidelity.md names options and tests that exist, and every row and trap that is known; the papers' overlays set
what it says.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from winnow.config.document import classes
from winnow.config.root import Root, load_files

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/fidelity.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if re.match(r"\| (?!released code)", line)
]


def test_every_known_difference_has_its_row():
    numbered = {int(m[1]) for row in ROWS if (m := re.match(r"\|? ?(\d+)\.", row[0]))}
    assert numbered == set(range(1, 21))
    assert sum("Trap:" in row[0] for row in ROWS) == 15
    assert all(len(row) == 4 and all(row) for row in ROWS)


def test_every_option_exists():
    fields = {f"{cls.__name__}.{name}" for cls in classes(Root) for name in cls.model_fields}
    named = {n for row in ROWS for n in re.findall(r"`([A-Z]\w+\.\w+)`", row[2])}
    assert len(named) > 30 and named <= fields, named - fields
    assert all("`" in row[2] or row[2] == "none needed" for row in ROWS)


def test_every_test_exists():
    known: dict[str, set[str]] = {}
    for row in ROWS:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[3])
        assert named, row[0]
        for file, name in named:
            if file not in known:
                tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
                known[file] = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
            assert name in known[file], f"{file}::{name}"


@pytest.mark.parametrize("name", ["double_win.yaml", "double_win_imported.yaml"])
def test_the_papers_overlays_set_the_released_behaviour(name):
    files = {"check_data": False}
    double_win = load_files([ROOT / "config/paper" / name], files)[0].double_win
    statistics = {d.name: d.normalisation.std for d in double_win.downstreams}
    assert statistics == {
        "cifar10": [0.2470, 0.2435, 0.2616],
        "cifar100": [0.2675, 0.2565, 0.2761],
        "svhn": [0.1201, 0.1231, 0.1052],
    }
    for task in double_win.downstreams:
        assert task.data.flip and task.attack.batch_statistics and not task.evaluation.attack.batch_statistics
        assert (task.selection_attack.steps, task.selection_attack.step_size) == (20, pytest.approx(2 / 255))
    assert double_win.imp.attack.batch_statistics and (double_win.imp.attack.steps, double_win.imp.ranked) == (
        3,
        "last",
    )
    methods = [p.method for p in double_win.pretrainings]
    assert methods == (["import"] * 3 if "imported" in name else ["import", "fast_adv", "adv"])
    bert = load_files([ROOT / "config/paper/robust_bert.yaml"], files)[0].robust_bert
    for task in bert.tasks:
        assert task.search_epochs == [14, 16, 18, 20] and not task.search_frozen
        assert task.finetune.clip_norm is task.retrain.clip_norm is None and task.search.clip_norm == 1.0
        assert task.retrain.epochs == 10 and task.data.val_fraction == (0 if task.name == "sst2" else 0.1)
    attacks = {a.name: a.attack for a in bert.attackers}
    assert attacks["textfooler"].stopwords == "recipe" and not attacks["bertattack"].skip_short_texts
