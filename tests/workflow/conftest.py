"""Running the real workflow in a temporary folder, and asking what it would run next."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, copy_of_project

TABLE = "results/tables/double_win.csv"


def put(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of the configuration with the value at a dotted path replaced; YAML's aliases are separate values in it."""
    new = json.loads(json.dumps(config))
    *way, last = path.split(".")
    inner = new
    for step in way:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[int(last) if isinstance(inner, list) else last] = value
    return new


class Workflow:
    """The workflow in one working folder. `config` is what --configfile gets."""

    def __init__(self, folder: Path, config: dict[str, Any], snakefile: Path = ROOT / "Snakefile"):
        self.folder, self.config, self.snakefile = folder, config, snakefile
        self.environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def request(self, config: dict[str, Any] | str | None = None, snakefile: Path | None = None) -> dict[str, str]:
        """The arguments of a call; the configuration (or the text of one) goes through a file."""
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".yaml", delete=False) as file:
            file.write(config if isinstance(config, str) else yaml.safe_dump(config or self.config))
        return {"snakefile": str(snakefile or self.snakefile), "directory": str(self.folder), "configfile": file.name}

    def snakemake(self, *arguments: str, config: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """snakemake with these arguments."""
        options = [f"--{name}={value}" for name, value in self.request(config).items()]
        command = [sys.executable, "-m", "snakemake", *arguments, *options]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder, env=self.environment)

    def run(self, *targets: str) -> None:
        """Run to the end or fail with the log."""
        done = self.snakemake("--cores", "2", *targets)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]

    def outputs(self, *arguments: str, config: dict[str, Any] | None = None) -> list[dict[str, str]]:
        """Every output with its status and whether a run would write it."""
        listed = self.snakemake("--summary", *arguments, config=config)
        assert listed.returncode == 0, listed.stderr[-3000:]
        return list(csv.DictReader(io.StringIO(listed.stdout), delimiter="\t"))

    def mark_finished(self, config: dict[str, Any] | None = None) -> None:
        """Make this folder that of a (larger) finished configuration: what it lacks stands empty and is marked as done."""
        for row in self.outputs(config=config):
            path = self.folder / row["output_file"]
            if path.suffix == ".levels":
                path.mkdir(parents=True, exist_ok=True)
            elif not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        done = self.snakemake("--touch", "--forceall", "--cores", "1", config=config)
        assert done.returncode == 0, done.stderr[-3000:]

    def copy(self, folder: Path) -> Workflow:
        """The same in another folder, with everything that Snakemake remembers."""
        shutil.copytree(self.folder, folder)
        return Workflow(folder, self.config, self.snakefile)


def plans(requests: list[dict[str, str]]) -> list[list[tuple[str, str, str, bool]]]:
    """For each request every [rule, log file, output], and whether a run would write it now."""
    script = [sys.executable, str(Path(__file__).with_name("plan.py"))]
    done = subprocess.run(script, input=json.dumps(requests), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout[done.stdout.rindex("\n[[") + 1 :] if "\n[[" in done.stdout else done.stdout)


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_config: dict[str, Any]) -> Workflow:
    """The tiny workflow of the three pipelines, run once for all test processes. Nobody changes it: `copy` is for that."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    workflow = Workflow(shared / "finished", tiny_config, shared / "project/Snakefile")
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes first runs it, the others wait
        if not (shared / "finished.done").exists():
            workflow.folder.mkdir()
            copy_of_project(shared / "project")
            workflow.run()
            (shared / "finished.done").touch()
    return workflow
