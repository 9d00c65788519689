"""The table of the rare-gems pipeline from its metrics files: tidy CSV, one row a ticket.

Every ticket of the grid must have been fine-tuned. The metrics file records which files were read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from winnow.pipelines.rare_gems.grid import Table
from winnow.stage import Job, Stage

stage = Stage("rare_gems_table", Table, inputs={}, outputs={"out": "the CSV table", "metrics": "what was read"})


@stage
def main(job: Job[Table]) -> None:
    """Read, compare, write."""
    from winnow.artifacts import read_json, write_bytes
    from winnow.pipelines.rare_gems.table import table

    cfg, cells = job.config, list(job.config.grid.cells())
    files = sorted({c.metrics for c in cells} | {c.checks for c in cells if c.checks})
    job.read("results", [Path(f) for f in files])
    result = table(cells, read_json, cfg.gem_margin, cfg.gem_before, cfg.published)
    write_bytes(job["out"], result.to_csv(index=False).encode())
    job.write_metrics("metrics", {"rows": len(result), "tickets": len(cells)})


if __name__ == "__main__":
    sys.exit(stage.run())
