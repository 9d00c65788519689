"""A workflow whose jobs run on a SLURM cluster, and what befalls it there beyond the usual."""

from __future__ import annotations

import re
import subprocess
import time

from chaos.workflow import KINDS, ROOT, Workflow

SLURM = ("cancel a job", "controller away")


def told(*command: str) -> str:
    """What a command of SLURM prints; nothing while the controller is away."""
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


class OnCluster(Workflow):
    """Heads with the SLURM profile. Jobs of a head that was killed live on in the queue."""

    kinds = (*KINDS, *SLURM)
    words = (
        "--profile", str(ROOT / "profiles/slurm"), "--jobs", "4", "--slurm-init-seconds-before-status-checks", "3",
        "--max-status-checks-per-second", "2", "--latency-wait", "5",
    )  # fmt: skip

    def _jobs(self) -> list[str]:
        """Numbers of the SLURM jobs of this workflow's heads."""
        names = {n for log in self.logs() for n in re.findall(r"SLURM run ID: (\S+)", log)}
        return told("squeue", "-h", "-o", "%A", f"--name={','.join(names)}").split() if names else []

    def headless(self) -> None:
        """The head alone was killed; its jobs wait and run."""

    def other_fault(self, kind: str) -> None:
        """A job cancelled by hand, or a controller that does not answer for twenty seconds."""
        if kind == "cancel a job":
            if jobs := self._jobs():
                told("scancel", self.random.choice(jobs))
            else:
                self.events[kind] -= 1
        else:
            (daemon,) = told("pgrep", "-x", "slurmctld").split()
            self.pause([int(daemon)], 20.0)

    def unlock(self) -> None:
        """Jobs of a dead head first: two would write one file."""
        if self._jobs():
            self.typed["scancel --name RUN"] += 1
            told("scancel", *self._jobs())
            end = time.monotonic() + 120
            while self._jobs() and time.monotonic() < end:
                time.sleep(1)
        super().unlock()

    def busy(self) -> bool:
        """Whether jobs run, or wait in the queue."""
        return bool(self._jobs()) or super().busy()

    def close(self) -> None:
        """Cancel what is left in the queue as well."""
        if jobs := self._jobs():
            told("scancel", *jobs)
        super().close()
