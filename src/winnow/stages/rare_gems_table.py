"""The table of the rare-gems pipeline from its metrics files: tidy CSV, one row a ticket.

Every ticket of the grid must have been fine-tuned. The metrics file records which files were read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from winnow.config.rare_gems import PublishedGem
from winnow.grid.rare_gems import Grid
from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of rare_gems_table."""

    grid: Grid = key("every ticket of the table")
    gem_margin: float = key("a gem beats every check by more than this many percentage points", 1.0, ge=0)
    gem_before: float = key("a gem's accuracy before fine-tuning is this many points above chance", 10.0, ge=0)
    published: list[PublishedGem] = key("published figures to stand beside ours", factory=list)


stage = Stage("rare_gems_table", Config, inputs={}, outputs={"out": "the CSV table", "metrics": "what was read"})


@stage
def main(job: Job[Config]) -> None:
    """Read, compare, write."""
    from winnow.artifacts import read_json, write_bytes
    from winnow.tables.rare_gems import table

    cfg, cells = job.config, list(job.config.grid.cells())
    files = sorted({c.metrics for c in cells} | {c.checks for c in cells if c.checks})
    job.read("results", [Path(f) for f in files])
    result = table(cells, read_json, cfg.gem_margin, cfg.gem_before, cfg.published)
    write_bytes(job["out"], result.to_csv(index=False).encode())
    job.write_metrics("metrics", {"rows": len(result), "tickets": len(cells)})


if __name__ == "__main__":
    sys.exit(stage.run())
