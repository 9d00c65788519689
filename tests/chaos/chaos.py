"""A whole workflow under faults at random times, which must end with the bytes of a calm run: `make chaos`.

Two folders run the same configuration: one in peace, the other while jobs and the head are killed, stopped and paused,
the scratch fills up, results turn read-only, a second head starts and the clock jumps. After each end of the head a new
one is started, as a user would. Faults are drawn from a seed; when they fall in a job's life depends on the machine,
and the result must not. With `--cluster` the jobs of the second folder run on a SLURM cluster that is brought up for
it, where jobs are cancelled and the controller goes away as well.

Everything stays in one temporary folder and among processes that this program started (they carry a token in their
environment). Full and read-only folders are file systems of their own and need root; without it these two faults are
left out, and the report says so.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from slurm.bring_up import brought_up, missing

from chaos.cluster import OnCluster
from chaos.workflow import ROOT, Workflow
from winnow.records import artifacts, differences, verify


def play(config: dict[str, Any], seed: int, faults: int, between: float, seconds: float, targets: list[str],
         kind: type[Workflow] = Workflow, say: Callable[..., None] = print) -> dict[str, Any]:  # fmt: skip
    """Run calmly on this machine, run under faults as `kind`, compare; the report as a dictionary."""
    with tempfile.TemporaryDirectory(prefix="winnow-chaos-", ignore_cleanup_errors=True) as name:
        calm, wild = (
            Workflow(Path(name, "calm"), config, seed, targets),
            kind(Path(name, "wild"), config, seed, targets),
        )
        try:
            begun = time.monotonic()
            if calm.head([sys.executable, "-m", "winnow.warm"]).wait() != 0:
                raise RuntimeError(f"the calm run failed:\n{calm.logs()[-1][-3000:]}")
            say(f"calm run: {time.monotonic() - begun:.0f} s", flush=True)
            begun = time.monotonic()
            ended = wild.run(faults, between, seconds)
            with contextlib.chdir(wild.folder):
                found, count = differences(calm.folder / "results", Path("results"))
                bad, _, _ = verify(Path("results"))
                made = collections.Counter(p.parts[1] for p in artifacts(Path("results")))
                tables = sorted(p.name for p in Path("results/tables").glob("*.csv"))
            left = [str(p.relative_to(wild.folder)) for p in wild.folder.rglob(".*.tmp")]
            return {
                "ended": ended, "seconds": round(time.monotonic() - begun), "faults": dict(wild.events),
                "typed": dict(wild.typed), "left out": [k for k in wild.kinds if k not in wild.possible],
                "artifacts": count, "by folder": dict(made), "tables": tables, "differences": found,
                "bad": [f"{b.file}: {b.reason}" for b in bad], "leftovers": left,
                "last log": "" if ended else wild.logs()[-1][-2000:],
            }  # fmt: skip
        finally:
            for one in (calm, wild):
                one.close()


def main(arguments: list[str] | None = None) -> int:
    """Play, print the report as JSON; 0 when the bytes are those of the calm run."""
    p = argparse.ArgumentParser(prog="make chaos", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--cluster", action="store_true", help="on a SLURM cluster, brought up for it (Debian, root)")
    p.add_argument(
        "--config", type=Path, help="what to run (tests/workflow/tiny.yaml; --cluster: tests/slurm/small.yaml)"
    )
    p.add_argument("--seed", type=int, default=0, help="of the faults (0)")
    p.add_argument("--faults", type=int, default=40, help="how many (40)")
    p.add_argument("--between", type=float, default=4.0, help="seconds between two faults, on average (4)")
    p.add_argument("--seconds", type=float, default=1500.0, help="at most, for the run under faults (1500)")
    p.add_argument("targets", nargs="*", help="what to make (every table and figure)")
    args = p.parse_args(arguments)
    if args.cluster and (reason := missing()):
        print(f"skipped: {reason}")
        return 0
    file = args.config or ROOT / ("tests/slurm/small.yaml" if args.cluster else "tests/workflow/tiny.yaml")
    config = yaml.safe_load(file.read_text()) | {"checkpoint_seconds": 0.001, "device": "cpu"}
    with brought_up() if args.cluster else contextlib.nullcontext():
        kind = OnCluster if args.cluster else Workflow
        report = play(config, args.seed, args.faults, args.between, args.seconds, args.targets, kind)
    print(json.dumps(report, indent=1))
    return 0 if report["ended"] and not (report["differences"] or report["bad"]) else 1


if __name__ == "__main__":
    sys.exit(main())
