"""The code stamp: narrow, and blind to comments, docstrings and formatting."""

from __future__ import annotations

import shutil

import pytest

import winnow.fingerprint as fingerprint


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the sources that may be edited; returns edit(module, old, new) -> stages whose hash changed."""
    shutil.copytree(fingerprint.ROOT / "winnow", tmp_path / "winnow")
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    stages = [p.stem for p in (tmp_path / "winnow/stages").glob("[a-z]*.py")]

    def hashes():
        for cached in (fingerprint._locate, fingerprint._read, fingerprint.source_hash):
            cached.cache_clear()
        return {s: fingerprint.source_hash(s) for s in stages}

    before = hashes()

    def edit(module, change):
        path = tmp_path / "winnow" / module
        path.write_text(change(path.read_text()))
        return {s for s, h in hashes().items() if h != before[s]}

    yield edit
    for cached in (fingerprint._locate, fingerprint._read, fingerprint.source_hash):
        cached.cache_clear()


def test_a_comment_a_docstring_and_a_reformat_change_nothing(copy):
    assert copy("prune/counts.py", lambda t: t + "\n# a comment\n") == set()
    assert copy("prune/counts.py", lambda t: t.replace('"""', '"""Another word. ', 1)) == set()
    assert copy("prune/counts.py", lambda t: t.replace("count: int", "count:  int")) == set()


def test_an_edit_of_pruning_reaches_what_prunes_and_no_training(copy):
    changed = copy("prune/counts.py", lambda t: t + "\nX = 1\n")
    assert {"imp_prune", "one_shot_prune", "smart_ratio"} <= changed
    assert not changed & {"pretrain", "imp_train", "transfer", "evaluate", "double_win_table", "double_win_plots"}


def test_an_edit_of_one_method_reaches_no_other(copy):
    assert copy("prune/random_like.py", lambda t: t + "\nX = 1\n") == {"random_prune", "random_ticket", "gem_sanity"}


def test_another_method_in_the_table_reaches_nothing_that_runs_already(copy):
    assert copy("prune/methods.py", lambda t: t.replace('"lamp":', '"another": Method(),\n    "lamp":')) == set()


def test_an_edit_of_the_attack_reaches_what_attacks(copy):
    changed = copy("vision/attack.py", lambda t: t + "\nX = 1\n")
    assert {"pretrain", "imp_train", "transfer", "evaluate"} <= changed
    assert not changed & {"imp_prune", "random_prune", "import_weights", "double_win_table"}


def test_an_edit_of_a_stage_reaches_it_alone(copy):
    assert copy("stages/transfer.py", lambda t: t + "\nX = 1\n") == {"transfer"}


def test_an_edit_of_a_table_reaches_the_table_alone(copy):
    assert copy("tables/double_win.py", lambda t: t + "\nX = 1\n") == {"double_win_table"}


def test_an_edit_of_the_mask_search_reaches_the_search_alone(copy):
    assert copy("text/hard_concrete.py", lambda t: t + "\nX = 1\n") == {"search_robust_ticket"}


def test_an_edit_of_the_figures_style_reaches_no_table(copy):
    changed = copy("tables/figures.py", lambda t: t + "\nX = 1\n")
    assert changed == {"double_win_plots", "robust_bert_plots", "rare_gems_plots"}


def test_an_edit_of_the_ticket_format_reaches_all(copy):
    assert {"pretrain", "imp_prune", "evaluate"} <= copy("ticket.py", lambda t: t + "\nX = 1\n")


def test_schema_of_the_whole_is_behind_no_trained_stage():
    for stage in ("pretrain", "imp_train", "transfer", "evaluate", "imp_prune"):
        assert not {"winnow.config.double_win", "winnow.config.root"} & set(fingerprint.closure(f"winnow.stages.{stage}"))
