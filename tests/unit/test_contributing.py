"""CONTRIBUTING.md's lists of files are true: what is named exists, and nothing else has to know."""

from __future__ import annotations

import ast
import re

import pytest
from conftest import ROOT

from winnow.pipelines import NAMES
from winnow.prune.methods import METHODS

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SOURCES = ROOT / "src/winnow"


def listed(what: str) -> set[str]:
    """Paths in the list under a bold word."""
    part = TEXT[TEXT.index(f"**{what}**") :]
    lines = re.findall(r"^- (.*)$", part[: part.index("\n\n", part.index("\n- "))], flags=re.M)
    return {p for line in lines for p in re.findall(r"`([\w./<>-]+)`", line.partition(":")[0]) if "/" in p or "." in p}


def knowing(word: str) -> set[str]:
    """Source files in whose code (not in docstrings and comments) the word stands as a text of its own or in an
    import.
    """
    found = set()
    for file in SOURCES.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        imports = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
        if word in texts or word in imports:
            found.add(file.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize("what", ["A pruning method", "An image data set", "A text attack", "A pipeline"])
def test_what_is_named_exists(what):
    paths = listed(what)
    assert len(paths) >= 3
    for path in paths:
        for name in ("rare_gems",) if what == "A pipeline" else ("lamp",):
            assert (ROOT / path.replace("<name>", name)).exists(), path


@pytest.mark.parametrize("method", ["erk", "lamp", "wanda"])
def test_nothing_else_knows_a_pruning_method(method):
    own = f"src/winnow/prune/{method}.py"
    assert method in METHODS and (ROOT / own).is_file()
    assert knowing(method) - {own} == {"src/winnow/prune/methods.py"} <= listed("A pruning method")


def test_nothing_else_knows_an_image_data_set():
    assert knowing("svhn") == {p for p in listed("An image data set") if p.endswith(".py")}


def test_nothing_else_knows_a_text_attack():
    assert knowing("deepwordbug") <= listed("A text attack")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_knows_a_pipeline(name):
    own = {f"src/winnow/stages/{name}_table.py", f"src/winnow/stages/{name}_plots.py"}
    others = {p for p in knowing(name) - own if not p.startswith(f"src/winnow/pipelines/{name}/")}
    assert others <= {"src/winnow/pipelines/__init__.py", "src/winnow/config/root.py", "src/winnow/tables/show.py",
                      "src/winnow/tables/page.py", "src/winnow/prune/methods.py", "src/winnow/interchange/writing.py",
                      "src/winnow/config/jobs.py", "src/winnow/config/refusals.py", "src/winnow/survive.py"}, others  # fmt: skip
