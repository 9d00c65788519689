"""A grid of 34 jobs on a real cluster of two nodes, and what becomes of it when a part is cut off: docs/cluster.md's
figures.

    python tests/slurm/grid.py [EVENT ...]

EVENT: grouped, ungrouped, edited, cancelled, killed, node; all of them: about 15 minutes. As root on Debian, with the
tools that bring up a cluster (tools/slurm_up.sh of the shared folder). What had finished is known by the time in its
record: a job that ran again has another.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from conftest import ROOT, shared_folder  # noqa: E402

from tests.slurm.conftest import Repository, accounted, run_id, told  # noqa: E402
from winnow.artifacts import sha256_file  # noqa: E402

NODES = {"NODES": "2", "NODE_CPUS": "1", "NODE_MEM_MB": "8000", "NODE_GPUS": "1"}
TABLE, RUN = "results/tables/double_win.csv", ("--profile", "slurm")
SMALL = yaml.safe_load((ROOT / "tests/slurm/small.yaml").read_text())


def configuration(seeds: int = 4) -> dict:
    """Two tickets, two ways of transfer, so many seeds; transferred networks are deleted once they are measured."""
    config = copy.deepcopy(SMALL)
    config["double_win"] |= {"seeds": [*range(seeds)], "source_seed": 0}
    config["double_win"]["transfer"]["keep_models"] = "table"
    return config


class Grid(Repository):
    """A working folder with such a grid."""

    def after(self, base: Grid) -> Grid:
        """With what `base` has finished before its transfers."""
        for name in ("results", ".snakemake"):
            shutil.copytree(base.folder / name, self.folder / name, symlinks=True)
        for path in [*self.folder.glob("results/double_win/*/*/*/transfer"), self.folder / "results/tables"]:
            shutil.rmtree(path)
        return self

    def finished(self) -> dict[str, str]:
        """Record of each job that is done -> when it was done."""
        found = {}
        for path in (self.folder / "results").rglob("*.json"):
            found[str(path.relative_to(self.folder))] = json.loads(path.read_text())["run"]["finished"]
        return found

    def start(self) -> tuple[subprocess.Popen[bytes], Path]:
        """The head process, and its log."""
        log = self.folder / "head.log"
        with log.open("w") as stream:
            words = self.command(*RUN, TABLE)
            return subprocess.Popen(words, cwd=self.folder, stdout=stream, stderr=stream), log


def timed(what: str, grid: Grid, *arguments: str) -> str:
    """Run to the end; a line with its time and its SLURM jobs."""
    begun = time.monotonic()
    said = grid.run(*arguments)
    taken = time.monotonic() - begun
    jobs = accounted(run_id(said), "JobID", "State") if "SLURM run ID" in said else []
    print(f"{what}: {taken:.0f} s, {len(jobs)} sbatch calls; {len(grid.finished())} records", flush=True)
    return said


def wait(holds: Callable[[], object], seconds: float = 300) -> object:
    """The first true value of holds()."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, told("squeue")
        time.sleep(0.2)
    return value


def cut_off(name: str, grid: Grid, act: Callable[[str, subprocess.Popen[bytes]], None], *typed: list[str]) -> None:
    """Act when packs are half done; then what a user types. Prints what ran again although it had finished."""
    begun = time.monotonic()
    head, log = grid.start()
    pack = Path("results/double_win/tiny/std/s0/transfer")
    wait(lambda: len(list((grid.folder / pack).rglob("evaluation.json"))) >= 3 or head.poll() is not None)
    assert head.poll() is None, log.read_text()[-3000:]
    before, run = grid.finished(), run_id(log.read_text())
    act(run, head)
    code = head.wait(timeout=600)
    before = grid.finished() if typed else before  # what else had finished when the head ended
    jobs = len(accounted(run, "JobID"))
    print(f"{name}: the head ended with {code} after {time.monotonic() - begun:.0f} s", flush=True)
    for words in typed:
        words = [w.replace("RUN_ID", run) for w in words]
        print(f"  typed: {' '.join(words)}", flush=True)
        command = grid.command(*words[1:]) if words[0] == "snakemake" else words
        done = subprocess.run(command, cwd=grid.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        jobs += len(accounted(run_id(done.stderr), "JobID")) if "SLURM run ID" in done.stderr else 0
    after = grid.finished()
    redone = [path for path in before if after.get(path) != before[path]]
    assert (grid.folder / TABLE).is_file()
    print(f"  {len(before)} jobs had finished, {len(redone)} of them ran again {redone[:4]}; {jobs} SLURM jobs in all")
    states = Counter(j["State"].split()[0] for j in accounted(run, "JobID", "State"))
    print(
        f"  states of the first run's SLURM jobs: {dict(states)}; {time.monotonic() - begun:.0f} s in all", flush=True
    )


def running(run: str) -> str:
    """A pack that runs now."""
    return told("squeue", "-h", f"--name={run}", "-t", "RUNNING", "-o", "%i").split()[0]


def cancel(run: str, _head: object) -> None:
    """One pack."""
    told("scancel", running(run))


def kill(_run: str, head: subprocess.Popen[bytes]) -> None:
    """The head, which no signal handler sees."""
    os.kill(head.pid, signal.SIGKILL)


def lose_node(run: str, _head: object) -> None:
    """The node of a running pack, for half a minute."""
    (node,) = told("squeue", "-h", "-j", running(run), "-o", "%N").split()
    told("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    time.sleep(30)
    told("scontrol", "update", f"NodeName={node}", "State=RESUME")


def same_bytes(one: Grid, other: Grid) -> int:
    """How many artifacts both have, alike to the byte; AssertionError for one that is not."""
    paths = [p for p in (one.folder / "results").rglob("*") if p.name.endswith((".safetensors", ".csv"))]
    for path in paths:
        assert sha256_file(path) == sha256_file(other.folder / path.relative_to(one.folder)), path
    return len(paths)


def main(events: list[str]) -> None:
    tools = shared_folder() / "tools"
    subprocess.run(["bash", str(tools / "slurm_up.sh")], check=True, env=os.environ | NODES)
    folder = Path(tempfile.mkdtemp(prefix="winnow-grid-"))
    wanted = set(events) or {"grouped", "ungrouped", "edited", "cancelled", "killed", "node"}
    again = ["snakemake", *RUN, TABLE]
    try:
        base = Grid(folder / "base", configuration())
        timed("grouped", base, *RUN, TABLE)
        if "grouped" in wanted:
            local = Grid(folder / "local", configuration())
            timed("one after the other, without a cluster", local, "--cores", "1", TABLE)
            print(f"  {same_bytes(base, local)} artifacts and tables are the same bytes", flush=True)
            assert "Nothing to be done" in base.run(*RUN, TABLE)
        if "ungrouped" in wanted:
            single = Grid(folder / "single", configuration())
            profile = single.folder / "profiles/slurm/config.yaml"
            lines = profile.read_text().splitlines()
            kept = [x for x in lines if not x.startswith(("group-components", "resources:", "set-resource-scopes"))]
            profile.write_text("\n".join(kept) + "\n")
            timed("every job a SLURM job", single, *RUN, TABLE)
        if "cancelled" in wanted:
            cut_off("a pack is cancelled", Grid(folder / "c", configuration(2)).after(base), cancel)
        if "killed" in wanted:
            words = (["scancel", "--name", "RUN_ID"], ["snakemake", "--unlock"], again)
            cut_off("the head is killed", Grid(folder / "k", configuration(2)).after(base), kill, *words)
        if "node" in wanted:
            cut_off("a node goes down", Grid(folder / "n", configuration(2)).after(base), lose_node)
        if "edited" in wanted:  # last: it changes `base`
            config = configuration()
            config["double_win"]["downstreams"][0]["evaluation"]["attack"] |= {"steps": 2}
            (base.folder / "my.yaml").write_text(yaml.safe_dump(config))
            before = base.finished()
            timed("another evaluation", base, *RUN, TABLE)
            changed = Counter(Path(p).name for p, at in base.finished().items() if before.get(p) != at)
            print(f"  made again: {dict(changed)}", flush=True)
    finally:
        subprocess.run(["bash", str(tools / "slurm_down.sh")], check=True, env=os.environ | {"WIPE": "1"})
        print(f"left in {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
