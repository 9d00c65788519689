"""A real SLURM cluster on this machine, brought up for these tests where that is possible, and copies of the repository
to run in.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import copy_of_project

from .bring_up import NotInstalledError, brought_up, missing


def told(*command: str) -> str:
    """What a command prints; fails with its own words."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """The cluster, stopped again at the end; skipped with the reason where it cannot be."""
    if reason := missing():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(brought_up())
        except NotInstalledError as error:
            pytest.skip(str(error))
        yield


class Repository:
    """A copy of what a user has, to type commands in."""

    def __init__(self, folder: Path, config: dict[str, Any]):
        self.folder = folder
        copy_of_project(folder)
        (folder / "slurm").symlink_to("profiles/slurm")
        (folder / "my.yaml").write_text(yaml.safe_dump(config))

    def command(self, *arguments: str) -> list[str]:
        """snakemake with these arguments."""
        return [sys.executable, "-m", "snakemake", *arguments, "--configfile", "my.yaml"]

    def run(self, *arguments: str) -> str:
        """What snakemake says, having ended well."""
        done = subprocess.run(self.command(*arguments), cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done.stdout + done.stderr

    def stages(self, name: str) -> dict[str, int]:
        """Name of the pre-training -> process, of the stages that run for this folder now."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode().split("\0")
                here = (process / "cwd").readlink() == self.folder
            except OSError:
                continue
            if here and words[1:3] == ["-m", f"winnow.stages.{name}"]:
                found[re.search(r"/(\w+)/s0/dense", words[words.index("--out") + 1])[1]] = int(process.name)
        return found


def freeze(process: int) -> None:
    """Let a process hang, as on a file system that does not answer. A job that is cancelled or out of time is woken to
    end.
    """
    os.kill(process, signal.SIGSTOP)


def job_of(process: int) -> str:
    """The SLURM job that a process belongs to."""
    words = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
    return next(w.partition("=")[2] for w in words if w.startswith("SLURM_JOB_ID="))


def run_id(output: str) -> str:
    """What all jobs of a run are called."""
    return re.search(r"SLURM run ID: (\S+)", output)[1]


def accounted(name: str, *columns: str) -> list[dict[str, str]]:
    """What the accounting says of a run's jobs, in the order of submission."""
    lines = told(
        "sacct", "-X", "-n", "-P", f"--name={name}", "--duplicates", f"--format={','.join(columns)}"
    ).splitlines()
    return [dict(zip(columns, line.split("|"), strict=True)) for line in lines]
