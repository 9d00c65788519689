"""Which jobs of this pipeline run for one ticket one after the other, so that they may share a SLURM job."""

from __future__ import annotations

from collections.abc import Iterator

from winnow.pipelines.double_win.config import DoubleWin
from winnow.pipelines.double_win.grid import grid_of
from winnow.pipelines.packs import Job, job

RULES = ("transfer_std", "transfer_adv", "evaluate", "autoattack")


def members(section: DoubleWin) -> Iterator[tuple[str, list[Job]]]:
    """A transfer and its measurements."""
    grid = grid_of(section)
    for run in grid.runs():
        names = {
            "source": run.source, "pretraining": run.pretraining, "seed": run.seed, "dataset": run.dataset,
            "percent": run.percent,
            "ticket": run.ticket, "mode": run.mode, "run_seed": run.run_seed,
        }  # fmt: skip
        measured = ["evaluate", "autoattack"] if grid.autoattacked(run) else ["evaluate"]
        jobs = [job(rule, **names) for rule in (f"transfer_{run.mode}", *measured)]
        yield f"pair_{run.source}_{run.pretraining}_{run.seed}_{run.ticket}", jobs
