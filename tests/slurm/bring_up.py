"""A real SLURM cluster on this machine: whether it can be brought up, and up for a while."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from conftest import shared_folder

CONFIGURATION = Path("/etc/slurm/slurm.conf")
# One node with two GPUs, whatever this machine has: a third GPU job must wait, and one job may have both
CLUSTER = {"NODES": "1", "NODE_CPUS": "4", "NODE_MEM_MB": "16000", "NODE_GPUS": "2"}


class NotInstalledError(Exception):
    """SLURM's packages could not be installed."""


def _tools() -> Path | None:
    shared = shared_folder()
    return shared / "tools" if shared else None


def missing() -> str | None:
    """Why no cluster can be brought up here; None where it can be tried."""
    tools = _tools()
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        return "installing SLURM needs root on Debian"
    if tools is None or not (tools / "slurm_up.sh").exists():
        return "the tools that bring up a cluster (tools/slurm_up.sh of the shared folder) are not there"
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "snakemake-executor-plugin-slurm is not installed"
    if CONFIGURATION.exists() and "slurm_up.sh" not in CONFIGURATION.read_text():
        return f"this machine has a SLURM of its own ({CONFIGURATION})"
    if shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True, timeout=60).returncode == 0:
        return "a cluster that somebody else brought up is running; stop it with slurm_down.sh"
    return None


@contextlib.contextmanager
def brought_up() -> Iterator[None]:
    """Within: the cluster. Raises NotInstalledError where its packages cannot be installed."""
    tools = _tools()
    up = subprocess.run(["bash", str(tools / "slurm_up.sh")], capture_output=True, text=True, env=os.environ | CLUSTER)
    if up.returncode and "installing" in up.stderr and "FAILED: apt-get" in up.stderr:
        raise NotInstalledError(f"SLURM cannot be installed: {up.stderr.strip().splitlines()[-1]}")
    assert up.returncode == 0, up.stderr
    try:
        yield
    finally:
        subprocess.run(["bash", str(tools / "slurm_down.sh")], check=True, env=os.environ | {"WIPE": "1"})
