"""Running the real workflow in a temporary folder, and asking what it would run next."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, copy_of_project

TABLE = "results/tables/double_win.csv"


def put(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of the configuration with the value at a dotted path replaced; YAML's aliases are separate values in
    it.
    """
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
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(snakefile.parent / "src")}

    def request(self, config: dict[str, Any] | str | None = None, snakefile: Path | None = None) -> dict[str, str]:
        """The arguments of a call; the configuration (or the text of one) goes through a file."""
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".yaml", delete=False) as file:
            file.write(config if isinstance(config, str) else yaml.safe_dump(config or self.config))
        return {"snakefile": str(snakefile or self.snakefile), "directory": str(self.folder), "configfile": file.name}

    def snakemake(
        self, *arguments: str, config: dict[str, Any] | None = None, before: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """snakemake with these arguments, through the command `before`."""
        options = [f"--{name}={value}" for name, value in self.request(config).items()]
        command = [*before, sys.executable, "-m", "snakemake", *arguments, *options]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder, env=self.environment)

    def run(self, *targets: str) -> None:
        """Run to the end or fail with the log; stages are forks of a warm process, as in `make demo`."""
        done = self.snakemake("--cores", "2", *targets, before=[sys.executable, "-m", "winnow.warm"])
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]

    def outputs(self, *arguments: str, config: dict[str, Any] | None = None) -> list[dict[str, str]]:
        """Every output with its status and whether a run would write it."""
        listed = self.snakemake("--summary", *arguments, config=config)
        assert listed.returncode == 0, listed.stderr[-3000:]
        return list(csv.DictReader(io.StringIO(listed.stdout), delimiter="\t"))

    def mark_finished(self, config: dict[str, Any] | None = None) -> None:
        """Make this folder that of a (larger) finished configuration: what it lacks stands empty and is marked as
        done.
        """
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


@contextmanager
def once_for_all(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder that all test processes share, and whether this one must fill it: the first does, the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = shared / f"{name}.done"
        first = not done.exists()
        if first:
            (shared / name).mkdir()
        yield shared / name, first
        done.touch()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_config: dict[str, Any]) -> Workflow:
    """The tiny workflow of the three pipelines, run once for all test processes. Nobody changes it: `copy` is for
    that.
    """
    with once_for_all(tmp_path_factory, "finished") as (folder, first):
        project = folder.parent / "project"
        workflow = Workflow(folder, tiny_config, project / "Snakefile")
        if first:
            copy_of_project(project)
            workflow.run()
    return workflow


@pytest.fixture(scope="session")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of wiring.yaml after every job that its three tables need, run in one process. Nobody changes
    it.
    """
    with once_for_all(tmp_path_factory, "wired") as (folder, first):
        if first:
            config = yaml.safe_load((ROOT / "tests/workflow/wiring.yaml").read_text())
            workflow = Workflow(folder, config)
            tables = [f"results/tables/{name}.csv" for name in ("double_win", "robust_bert", "rare_gems")]
            planned = workflow.snakemake("-n", "-p", *tables)
            assert planned.returncode == 0, planned.stderr[-3000:]
            lines = [
                line for line in (planned.stdout + planned.stderr).splitlines() if "python -m winnow.stages" in line
            ]
            words = [shlex.split(line[line.index("python -m") :]) for line in lines]
            commands = json.dumps([w[2 : w.index("2>")] for w in words])
            (folder / "commands.json").write_text(commands)
            script = [sys.executable, str(Path(__file__).with_name("in_process.py"))]
            done = subprocess.run(
                script, input=commands, capture_output=True, text=True,
                cwd=folder, env=workflow.environment | {"PYTHONPATH": str(ROOT / "src")},
            )  # fmt: skip
            assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return folder
