"""How a run stands, from logs alone: what runs, what failed and why, what is left and how long it will take.

Each job writes a line at least every half minute and a last one with its result, so a log that ends otherwise and is
silent is that of a job that was killed. What there is to do stands in Snakemake's own log. Nothing has to run here: on
a cluster too, where the jobs' logs lie on the same file system. Positions and results are in the logs whatever
`log_level` says.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from winnow.errors import WinnowError, printable
from winnow.progress import SILENCE, duration

SILENT = 3 * SILENCE  # seconds after which a job that was at work is taken for dead
TAIL = 1 << 14
MOST = 20  # jobs of a kind that are shown
_CLOCK = re.compile(r"^\d\d:\d\d:\d\d ")
_EPOCH = re.compile(r"^epoch \d+/\d+  ")
_FAILED = re.compile(r"^winnow [\w ]+: error: |^winnow\.stages\.\w+: .* killed by signal")
_WHEN = "%a %b %d %H:%M:%S %Y"


@dataclass(frozen=True)
class JobLog:
    """One job by its log. state: done, running, failed, stopped or silent; `line`: the result, the position or the
    reason.
    """

    file: Path
    state: str
    line: str
    epoch: str  # the last epoch that ended
    written: float  # seconds since 1970


def job_log(file: Path, now: float) -> JobLog:
    """Read the end of a job's log."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - TAIL))
        text = stream.read().decode(errors="replace")
    lines = [printable(_CLOCK.sub("", line)) for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "nothing written yet"
    epoch = next((line for line in reversed(lines) if _EPOCH.match(line)), "")
    written = file.stat().st_mtime
    failure = next((line for line in reversed(lines) if _FAILED.match(line)), None)
    if last.startswith("done in "):
        state = "done"
    elif failure:
        state, last = "failed", failure
    elif "Traceback (most recent call last):" in lines:
        state = "stopped" if last == "KeyboardInterrupt" else "failed"  # Ctrl-C before the stage had begun
    elif last.startswith("stopped by "):
        state = "stopped"
    else:
        state = "running" if now - written < SILENT else "silent"
    return JobLog(file, state, last, epoch, written)


def jobs(results: Path, since: float = 0.0, now: float | None = None) -> list[JobLog]:
    """The jobs below `results` whose logs were written to since then, the oldest first."""
    now = time.time() if now is None else now
    files = [f for f in results.rglob("*.log") if f.is_file() and f.stat().st_mtime >= since]
    return sorted((job_log(f, now) for f in files), key=lambda j: (j.written, j.file))


@dataclass
class Workflow:
    """What Snakemake's log tells of its last run."""

    file: Path
    counts: dict[str, int] = field(default_factory=dict)  # rule -> jobs
    finished: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)  # rule -> of the finished jobs whose start was told
    command: str = ""
    begun: float = 0.0
    newest: float = 0.0
    ended: bool = False

    @property
    def total(self) -> int:
        """Jobs of the run."""
        return sum(self.counts.values())

    @property
    def left(self) -> dict[str, int]:
        """Rule -> jobs that have not ended."""
        return {rule: n - self.finished[rule] for rule, n in self.counts.items() if n > self.finished[rule]}

    def seconds_left(self, now: float) -> float | None:
        """Wall time until all is done at the pace so far; None before the first job has ended.

        Where Snakemake told when jobs began, a job that is left counts with the mean of its rule's, and as many run
        side by side as have so far; otherwise every job counts alike.
        """
        done, elapsed = sum(self.finished.values()), (self.newest if self.ended else now) - self.begun
        if not done:
            return None
        known = [s for rule in self.seconds.values() for s in rule]
        if not known or sum(known) == 0:
            return elapsed / done * (self.total - done)
        usual = statistics.mean(known)
        ahead = sum(n * statistics.mean(self.seconds.get(rule) or [usual]) for rule, n in self.left.items())
        return ahead / max(1.0, sum(known) / max(1.0, elapsed))


def workflow(folder: Path) -> Workflow | None:
    """The newest run of Snakemake in a working folder that had work; None where none was."""
    for file in sorted((folder / ".snakemake/log").glob("*.snakemake.log"), reverse=True):
        found = _read(file)
        if found.counts:
            return found
    return None


def _read(file: Path) -> Workflow:
    found, table, when, started = Workflow(file), False, 0.0, dict[str, float]()
    found.begun = datetime.strptime(file.name[:17], "%Y-%m-%dT%H%M%S").timestamp()
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if line.startswith("Job stats:"):
            table = True
        elif table and len(words) == 2 and words[1].isdecimal():
            if words[0] not in ("total", "all"):  # `all` is no work
                found.counts[words[0]] = int(words[1])
        elif table and not words:
            table = False
        elif line.startswith("  Command: "):
            found.command = line.removeprefix("  Command: ")
        elif match := re.match(r"\[(\w{3} \w{3} +\d+ [\d:]{8} \d{4})\]", line):
            when = found.newest = datetime.strptime(" ".join(match[1].split()), _WHEN).timestamp()
        elif match := re.match(r"(?:Job (\d+): |    jobid: (\d+)$)", line):
            started[match[1] or match[2]] = when
        elif (match := re.match(r"Finished jobid: (\d+) \(Rule: (\S+)\)", line)) and match[2] in found.counts:
            found.finished[match[2]] += 1
            if match[1] in started:
                found.seconds.setdefault(match[2], []).append(when - started[match[1]])
        found.ended = found.ended or line.startswith(("Complete log", "Exiting because"))
    return found


def status(folder: Path, now: float | None = None) -> Iterator[str]:
    """What there is to say of the working folder, line by line. Raises WinnowError where nothing has run."""
    now = time.time() if now is None else now
    run, results = workflow(folder), folder / "results"
    found = jobs(results, run.begun - 1 if run else 0.0, now)
    if run is None and not found:
        raise WinnowError(f"{folder}: no job has run here; give the folder in which winnow run was started")
    if run is not None and run.ended and not run.left:
        found = [j for j in found if j.state == "failed"]  # all is done, and logs of an older winnow end in another way
    for state, heading in (("running", "running"), ("failed", "failed"), ("silent", "silent, so probably killed"),
                           ("stopped", "stopped, to go on with the next run")):  # fmt: skip
        chosen = [j for j in found if j.state == state]
        if chosen:
            yield f"{heading}: {len(chosen)}" + (f", the last {MOST} of which are" if len(chosen) > MOST else "")
        for j in chosen[-MOST:]:
            yield f"  {j.file.relative_to(folder)}" + (
                f" (last line {duration(now - j.written)} ago)" if state == "silent" else ""
            )
            yield from (f"    {line}" for line in dict.fromkeys((j.epoch, j.line)) if line)
    if run is None:
        yield f"done: {sum(j.state == 'done' for j in found)}; what is left is not known: no log of snakemake lies here"
        return
    done, left = sum(run.finished.values()), run.left
    yield f"done: {done} of {run.total} jobs since {datetime.fromtimestamp(run.begun):%Y-%m-%d %H:%M}"
    if not left:
        return
    yield "left: " + ", ".join(f"{n} {rule}" for rule, n in left.items())
    if run.ended:
        yield "snakemake has ended; run the same command again for what is left"
    elif (seconds := run.seconds_left(now)) is not None:
        end = datetime.fromtimestamp(now + seconds)
        yield f"about {duration(seconds)} at the pace so far: done at {end:%Y-%m-%d %H:%M}"
    else:
        yield "how long that takes is not known before the first job has ended"


def main(argv: Sequence[str] | None = None) -> int:
    """Print it; exit code 0, or 2 when a job failed."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(prog="winnow status", description=summary, epilog=details)
    p.add_argument("folder", type=Path, nargs="?", default=Path(), help="the working folder of the run (.)")
    p.add_argument("--every", type=float, metavar="SECONDS", help="print it again and again until all is done")
    args = p.parse_args(argv)
    while True:
        lines = list(status(args.folder))
        print("\n".join(lines), flush=True)
        if args.every is None or not any(line.startswith(("about ", "how long", "running")) for line in lines):
            return 2 if any(line.startswith("failed: ") for line in lines) else 0
        time.sleep(args.every)
        print()
