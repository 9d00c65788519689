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
COUNTS = "### The released configurations"  # a table of its own kind
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in re.sub(rf"{COUNTS}.*?(?=\n## )", "", PAGE, flags=re.DOTALL).splitlines()
    if re.match(r"\| (?!released code)", line)
]
MEASURED = {  # number -> words that a row of it must hold, one an item of what was measured
    1: ["kaiming_uniform (a = sqrt 5)"], 2: ["fine-tuned at 0.1 (0.2", "signed_constant"],
    3: ["batch 256, weight decay 5e-4", "scaled fans"],
    4: ["7x7 stem", "1,000 outputs", "never hard-pruned", "batch 256"],
    5: ["2,261,824", "ReLU"], 6: ["bias_flag", "mask_scores", "best_acc1"], 7: ["rate starts at p"],
    8: ["running statistics", "adversarial IMP"], 9: ["not frozen"], 10: ["count from 0"], 11: ["not clipped"],
    12: ["target's mean and std"], 13: ["flipped"], 14: ["uniform over all", "last epoch"],
    15: ["its own epochs, rate, batch and decay"], 16: ["Adam 0.01, 200 epochs, period 20", "targets 2 and 5"],
    17: ["plain resize to 224", "dropout 0.4", "without bias"], 18: ["`--init`"], 19: ["own list"],
    20: ["0.2023", "PGD-20", "1 - prune_rate", "keeps all of train", "FixThresholding", "entropy", "short texts",
         "unflag_before_finetune"],
}  # fmt: skip
TRAPS = {  # file of the papers' facts -> its traps, in words of a row
    "double_win": [
        "epoch 0 is stored as best", "`--seed 0`", "non-strictly", "first N images", "native-32", "clean validation",
        "pixel space",
    ],
    "rare_gems": ["`val_loader` is the test set"],
    "robust_bert": [
        "counts 3 a batch", "token types", "sweep's `epoch`", "not BERT-Attack", "there are 872", "another length",
        "AdamW is gone",
    ],
}  # fmt: skip
BEYOND = [  # what the papers compare with, and other facts of the released code
    "`prune_rate` is the fraction kept", "`weight_decay` in a file is not read", "`hc` without `hc_quantized`",
    "A run of 6 epochs", "sanity-only", "Sanity checks of IMP", "10 % of all masked weights", "Edge-popup beside every network",
    "0.59 %", "Warm gems", "VisDA-2017", "`out_w_per_mask`", "after epochs of their retraining", "names none",
    "two pre-norm blocks", "constant rate in the search", "the embedding trains along", "the vocabulary counts words",
]  # fmt: skip


def test_every_known_difference_has_its_row():
    numbered: dict[int, str] = {}
    for row in ROWS:
        if m := re.match(r"\|? ?(\d+)\.", row[0]):
            numbered[int(m[1])] = numbered.get(int(m[1]), "") + row[0]
    assert set(numbered) == set(MEASURED) == set(range(1, 21))
    assert [(n, w) for n, words in MEASURED.items() for w in words if w not in numbered[n]] == []
    assert all(len(row) == 4 and all(row) for row in ROWS)


def test_every_trap_and_comparison_has_its_row():
    traps = [row[0] for row in ROWS if "Trap:" in row[0]]
    assert [w for words in TRAPS.values() for w in words if sum(w in t for t in traps) != 1] == []
    assert len(traps) == sum(map(len, TRAPS.values()))
    assert [w for w in BEYOND if sum(w in row[0] for row in ROWS) != 1] == []


def test_the_traps_are_those_of_the_papers_facts(shared):
    """The bullets of methods/*.md; two of them are two rows each."""
    for name, words in TRAPS.items():
        text = (shared / f"methods/{name}.md").read_text().partition("## Traps")[2]
        bullets = [line for line in text.splitlines() if line.startswith("- ")] or [text.strip()]
        assert sum(1 + any(w in b for w in ("non-strictly", "872")) for b in bullets) == len(words), name


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


def test_the_demo_s_edge_popup_is_the_chosen_trial():
    """docs/results/digits_edge_popup.md: nine trials for each start of the scores, on the demo's own task."""
    demo, trials = (
        load_files([ROOT / "config" / name], {})[0].rare_gems.experiments[0]
        for name in ("config.yaml", "examples/digits_edge_popup.yaml")
    )
    branches = {b.name: b for b in trials.branches}
    assert [sum(n.startswith(start) for n in branches) for start in ("released", "uniform")] == [9, 9]
    ours, chosen = next(b for b in demo.branches if b.algo == "ep"), branches["released_1.0_1e_3"]
    assert (ours.search.regularization, ours.search.lmbda) == (chosen.search.regularization, chosen.search.lmbda)
    assert ours.train == chosen.train and (ours.finetune or demo.finetune) == (chosen.finetune or trials.finetune)
    assert ours.search.score_init in (None, chosen.search.score_init) and demo.model == trials.model
