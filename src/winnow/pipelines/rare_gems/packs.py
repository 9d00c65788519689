"""Which jobs of this pipeline run for one ticket one after the other, so that they may share a SLURM job."""

from __future__ import annotations

from collections.abc import Iterator

from winnow.pipelines.packs import Job, job
from winnow.pipelines.rare_gems.config import RareGems
from winnow.pipelines.rare_gems.grid import grid_of

RULES = ("gem_finetune",)


def members(section: RareGems) -> Iterator[tuple[str, list[Job]]]:
    """A fine-tuning; those of a branch are of one ticket, for one search made them all."""
    for cell in grid_of(section).cells():
        if cell.algo not in ("imp", "wt"):
            tuned = job(
                "gem_finetune",
                experiment=cell.experiment,
                branch=cell.branch,
                seed=cell.seed,
                target=f"{cell.target:g}",
            )
            yield f"gem_{cell.experiment}_{cell.branch}_{cell.seed}", [tuned]
