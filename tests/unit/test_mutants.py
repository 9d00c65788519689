"""The record of mistakes that tests must notice (docs/mutants.md): whole, explained, and good enough."""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import ROOT
from mutants.changes import mutants
from mutants.page import explanation, page

LISTED = yaml.safe_load((ROOT / "tests/mutants/modules.yaml").read_text(encoding="utf-8"))
SCORE = json.loads((ROOT / "docs/mutants.json").read_text(encoding="utf-8"))


def test_every_mistake_that_nobody_noticed_is_explained_on_the_page():
    text = (ROOT / "docs/mutants.md").read_text(encoding="utf-8")
    assert text == page(SCORE, LISTED["explained"]), "stale; python -m mutants.run --page"
    for module, found in SCORE.items():
        for mistake in found["unnoticed"]:
            why = explanation(LISTED["explained"], module, mistake)["why"]
            assert len(why) > 20 and why in text, f"{module}: {mistake} is not explained in tests/mutants/modules.yaml"


def test_at_least_95_percent_are_noticed_in_every_listed_module():
    """Of those that change a result; of all of them nine in ten."""
    assert set(SCORE) == set(LISTED["modules"])
    tried = unnoticed = equal = 0
    for module, found in SCORE.items():
        said = [explanation(LISTED["explained"], module, m) for m in found["unnoticed"]]
        tried, unnoticed, equal = (
            tried + found["tried"], unnoticed + len(said), equal + sum(e["equivalent"] for e in said)
        )  # fmt: skip
        assert found["tried"] >= min(15, len(mutants((ROOT / "src/winnow" / module).read_text(encoding="utf-8")))) // 2
    noticed = tried - unnoticed
    assert noticed / (tried - equal) >= 0.95 and noticed / tried >= 0.9


def test_the_tests_that_are_named_exist():
    for module, names in LISTED["modules"].items():
        for name in names:
            assert (ROOT / "tests" / f"{name if '/' in name else f'unit/{name}'}.py").is_file(), f"{module}: {name}"


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("x = a < b", {"(a <= b)"}),
        ("x = f(a, b)", {"(f(b, a))"}),
        ("x = min(a, b)", {"(max)"}),
        ("x = f(a, k=b)", {"(f(a))"}),
        ("if a:\n    b()", {"(not a)", "pass"}),
        ("x = split.val", {"(split.test)"}),
        ("x = record['acc_after']", {"('acc_before')"}),
        ("x = 2", {"(3)"}),
        ("x += y", {"pass"}),
        ("'''words'''\nlog.info('%d', 3)", set()),
    ],
)
def test_mistakes_are_those_that_people_make(code, wrong):
    found = mutants(code)
    assert {m.new for m in found} == wrong
    for m in found:  # each stands where it says, and still compiles
        data = code.encode()
        assert data[m.start : m.end].decode() == m.old
        compile(data[: m.start] + m.new.encode() + data[m.end :], "x", "exec")
