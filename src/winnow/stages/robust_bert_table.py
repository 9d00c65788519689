"""The table of the robust-ticket pipeline from the attack figures below `results/`: tidy CSV, one row a comparison.

Every run of the grid must have been attacked. The metrics file records which files were read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from winnow.pipelines.robust_bert.grid import Table
from winnow.stage import Job, Stage

stage = Stage("robust_bert_table", Table, inputs={}, outputs={"out": "the CSV table", "metrics": "what was read"})


@stage
def main(job: Job[Table]) -> None:
    """Read, average, write."""
    from winnow.artifacts import read_json, read_metadata, write_bytes
    from winnow.pipelines.robust_bert.table import table

    runs = list(job.config.grid.runs())
    masks = sorted({r.mask for r in runs if r.mask})
    job.read("results", [Path(f) for f in sorted({r.figures for r in runs}) + masks])
    removed = {mask: round(100.0 - read_metadata(mask)["remaining_percent"], 4) for mask in masks}
    result = table(runs, lambda run: read_json(run.figures), lambda run: removed[run.mask] if run.mask else 0.0)
    write_bytes(job["out"], result.to_csv(index=False).encode())
    job.write_metrics("metrics", {"rows": len(result), "runs": len(runs)})


if __name__ == "__main__":
    sys.exit(stage.run())
