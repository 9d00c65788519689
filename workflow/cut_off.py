"""What a pack of jobs keeps when it is cut off: the members that had finished. A part of the adapter.

Snakemake takes a pack for one job: when it fails, the outputs of all members are deleted, and another attempt, its own
or SLURM's after a lost node, runs all of them. (Its `keep-incomplete` deletes none, but records what lay there before,
of members that never began, as made by this run: after a change of the configuration that would be old results.)
Outputs that are newer than the run's start are those of members that finished: stages write whole files.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snakemake.io import is_flagged
from snakemake.jobs import Job
from snakemake.settings.types import RerunTrigger

STARTED = "WINNOW_STARTED"  # of the run; what is submitted has it in its environment
_cleanup = Job.cleanup


def keep(workflow: Any) -> None:
    """Let the packs of this run keep their finished members. Within a SLURM job: run only the others, when it is not
    the first time.
    """
    if not workflow.remote_exec:
        os.environ[STARTED] = repr(_now())
        Job.cleanup = _cleaned  # type: ignore[method-assign]
        return
    prepare = workflow._prepare_dag

    def prepared(*args: Any, **keys: Any) -> Any:
        _leave_out_finished(workflow)
        return prepare(*args, **keys)

    workflow._prepare_dag = prepared


def _now() -> float:
    """The time by the clock of the file system that outputs lie on."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=Path.cwd(), prefix=".winnow-") as f:
        return Path(f.name).stat().st_mtime
    return time.time()


def _new(outputs: Iterable[Any]) -> list[Any]:
    """Which of these outputs were made since the run began."""
    begun = float(os.environ[STARTED])
    return [f for f in outputs if Path(f).exists() and Path(f).stat().st_mtime >= begun]


async def _cleaned(job: Any, skip_outputs: Any) -> None:
    """In place of Job.cleanup, for a job that failed: of a pack's member only what is not of this run is deleted."""
    kept = _new(job.output) if job.group is not None else []
    await _cleanup(job, {*skip_outputs, *kept})


def _leave_out_finished(workflow: Any) -> None:
    """Take the finished members out of what this SLURM job runs, if it runs again."""
    asked = list(workflow.dag_settings.target_jobs)
    again = workflow.attempt > 1 or os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    if not again or len(asked) < 2 or STARTED not in os.environ:
        return
    left = [job for job in asked if not _has_finished(workflow, job)]
    if not left:
        raise SystemExit(0)
    workflow.dag_settings.target_jobs = left
    # a finished member that another one reads is recorded only when the whole pack has ended
    workflow.dag_settings.rerun_triggers = frozenset({RerunTrigger.MTIME})


def _has_finished(workflow: Any, asked: Any) -> bool:
    outputs, _ = workflow.get_rule(asked.rulename).expand_output(asked.wildcards_dict)
    lasting = [f for f in outputs if not is_flagged(f, "temp")]
    return len(_new(lasting)) == len(lasting) > 0
