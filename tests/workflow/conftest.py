"""Running the real workflow in a temporary folder, and asking what it would run next."""

from __future__ import annotations

import copy
import csv
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

TABLE = "results/tables/double_win.csv"


class Workflow:
    """The workflow in one working folder. `config` is what --configfile gets."""

    def __init__(self, folder: Path, config: dict[str, Any]):
        self.folder, self.config = folder, config

    def snakemake(self, *arguments: str, config: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """snakemake with these arguments; the configuration goes through a file."""
        path = self.folder / "tiny.yaml"
        path.write_text(yaml.safe_dump(config or self.config))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [*command, *arguments, "--configfile", str(path)], capture_output=True, text=True, cwd=self.folder, env=environment
        )

    def run(self, *targets: str) -> None:
        """Run to the end or fail with the log."""
        done = self.snakemake("--cores", "2", *targets)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]

    def pending(self, *targets: str, config: dict[str, Any] | None = None) -> set[str]:
        """Outputs that a run would write now."""
        done = self.snakemake("--summary", *targets, config=config)
        assert done.returncode == 0, done.stderr[-3000:]
        rows = csv.DictReader(io.StringIO(done.stdout), delimiter="\t")
        return {r["output_file"] for r in rows if r["plan"] == "update pending"}

    def changed(self, **section: Any) -> dict[str, Any]:
        """A copy of the configuration with keys of double_win replaced."""
        new = copy.deepcopy(self.config)
        new["double_win"].update(section)
        return new


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_config: dict[str, Any]) -> Workflow:
    """The tiny workflow, run once for the tests of a module."""
    workflow = Workflow(tmp_path_factory.mktemp("workflow"), tiny_config)
    workflow.run("double_win")
    return workflow
