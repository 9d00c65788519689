"""One workflow in one folder, run by heads that a user starts, and the faults that befall it."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "WINNOW_CHAOS"
KINDS = ("kill a job", "stop a job", "pause a job", "kill the head", "stop the head", "two heads", "clock jumps",
         "scratch full", "results read-only")  # fmt: skip
MOUNTS = ("scratch full", "results read-only")


def mount(*words: str) -> bool:
    """Whether `mount` could do it."""
    return subprocess.run(["mount", *words], capture_output=True).returncode == 0


class Workflow:
    """One workflow in one folder, on this machine, and what happens to it."""

    kinds: tuple[str, ...] = KINDS
    words: tuple[str, ...] = ("--cores", "2", "--keep-going", "--rerun-incomplete")

    def __init__(self, folder: Path, config: dict[str, Any], seed: int, targets: list[str]):
        self.folder, self.targets, self.random = folder, targets, random.Random(seed)
        self.token = uuid.uuid4().hex
        own = {TOKEN: self.token, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
        self.environment = os.environ | own
        self.events: collections.Counter[str] = collections.Counter()
        self.typed: collections.Counter[str] = collections.Counter()
        self.mounted: list[Path] = []
        for name in ("results", "scratch"):
            (folder / name).mkdir(parents=True)
        self.possible = [k for k in self.kinds if k not in MOUNTS or self._mounts()]
        self.file = folder / "config.yaml"
        self.file.write_text(yaml.safe_dump(config | {"scratch": "scratch/work"}))

    def _mounts(self) -> bool:
        """Whether scratch and results are file systems of their own now."""
        results, scratch = self.folder / "results", self.folder / "scratch"
        if len(self.mounted) == 2:
            return True
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
            self.send(pid, signal.SIGKILL)
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
            *words, "--configfile", str(self.file),
        ]  # fmt: skip

    def head(self, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """A head, as the user types it; through the command `before`."""
        with (self.folder / f"head-{len(self.logs())}.log").open("w") as log:
            return subprocess.Popen(
                [*before, *self.command(*self.targets, *self.words)], stdout=log, stderr=subprocess.STDOUT, text=True,
                env=self.environment, cwd=self.folder, start_new_session=True,
            )  # fmt: skip

    def logs(self) -> list[str]:
        """What each head said, the first one first."""
        files = sorted(self.folder.glob("head-*.log"), key=lambda p: int(p.stem.split("-")[1]))
        return [f.read_text() for f in files]

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
    def send(pid: int, number: int) -> None:
        """A signal, unless the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    # faults

    def fault(self, head: subprocess.Popen[str]) -> None:
        """One fault, drawn among those that can happen now."""
        kind = self.random.choice(self.possible)
        jobs = self.processes("-m winnow.stages")
        if kind.endswith("a job") and not jobs:
            return
        self.events[kind] += 1
        if kind == "kill a job":
            self.send(self.random.choice(jobs), signal.SIGKILL)
        elif kind == "stop a job":
            self.send(self.random.choice(jobs), signal.SIGTERM)
        elif kind == "pause a job":
            self.pause([self.random.choice(jobs)], 1.0)
        elif kind == "kill the head":
            self.send(head.pid, signal.SIGKILL)
            self.headless()
        elif kind == "stop the head":
            self.send(head.pid, signal.SIGTERM)
        elif kind == "two heads":
            second = self.head()
            try:
                second.wait(60)
            except subprocess.TimeoutExpired:  # the first one had just ended, and this is the head now
                self.send(second.pid, signal.SIGTERM)
                second.wait()
        elif kind == "clock jumps":
            now = time.time() + self.random.choice([-86400, 86400])
            for path in (self.folder / "results").rglob("*"):
                if path.is_file() and self.random.random() < 0.5:
                    with contextlib.suppress(OSError):  # a job has just renamed it
                        os.utime(path, (now, now))
        elif kind == "scratch full":
            self._full()
        elif kind == "results read-only":
            results = str(self.folder / "results")
            if mount("-o", "remount,bind,ro", results):
                time.sleep(2)
                mount("-o", "remount,bind,rw", results)
        else:
            self.other_fault(kind)

    def headless(self) -> None:
        """The head was killed: half of the times with the whole machine; else its jobs live on without it."""
        if self.random.random() < 0.5:
            for pid in self.processes():
                self.send(pid, signal.SIGKILL)

    def other_fault(self, kind: str) -> None:
        """A fault of a kind that this place has beyond the usual ones."""
        raise NotImplementedError(kind)

    def pause(self, pids: list[int], seconds: float) -> None:
        """Let processes hang for a while."""
        for pid in pids:
            self.send(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in pids:
            self.send(pid, signal.SIGCONT)

    def _full(self) -> None:
        filler = self.folder / "scratch/filler"
        with filler.open("wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(1 << 16))
            except OSError:
                time.sleep(2)
        filler.unlink()

    # what a user does

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
                left = until - time.monotonic()
                try:
                    head.wait(min(wait, left) if self.events.total() < faults else max(0.1, left))
                except subprocess.TimeoutExpired:
                    if self.events.total() < faults:
                        self.fault(head)
            if head.poll() == 0 and self.events.total() >= faults:
                return self._settled(until)
            if head.poll() == 0:  # done before all faults came: work is taken away, as a user's `rm` would
                for path in self.random.sample(sorted((self.folder / "results").rglob("*.safetensors")), 2):
                    path.unlink()
            if "LockException" in (log := self.logs()[-1]) or "Directory cannot be locked" in log:
                self.unlock()
            if "clock skew" in log:
                self.set_back()
        return False

    def set_back(self) -> None:
        """Files dated in the future: Snakemake refuses whatever is made from them, until they are dated now."""
        self.typed["find results -newermt now -exec touch {} +"] += 1
        words = ["find", "results", "-newermt", "now", "-exec", "touch", "{}", "+"]
        subprocess.run(words, capture_output=True, cwd=self.folder)

    def unlock(self) -> None:
        """What a head says to type when another one was killed."""
        self.typed["snakemake --unlock"] += 1
        subprocess.run(self.command("--unlock"), capture_output=True, env=self.environment, cwd=self.folder)

    def busy(self) -> bool:
        """Whether jobs still run."""
        return bool(self.processes())

    def _settled(self, until: float) -> bool:
        """Whether jobs that lost their head come to an end, and a last head ends well after them."""
        while self.busy() and time.monotonic() < until:
            time.sleep(0.2)
        self.typed["snakemake"] += 1
        return self.head().wait() == 0
