"""The staleness matrix: for each edit of a finished project, exactly which jobs would run. The rows stand in
staleness.py.
"""

from __future__ import annotations

import collections
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, copy_of_project

from .conftest import Workflow, plans
from .staleness import EDITS, GROWN, LESS, NOTHING, SOURCE_EDITS, table

pytestmark = pytest.mark.slow
PAPER = ROOT / "config/paper/rare_gems_from_file.yaml"


def spelled(finished: Workflow, tmp: Path) -> dict[str, str]:
    """Keys in another order, comments, a default written out, a fraction for a decimal number."""

    def turned(value):
        if isinstance(value, dict):
            return {k: turned(v) for k, v in reversed(value.items())}
        return [turned(v) for v in value] if isinstance(value, list) else value

    config = turned(finished.config | {"rare_gems": finished.config["rare_gems"] | {"gem_before": 10.0}})
    text = yaml.safe_dump(config, sort_keys=False).replace("eps: 0.1\n", "eps: 1/10   # of the pixel range\n")
    assert "1/10" in text and list(config) != list(finished.config)
    return finished.request(text)


def run_otherwise(finished: Workflow, tmp: Path) -> dict[str, str]:
    """Everything that says how to run and not what."""
    config = finished.config | {
        "log_level": "debug", "workers": 7, "device": "cpu", "data_root": "elsewhere", "scratch": "/elsewhere",
        "store": "/shared/store", "checkpoint_seconds": 7, "download": True,
    }  # fmt: skip
    return finished.request(config)


def moved(finished: Workflow, tmp: Path) -> dict[str, str]:
    """The folder elsewhere, every file of it newer than it was, inputs newer than outputs, beside a fresh clone."""
    copy = finished.copy(tmp / "moved")
    for file in sorted(copy.folder.rglob("*"), reverse=True):
        if ".snakemake" not in file.parts:
            os.utime(file)
    return copy.request(snakefile=copy_of_project(tmp / "clone", finished.snakefile.parent))


def commented(finished: Workflow, tmp: Path) -> dict[str, str]:
    """Sources with another comment, docstring and formatting, an environment with another comment."""
    snakefile = copy_of_project(tmp / "commented", finished.snakefile.parent)
    for name in ("artifacts.py", "ticket.py", "prune/counts.py", "train/loop.py", "stages/train.py"):
        file = snakefile.parent / "src/winnow" / name
        text = file.read_text().replace('"""', '"""Another word. ', 1).replace(" = ", "  =  ", 1)
        file.write_text(text + "\n\n# a comment\n")
    for file in (snakefile.parent / "envs").iterdir():
        file.write_text("# a comment\n" + file.read_text())
    return finished.request(snakefile=snakefile)


def worded(finished: Workflow, tmp: Path) -> dict[str, str]:
    """Other words in a description, a help text, an error message and a log line."""
    snakefile = copy_of_project(tmp / "worded", finished.snakefile.parent)
    for name, was in (
        ("config/parts.py", "passes over the training split"),
        ("stage.py", "folder for checkpoints"),
        ("ticket.py", "not a winnow ticket; import"),
        ("train/loop.py", "resumed at step %d"),
        ("stages/prune.py", "weights to prune: a safetensors"),
    ):
        file = snakefile.parent / "src/winnow" / name
        assert was in file.read_text(), name
        file.write_text(file.read_text().replace(was, "other words: " + was))
    return finished.request(snakefile=snakefile)


def carried(finished: Workflow, tmp: Path) -> dict[str, str]:
    """Code in the modules that only carry results."""
    snakefile = copy_of_project(tmp / "carried", finished.snakefile.parent)
    for name in ("stage", "run", "launch", "store", "records", "tables/page", "schema"):
        with (snakefile.parent / f"src/winnow/{name}.py").open("a") as file:
            file.write("\nEDITED = 1\n")
    return finished.request(snakefile=snakefile)


UNTOUCHED = {
    "spelling": spelled,
    "how to run": run_otherwise,
    "places and times": moved,
    "sources": commented,
    "words": worded,
    "carriers": carried,
}


@pytest.fixture(scope="module")
def answers(finished, tmp_path_factory):
    """What would run after each edit: all asked in one process."""
    tmp = tmp_path_factory.mktemp("edits")
    requests = {"finished": finished.request()} | {name: make(finished, tmp) for name, make in UNTOUCHED.items()}
    requests |= {edit.name: finished.request(edit.apply(finished.config)) for edit in EDITS}
    grown = finished.copy(tmp / "grown")
    config = GROWN(finished.config)
    grown.mark_finished(config)
    requests |= {"grown": grown.request(config)} | {edit.name: grown.request(edit.apply(config)) for edit in LESS}
    requests["paper"] = finished.request(finished.config | yaml.safe_load(PAPER.read_text()) | {"check_data": False})
    for number, source in enumerate(SOURCE_EDITS):
        snakefile = copy_of_project(tmp / f"edited{number}", finished.snakefile.parent)
        for name in source.files:
            with (snakefile.parent / name).open("a") as file:
                file.write(f"\n{source.line}\n")
        requests[source.name] = finished.request(snakefile=snakefile)
    found = dict(zip(requests, plans(list(requests.values())), strict=True))
    each: dict[str, collections.Counter[str]] = {}  # rule -> log file -> outputs: each job has a log file of its own
    for rule, log, _, _ in found["finished"]:
        each.setdefault(rule, collections.Counter())[log] += 1
    return {
        name: answer(rows, {rule: max(logs.values()) for rule, logs in each.items()}) for name, rows in found.items()
    }


@dataclass(frozen=True)
class Answer:
    """What would run: rule -> number of jobs, the rules that write tables and figures, and all other outputs."""

    jobs: dict[str, int]
    shown: set[str]
    outputs: list[str]


def answer(rows, per_job: dict[str, int]) -> Answer:
    """`per_job`: rule -> number of outputs that a job of it writes."""
    pending = [(rule, output) for rule, _, output, due in rows if due]
    counts = collections.Counter(rule for rule, _ in pending)
    shown = {rule for rule, output in pending if output.startswith(("results/tables/", "results/figures/"))}
    jobs = {rule: count // per_job.get(rule, 1) for rule, count in counts.items()}
    return Answer(jobs, shown, [output for rule, output in pending if rule not in shown])


@pytest.mark.parametrize("group", ["finished", *NOTHING])
def test_nothing_reruns_for(answers, group):
    assert answers[group].jobs == {}


@pytest.mark.parametrize("edit", [*EDITS, *LESS], ids=lambda e: e.name)
def test_what_reruns_for(answers, finished, edit):
    found = answers[edit.name]
    assert found.jobs == edit.jobs
    assert all(edit.within in output for output in found.outputs)
    if edit.new:
        assert not [output for output in found.outputs if (finished.folder / output).exists()]


@pytest.mark.parametrize("edit", SOURCE_EDITS, ids=lambda e: e.name)
def test_what_reruns_for_an_edit_of(answers, edit):
    assert answers[edit.name].jobs == edit.jobs


def test_a_paper_grid_beside_it_runs_its_own_jobs_alone(answers, finished):
    found = answers["paper"]
    assert len(found.outputs) > 10 and not [output for output in found.outputs if (finished.folder / output).exists()]
    assert found.shown == {"rare_gems_table", "rare_gems_plots"}


def test_the_larger_grid_is_finished_before_it_shrinks(answers):
    assert answers["grown"].jobs == {}


def test_the_page_shows_this_matrix():
    assert table() in (ROOT / "docs/staleness.md").read_text(encoding="utf-8"), f"put this there:\n{table()}"
