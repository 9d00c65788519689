"""Where and by what a job ran, for its record: nothing of it changes a result, and two runs may differ in it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

from winnow.project import CHECKOUT

# what the workflow was started with; jobs have them in their environment
COMMAND, COMMIT = ("WINNOW_COMMAND", "WINNOW_COMMIT")


@cache
def machine() -> str:
    """`2 CPUs (AMD EPYC 7763), 1 GPU (NVIDIA A100)`. GPUs are named where this process has looked for them."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    except OSError:
        pass
    found = f"{os.cpu_count()} CPUs ({processor})"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found += f", {torch.cuda.device_count()} GPU ({torch.cuda.get_device_name()})"
    return found


@cache
def commit() -> str:
    """The commit of a checkout, with `-dirty` where files differ from it; empty for an installation."""
    if not (CHECKOUT / ".git").exists():
        return ""
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def surroundings() -> dict[str, str]:
    """What a record tells of them: machine, and command and commit where a workflow told them."""
    told = {name: os.environ.get(variable, "") for name, variable in (("command", COMMAND), ("commit", COMMIT))}
    return {"machine": machine(), **{name: value for name, value in told.items() if value}}
