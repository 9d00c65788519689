"""The library that users import is no part of what stages run: their code stamps do not follow what type checkers
read.
"""

from __future__ import annotations

import ast

import pytest

from winnow.fingerprint import _AtRunTime, _imports, closure, meaning

LIBRARY = "winnow.api"


def imported(code: str) -> set[str]:
    return _imports(_AtRunTime().visit(ast.parse(code)), "winnow.x", False)


@pytest.mark.parametrize("stage", ["prune", "transfer", "evaluate", "gem_search", "attack_text", "double_win_table"])
def test_no_stage_depends_on_the_functions_for_users(stage):
    assert LIBRARY not in closure(f"winnow.stages.{stage}") and closure(LIBRARY).count(LIBRARY) == 1


def test_what_only_type_checkers_read_counts_nowhere():
    code = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from winnow.api import pgd\nfrom winnow.rng import seed_of\n"
    assert imported(code) == {"winnow.rng", "winnow.rng.seed_of"}
    assert meaning(code) == meaning(code.replace("pgd", "imp")) != meaning(code.replace("seed_of", "other"))
    runs = "if TYPE_CHECKING:\n    pass\nelse:\n    from winnow.rng import seed_of\n"
    assert imported(runs) == {"winnow.rng", "winnow.rng.seed_of"}
