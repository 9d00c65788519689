"""The table of the double-win pipeline from the evaluation files below `--results`: tidy CSV, one row a comparison.

Every run of the grid must have been evaluated. The metrics file records which files were read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from winnow.pipelines.double_win.grid import Table
from winnow.stage import Job, Stage

stage = Stage("double_win_table", Table, inputs={}, outputs={"out": "the CSV table", "metrics": "what was read"})


@stage
def main(job: Job[Table]) -> None:
    """Read, compare, write."""
    from winnow.artifacts import read_json, read_metadata, write_bytes
    from winnow.pipelines.double_win.table import table

    cfg, runs = job.config, list(job.config.grid.runs())
    files = sorted({*cfg.grid.results(runs)} | {r.mask for r in runs if r.mask})
    job.read("results", [Path(f) for f in files])
    remaining = {mask: read_metadata(mask)["remaining_percent"] for mask in {r.mask for r in runs if r.mask}}
    result = table(
        runs,
        evaluation=lambda run: read_json(f"{run.folder}/evaluation.json"),
        autoattack=lambda run: read_json(f"{run.folder}/autoattack.json")["aa"] if cfg.grid.autoattacked(run) else None,
        remaining_percent=lambda run: remaining[run.mask] if run.mask else 100.0,
        tolerance=cfg.tolerance,
        published=cfg.published,
    )
    write_bytes(job["out"], result.to_csv(index=False).encode())
    job.write_metrics("metrics", {"rows": len(result), "runs": len(runs)})


if __name__ == "__main__":
    sys.exit(stage.run())
