"""The code stamp: narrow, and blind to comments, words and formatting."""

from __future__ import annotations

import shutil

import pytest

import winnow.fingerprint as fingerprint
from winnow.config.pruning import FOR_IMAGES, FOR_TEXTS, Prune, modules_of

CACHED = (fingerprint._locate, fingerprint._read, fingerprint.module_hash, fingerprint.stamps)


def jobs_of(method: str) -> dict[str, Prune]:
    """Jobs of the stage prune by name: the method over all layers, and like another ticket."""
    if method == "random":
        return {"random": Prune(method="random", remaining_percent=20), "random like": Prune(method="random")}
    return {method: Prune(method=method, remaining_percent=20)}


PRUNES = {name: job for method in FOR_IMAGES for name, job in jobs_of(method).items()}
TEXT = {"dataset": "embedded"}
PRUNES |= {
    f"{m} of texts": Prune.model_validate({"method": m, "remaining_percent": 20, "text": TEXT}) for m in FOR_TEXTS
}
LIGHT = {name for name in PRUNES if name.split()[0] not in ("snip", "grasp", "synflow", "wanda")}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the sources that may be edited; returns edit(module, change) -> stages, and jobs of prune, whose hash
    changed.
    """
    shutil.copytree(fingerprint.ROOT / "winnow", tmp_path / "winnow")
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    stages = [p.stem for p in (tmp_path / "winnow/stages").glob("[a-z]*.py") if p.stem != "prune"]

    def hashes():
        for cached in CACHED:
            cached.cache_clear()
        pruned = {name: fingerprint.source_hash("prune", modules_of(job)) for name, job in PRUNES.items()}
        return pruned | {s: fingerprint.source_hash(s) for s in stages}

    before = hashes()

    def edit(module, change):
        path = tmp_path / "winnow" / module
        old = path.read_text()
        path.write_text(change(old))
        assert path.read_text() != old
        return {s for s, h in hashes().items() if h != before[s]}

    yield edit
    for cached in CACHED:
        cached.cache_clear()


def test_a_comment_a_docstring_and_a_reformat_change_nothing(copy):
    assert copy("prune/counts.py", lambda t: t + "\n# a comment\n") == set()
    assert copy("prune/counts.py", lambda t: t.replace('"""', '"""Another word. ', 1)) == set()
    assert copy("prune/counts.py", lambda t: t.replace("count: int", "count:  int")) == set()


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (
            "config/parts.py",
            "peak learning rate",
            "highest learning rate",
        ),  # a description of a class of the configuration
        ("config/pruning.py", "rounds to run", "rounds that run"),  # and of one that computes
        ("stages/train.py", '"ticket; none', '"a ticket; none'),  # help of an argument
        ("prune/counts.py", 'WinnowError(f"', 'WinnowError(f"sorry: '),  # an error
        ("train/loop.py", 'log.info("', 'log.info("now '),  # the log
    ],
)
def test_words_change_nothing(copy, module, old, new):
    assert copy(module, lambda t: t.replace(old, new)) == set()


def test_a_key_that_is_added_or_bounded_counts_by_its_value_in_the_configuration_alone(copy):
    assert (
        copy("config/parts.py", lambda t: t.replace('key("number of steps", ge=1)', 'key("number of steps", ge=2)'))
        == set()
    )


@pytest.mark.parametrize("module", ["stage", "run", "launch", "store", "records", "errors", "schema", "fingerprint"])
def test_what_only_carries_counts_nowhere(copy, module):
    assert copy(f"{module}.py", lambda t: t + "\nX = 1\n") == set()


def test_what_only_a_type_checker_reads_counts_nowhere(copy):
    block = "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}\n"
    changed = copy("prune/lamp.py", lambda t: t + block.format("import winnow.vision.attack"))
    assert changed <= {"lamp", "lamp of texts"}  # the import of the name itself is code
    assert copy("vision/attack.py", lambda t: t + "\nX = 1\n").isdisjoint({"magnitude", "erk"})
    lamp = fingerprint.closure("winnow.prune.lamp")
    assert "winnow.vision.attack" not in lamp and "winnow.prune.counts" in lamp


def test_an_edit_of_pruning_reaches_what_prunes_and_no_training(copy):
    changed = copy("prune/counts.py", lambda t: t + "\nX = 1\n")
    assert {"magnitude", "lamp", "random", "erk", "smart_ratio", "snip"} <= changed
    assert not changed & {"pretrain", "train", "transfer", "evaluate", "double_win_table", "double_win_plots"}


def test_an_edit_of_one_method_reaches_no_other(copy):
    assert copy("prune/random_like.py", lambda t: t + "\nX = 1\n") == {"random like", "gem_sanity"}
    assert copy("prune/lamp.py", lambda t: t + "\nX = 1\n") == {"random like", "gem_sanity", "lamp", "lamp of texts"}


def test_another_method_in_the_table_reaches_nothing_that_runs_already(copy):
    assert copy("prune/methods.py", lambda t: t.replace('"lamp":', '"another": Method(),\n    "lamp":')) == set()


def test_an_edit_of_the_attack_reaches_what_attacks(copy):
    changed = copy("vision/attack.py", lambda t: t + "\nX = 1\n")
    assert {"pretrain", "train", "transfer", "evaluate"} <= changed
    assert not changed & {*LIGHT, "import_weights", "double_win_table", "finetune_text"}


def test_an_edit_of_a_task_s_training_reaches_no_cut_that_runs_no_model_nor_one_of_the_other_kind(copy):
    changed = copy("text/training.py", lambda t: t + "\nX = 1\n")
    assert {"finetune_text", "wanda of texts", "snip of texts"} <= changed
    assert not changed & {*LIGHT, "snip", "synflow", "transfer", "draw_ticket"}


def test_an_edit_of_a_stage_reaches_it_alone(copy):
    assert copy("stages/transfer.py", lambda t: t + "\nX = 1\n") == {"transfer"}


def test_an_edit_of_a_table_reaches_the_table_alone(copy):
    assert copy("pipelines/double_win/table.py", lambda t: t + "\nX = 1\n") == {"double_win_table"}


def test_an_edit_of_the_mask_search_reaches_the_search_alone(copy):
    assert copy("text/hard_concrete.py", lambda t: t + "\nX = 1\n") == {"search_robust_ticket"}


def test_an_edit_of_the_figures_style_reaches_no_table(copy):
    changed = copy("tables/figures.py", lambda t: t + "\nX = 1\n")
    assert changed == {f"{p}_plots" for p in ("double_win", "robust_bert", "rare_gems", "speed", "compare_tickets")}


def test_an_edit_of_the_ticket_format_reaches_all(copy):
    assert {"pretrain", "evaluate", *PRUNES} <= copy("ticket.py", lambda t: t + "\nX = 1\n")


def test_schema_of_the_whole_is_behind_no_trained_stage():
    for stage in ("pretrain", "train", "transfer", "evaluate", "prune"):
        assert not {"winnow.pipelines.double_win.config", "winnow.config.root"} & set(
            fingerprint.closure(f"winnow.stages.{stage}")
        )
