"""What Snakemake would run now, asked many times in one process: `python plan.py < requests.json` (each 1 s less than a
dry run).

A request is {snakefile, directory, configfile}; the answer is every [rule, log file, output], and whether it would be
written.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys

from snakemake.cli import main


def plan(request: dict[str, str]) -> list[list[str | bool]]:
    """The rows of `snakemake --summary`; outputs that were never written have no log file there."""
    for name in [m for m in sys.modules if m.split(".")[0] in ("winnow", "adapter", "cut_off")]:
        del sys.modules[name]  # the request before may have been about other sources
    path = list(sys.path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main(["--summary", *(f"--{name}={value}" for name, value in request.items())])
    sys.path[:] = path
    rows = list(csv.DictReader(io.StringIO(printed.getvalue()), delimiter="\t"))
    assert rows, f"no plan for {request}"
    return [[r["rule"], r["log-file(s)"], r["output_file"], r["plan"] == "update pending"] for r in rows]


if __name__ == "__main__":
    json.dump([plan(request) for request in json.load(sys.stdin)], sys.stdout)
