"""The table of how tickets relate, from what the stage compare_tickets wrote: tidy CSV, one row a pair."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from winnow.pipelines.beyond import Table
from winnow.stage import Job, Stage

stage = Stage("relations_table", Table, inputs={}, outputs={"out": "the CSV table", "metrics": "what was read"})


@stage
def main(job: Job[Table]) -> None:
    """Read, write."""
    import pandas as pd

    from winnow.artifacts import read_json, write_bytes

    job.read("measured", [Path(row.file) for row in job.config.rows])
    found = pd.DataFrame([row.names | figures(read_json(row.file)) | {"file": row.file} for row in job.config.rows])
    write_bytes(job["out"], found.round(6).to_csv(index=False).encode())
    job.write_metrics("metrics", {"rows": len(found)})


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """The columns of one comparison; overlap is that of all layers together."""
    whole = found["overlap"][-1] if found["overlap"] else {}
    about = {n: whole.get(n) for n in ("jaccard", "jaccard_by_chance", "deviations")}
    for split in ("train", "test"):
        about |= {
            f"{split}_loss_barrier": found["loss_barrier"][split], f"{split}_instability": found["instability"][split],
        }  # fmt: skip
    ends = [found["path"][0]["test_acc"], found["path"][-1]["test_acc"]]
    middle = min(point["test_acc"] for point in found["path"])
    return about | {"test_acc_of_ends": sum(ends) / 2, "lowest_test_acc": middle}


if __name__ == "__main__":
    sys.exit(stage.run())
