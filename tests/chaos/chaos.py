"""A whole workflow under faults at random times, which must end with the bytes of a calm run: `python
tests/chaos/chaos.py --help`.

Two folders run the same configuration: one in peace, the other while jobs and the head are killed, stopped and paused,
the scratch fills up, results turn read-only, a second head starts and the clock jumps. After each end of the head a new
one is started, as a user would. Faults are drawn from a seed; when they fall in a job's life depends on the machine,
and the result must not.

Everything stays in one temporary folder and among processes that this program started (they carry a token in their
environment). Full and read-only folders are file systems of their own and need root; without it these two faults are
left out, and the report says so.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from winnow.records import differences, verify

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "WINNOW_CHAOS"
KINDS = ("kill a job", "stop a job", "pause a job", "kill the head", "stop the head", "two heads", "clock jumps",
 "scratch full", "results read-only")  # fmt: skip
MOUNTS = ("scratch full", "results read-only")


def mount(*words: str) -> bool:
    """Whether `mount` could do it."""
    return subprocess.run(["mount", *words], capture_output=True).returncode == 0


class Chaos:
    """One workflow in one folder, and what happens to it."""

    def __init__(self, folder: Path, config: dict[str, Any], seed: int, targets: list[str]):
        self.folder, self.targets, self.random = folder, targets, random.Random(seed)
        self.token = uuid.uuid4().hex
        self.events: collections.Counter[str] = collections.Counter()
        self.typed: collections.Counter[str] = collections.Counter()
        self.mounted: list[Path] = []
        self.paused: list[int] = []
        for name in ("results", "scratch"):
            (folder / name).mkdir(parents=True)
        self.kinds = list(KINDS)
        if not self._mounts():
            self.kinds = [k for k in KINDS if k not in MOUNTS]
        self.file = folder / "config.yaml"
        self.file.write_text(yaml.safe_dump(config | {"scratch": "scratch/work"}))

    def _mounts(self) -> bool:
        results, scratch = self.folder / "results", self.folder / "scratch"
        if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(scratch)):
            return False
        self.mounted.append(scratch)
        if not mount("--bind", str(results), str(results)):
            return False
        self.mounted.append(results)
        return True

    def close(self) -> None:
        """End every process that is left, and take the file systems away."""
        for pid in self.processes():
            self._signal(pid, signal.SIGKILL)
        for place in reversed(self.mounted):
            for _ in range(20):
                if subprocess.run(["umount", str(place)], capture_output=True).returncode == 0:
                    break
                time.sleep(0.2)
        self.mounted.clear()

    # processes

    def command(self, *words: str) -> list[str]:
        """A call of snakemake in the folder."""
        return [
            sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder),
            "--configfile", str(self.file), *words,
        ]  # fmt: skip

    def head(self, *words: str) -> subprocess.Popen[str]:
        """A head, as the user types it."""
        environment = os.environ | {TOKEN: self.token, "OMP_NUM_THREADS": "1"}
        log = (self.folder / f"head-{sum(self.typed.values())}.log").open("w")
        with log:
            return subprocess.Popen(
                self.command("--cores", "2", "--keep-going", "--rerun-incomplete", *words, *self.targets),
                stdout=log, stderr=subprocess.STDOUT, text=True, env=environment, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip

    def processes(self, words: str = "") -> list[int]:
        """Those that this workflow started and whose command line holds `words`."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if f"{TOKEN}={self.token}".encode() in (entry / "environ").read_bytes() and words.encode() in (
                        entry / "cmdline"
                    ).read_bytes().replace(b"\0", b" "):
                        found.append(int(entry.name))
                except OSError:  # it has ended, or is another user's
                    continue
        return found

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    # faults

    def fault(self, head: subprocess.Popen[str]) -> None:
        """One fault, drawn among those that can happen now."""
        jobs = self.processes("-m winnow.stages")
        kind = self.random.choice(self.kinds)
        if kind.endswith("a job") and not jobs:
            return
        self.events[kind] += 1
        if kind == "kill a job":
            self._signal(self.random.choice(jobs), signal.SIGKILL)
        elif kind == "stop a job":
            self._signal(self.random.choice(jobs), signal.SIGTERM)
        elif kind == "pause a job":
            pid = self.random.choice(jobs)
            self._signal(pid, signal.SIGSTOP)
            time.sleep(1)
            self._signal(pid, signal.SIGCONT)
        elif kind == "kill the head":
            self._signal(head.pid, signal.SIGKILL)
            if self.random.random() < 0.5:  # with the whole machine; else its jobs live on without it
                for pid in self.processes():
                    self._signal(pid, signal.SIGKILL)
        elif kind == "stop the head":
            self._signal(head.pid, signal.SIGTERM)
        elif kind == "two heads":
            second = self.head()
            try:
                second.wait(60)
            except subprocess.TimeoutExpired:  # the first one had just ended, and this is the head now
                self._signal(second.pid, signal.SIGTERM)
                second.wait()
        elif kind == "clock jumps":
            now = time.time() + self.random.choice([-86400, 86400])
            for path in (self.folder / "results").rglob("*"):
                if path.is_file() and self.random.random() < 0.5:
                    os.utime(path, (now, now))
        elif kind == "scratch full":
            self._full()
        else:
            results = str(self.folder / "results")
            if mount("-o", "remount,bind,ro", results):
                time.sleep(2)
                mount("-o", "remount,bind,rw", results)

    def _full(self) -> None:
        filler = self.folder / "scratch/filler"
        with filler.open("wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(1 << 16))
            except OSError:
                time.sleep(2)
        filler.unlink()

    def run(self, faults: int, between: float, seconds: float) -> bool:
        """Start heads until one ends well, with `faults` faults some `between` seconds apart; False when the time is
        up.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.typed["snakemake"] += 1
            head = self.head()
            while head.poll() is None and time.monotonic() < until:
                wait = self.random.expovariate(1 / between)
                try:
                    head.wait(
                        min(wait, until - time.monotonic())
                        if sum(self.events.values()) < faults
                        else max(0.1, until - time.monotonic())
                    )
                except subprocess.TimeoutExpired:
                    if sum(self.events.values()) < faults:
                        self.fault(head)
            if head.poll() == 0 and sum(self.events.values()) >= faults:
                return self._settled(until)
            if head.poll() == 0:  # done before all faults came: work is taken away, as a user's `rm` would
                for path in self.random.sample(sorted((self.folder / "results").rglob("*.safetensors")), 2):
                    path.unlink()
            if "LockException" in (log := self._log()) or "Directory cannot be locked" in log:
                self.typed["snakemake --unlock"] += 1
                subprocess.run(self.command("--unlock"), capture_output=True, cwd=self.folder)
        return False

    def _log(self) -> str:
        return max(self.folder.glob("head-*.log"), key=lambda p: int(p.stem.split("-")[1])).read_text()

    def _settled(self, until: float) -> bool:
        """Whether jobs that lost their head come to an end, and a last head ends well after them."""
        while self.processes() and time.monotonic() < until:
            time.sleep(0.2)
        self.typed["snakemake"] += 1
        return self.head().wait() == 0


def play(config: dict[str, Any], seed: int, faults: int, between: float, seconds: float, targets: list[str],
 say: Callable[..., None] = print) -> dict[str, Any]:  # fmt: skip
    """Run calmly, run under faults, compare; the report as a dictionary."""
    with tempfile.TemporaryDirectory(prefix="winnow-chaos-", ignore_cleanup_errors=True) as name:
        calm, wild = Chaos(Path(name, "calm"), config, seed, targets), Chaos(Path(name, "wild"), config, seed, targets)
        try:
            begun = time.monotonic()
            calm.typed["snakemake"] += 1
            if calm.head().wait() != 0:
                raise RuntimeError(f"the calm run failed:\n{calm._log()[-3000:]}")
            say(f"calm run: {time.monotonic() - begun:.0f} s")
            begun = time.monotonic()
            ended = wild.run(faults, between, seconds)
            here = Path.cwd()
            os.chdir(wild.folder)
            try:
                found, count = differences(calm.folder / "results", Path("results"))
                bad, _, _ = verify(Path("results"))
            finally:
                os.chdir(here)
            left = [str(p.relative_to(wild.folder)) for p in wild.folder.rglob(".*.tmp")]
            return {
                "ended": ended, "seconds": round(time.monotonic() - begun), "faults": dict(wild.events),
                "typed": dict(wild.typed),
                "left out": [k for k in KINDS if k not in wild.kinds], "artifacts": count, "differences": found,
                "bad": [f"{b.file}: {b.reason}" for b in bad], "leftovers": left,
                "last log": "" if ended else wild._log()[-2000:],
            }  # fmt: skip
        finally:
            for one in (calm, wild):
                one.close()


def main(arguments: list[str] | None = None) -> int:
    """Play, print the report as JSON; 0 when the bytes are those of the calm run."""
    p = argparse.ArgumentParser(prog="python tests/chaos/chaos.py", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument(
        "--config", type=Path, default=ROOT / "tests/workflow/tiny.yaml", help="what to run (tests/workflow/tiny.yaml)"
    )
    p.add_argument("--seed", type=int, default=0, help="of the faults (0)")
    p.add_argument("--faults", type=int, default=40, help="how many (40)")
    p.add_argument("--between", type=float, default=4.0, help="seconds between two faults, on average (4)")
    p.add_argument("--seconds", type=float, default=1500.0, help="at most, for the run under faults (1500)")
    p.add_argument("targets", nargs="*", help="what to make (every table and figure)")
    args = p.parse_args(arguments)
    config = yaml.safe_load(args.config.read_text()) | {"checkpoint_seconds": 0.001, "device": "cpu"}
    report = play(config, args.seed, args.faults, args.between, args.seconds, args.targets)
    print(json.dumps(report, indent=1))
    return 0 if report["ended"] and not (report["differences"] or report["bad"]) else 1


if __name__ == "__main__":
    sys.exit(main())
