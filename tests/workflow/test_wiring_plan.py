"""Every planned job reads what it must read and is told what it must be told: the plan of wiring.yaml, of which nothing
is run.

The same meaning (wiring_meaning.py) is asserted of finished artifacts in test_wiring.py; this takes seconds.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
from typing import Any

import pytest

from .conftest import Workflow
from .wiring_grid import CONFIG, table_parents
from .wiring_meaning import differences, meaning_of

TABLES = ("double_win", "robust_bert", "rare_gems")


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> str:
    """What a dry run prints: every job with its inputs and its command."""
    workflow = Workflow(tmp_path_factory.mktemp("plan"), CONFIG)
    done = workflow.snakemake("-n", "-p", *(f"results/tables/{name}.csv" for name in TABLES))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def jobs(plan: str) -> list[tuple[str, dict[str, Any], dict[str, list[str]]]]:
    """(stage, configuration, values of every other option) of each planned command."""
    found = []
    for line in plan.splitlines():
        if "python -m winnow.stages." not in line:
            continue
        _, _, module, *words = shlex.split(line[line.index("python -m") :])
        options: dict[str, list[str]] = {}
        for word in words[: words.index("2>")]:
            if word.startswith("--"):
                values = options.setdefault(word[2:].replace("-", "_"), [])
            else:
                values.append(word)
        (config,) = options.pop("config")
        found.append((module.rpartition(".")[2], json.loads(config), options))
    return found


def recorded(path: str) -> str:
    """What a record names: of a model folder its winnow.json."""
    return re.sub(r"/model\.safetensors$", "/winnow.json", path) if path.startswith("results/robust_bert") else path


def test_each_job_is_told_what_its_artifacts_mean(plan):
    wrong, known = [], 0
    for name, config, options in jobs(plan):
        stage = importlib.import_module(f"winnow.stages.{name}").stage
        given = {declared.rstrip("?*"): options.get(declared.rstrip("?*"), []) for declared in stage.inputs}
        parents = {role: recorded(files[0]) for role, files in given.items() if files}
        for role in stage.outputs:
            for path in options.get(role.rstrip("?*"), []):
                meaning = meaning_of(CONFIG, recorded(path))
                if meaning is None:
                    assert "/tables/" in path or not path.endswith((".safetensors", ".json")), path
                    continue
                known += 1
                found = [f"parent {d}" for d in differences(meaning.parents, parents)]
                found += [f"parent {role}, must be absent" for role in set(parents) - set(meaning.parents)]
                found += differences(meaning.config, config)
                found += [f"stage {name}, must be {meaning.stage}"] if name != meaning.stage else []
                wrong += [f"{path}: {d}" for d in found]
    assert not wrong, f"{len(wrong)} differences:\n" + "\n".join(wrong[:30])
    assert known > 700


@pytest.mark.parametrize("pipeline", TABLES)
def test_a_table_waits_for_every_run_and_for_nothing_else(plan, pipeline):
    pattern = rf"writing results/tables/{pipeline}\.csv\nReason: .*; Input files updated by another job: (.*)"
    (inputs,) = re.findall(pattern, plan)
    assert {recorded(path) for path in inputs.split(", ")} == table_parents()[pipeline]
