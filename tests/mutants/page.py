"""docs/mutants.md from what was found (docs/mutants.json) and what is said of it (`explained` in modules.yaml)."""

from __future__ import annotations

from typing import Any

HEAD = """# Mistakes that the suite notices

`make mutants` puts mistakes into the modules that decide results, one at a time, and runs the tests that should notice
(`tests/mutants`). This page is written by `make mutants WRITE=1`. Not in the list: the grids, whose meaning
`tests/workflow/test_wiring_plan.py` asserts as a whole; networks, which `tests/reference` compares with the released
ones; and what reads and keeps files (data sources, imports, artifacts), which other tests attack with wrong files.

"""


def explanation(explained: dict[str, Any], module: str, mistake: dict[str, str]) -> dict[str, Any]:
    """What is said of a mistake that no test noticed: `why`, and whether it is `equivalent` (it changes no result)."""
    places = ("in", "old", "new")
    for entry in explained.get(module, []):
        if all(entry[p] == mistake[p] for p in places):
            return {"why": entry["why"], "equivalent": entry.get("equivalent", False)}
    return {"why": "", "equivalent": False}


def _code(text: str) -> str:
    """As code in a table's cell."""
    return "`" + text.replace("|", "\\|").replace("`", "'") + "`"


def page(score: dict[str, Any], explained: dict[str, Any]) -> str:
    """The page: a line a module, and every mistake that was not noticed with its explanation."""
    rows, lives, tried, unnoticed, equal = [], [], 0, 0, 0
    for module, found in score.items():
        known = [(m, explanation(explained, module, m)) for m in found["unnoticed"]]
        same = sum(e["equivalent"] for _, e in known)
        rows.append(f"| {module} | {found['tried']} | {found['tried'] - len(known)} | {same} |")
        for mistake, said in known:
            kind = "changes no result: " if said["equivalent"] else ""
            where = f"{module}, {mistake['in'] or 'module'}"
            lives.append(f"| {where} | {_code(mistake['old'])} | {_code(mistake['new'])} | {kind}{said['why']} |")
        tried, unnoticed, equal = tried + found["tried"], unnoticed + len(known), equal + same
    noticed = tried - unnoticed
    whole = (
        f"{noticed} of {tried} mistakes in {len(score)} modules were noticed ({100 * noticed / max(tried, 1):.1f} %)"
    )
    without = (
        f"without the {equal} that change no result, {noticed} of {tried - equal} "
        f"({100 * noticed / max(tried - equal, 1):.1f} %)"
    )
    table = ["| module | mistakes | noticed | change no result |", "|---|---|---|---|", *rows]
    survivors = ["| where | was | became | why no test notices |", "|---|---|---|---|", *lives]
    return (
        f"{HEAD}{whole}; {without}.\n\n" + "\n".join(table) + "\n\n## What was not noticed\n\n" + "\n".join(survivors)
    ) + "\n"
