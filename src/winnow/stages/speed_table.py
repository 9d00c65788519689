"""The table of measured speeds, from what the stage speed wrote: tidy CSV, one row a ticket, batch and number of
threads.

Times belong to one machine and one moment: another run gives another table.
"""

from __future__ import annotations

import sys
from pathlib import Path

from winnow.pipelines.beyond import Table
from winnow.stage import Job, Stage

COLUMNS = (
    "remaining_percent", "batch", "threads", "speedup", "low", "high", "dense_ms", "sparse_ms", "predicted_speedup",
    "rule_error", "worth_from",
)  # fmt: skip
LAST = ("verdict", "file")
stage = Stage("speed_table", Table, inputs={}, outputs={"out": "the CSV table", "metrics": "what was read"})


@stage
def main(job: Job[Table]) -> None:
    """Read, write."""
    import pandas as pd

    from winnow.artifacts import read_json, write_bytes

    job.read("measured", [Path(row.file) for row in job.config.rows])
    rows = []
    for row in job.config.rows:
        found = read_json(row.file)
        about = {"remaining_percent": found["remaining_percent"], "file": row.file, "verdict": found["verdict"]}
        rows += [row.names | measured | about for measured in found["rows"]]
    found = pd.DataFrame(rows)
    first = [*job.config.rows[0].names, *COLUMNS]
    found = found[[*first, *sorted(set(found) - {*first, *LAST}), *LAST]]
    write_bytes(job["out"], found.round(6).to_csv(index=False).encode())
    job.write_metrics("metrics", {"rows": len(rows)})


if __name__ == "__main__":
    sys.exit(stage.run())
