"""A job imports nothing from the working folder, whatever lies there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Workflow

pytestmark = pytest.mark.slow
FOREIGN = (
    "import pathlib; pathlib.Path(__file__).with_name('code was run').write_text(__name__)\nraise SystemExit(99)\n"
)


def test_jobs_import_nothing_from_the_working_folder(tmp_path, tiny_config):
    for name in ("numpy", "argparse", "torch", "json", "logging", "safetensors", "random", "winnow", "tqdm"):
        (tmp_path / f"{name}.py").write_text(FOREIGN)
    workflow = Workflow(tmp_path, tiny_config)
    target = "results/rare_gems/tiny/init/signed_constant/s0.safetensors"
    options = [f"--{name}={value}" for name, value in workflow.request().items()]
    command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "1", *options, target]  # as a user types it
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=workflow.environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / target).is_file() and not (tmp_path / "code was run").exists()
