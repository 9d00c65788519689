"""The table of the double-win pipeline from the evaluation files below `--results`: tidy CSV, one row a comparison.

Every run of the grid must have been evaluated. The metrics file records which files were read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from winnow.config.double_win import Published
from winnow.grid.double_win import Grid
from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of double_win_table."""

    grid: Grid = key("every run of the table")
    tolerance: float | None = key("allowed distance below the dense mean in percentage points; null: one std", None, ge=0)
    published: list[Published] = key("published figures to stand beside ours", factory=list)


stage = Stage("double_win_table", Config, inputs={}, outputs={"out": "the CSV table", "metrics": "what was read"})


@stage
def main(job: Job[Config]) -> None:
    """Read, compare, write."""
    from winnow.artifacts import read_json, read_metadata, write_bytes
    from winnow.tables.double_win import table

    cfg, runs = job.config, list(job.config.grid.runs())
    files = sorted({f"{r.folder}/evaluation.json" for r in runs} | {r.mask for r in runs if r.mask})
    job.read("results", [Path(f) for f in files])
    remaining = {mask: read_metadata(mask)["remaining_percent"] for mask in {r.mask for r in runs if r.mask}}
    result = table(
        runs,
        evaluation=lambda run: read_json(f"{run.folder}/evaluation.json"),
        remaining_percent=lambda run: remaining[run.mask] if run.mask else 100.0,
        tolerance=cfg.tolerance,
        published=cfg.published,
    )
    write_bytes(job["out"], result.to_csv(index=False).encode())
    job.write_metrics("metrics", {"rows": len(result), "runs": len(runs)})


if __name__ == "__main__":
    sys.exit(stage.run())
