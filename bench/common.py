"""What the benches share: the paths run in turn, each in its own process; results are compared before any time is
taken.

A path is a class: its constructor builds everything, `answer()` returns what is compared, `run()` does once what is
timed (a value that it returns must be the same on all float32 paths). In its own process a path has the allocator, the
caches and the global settings that its user would have. The first round warms up and is not counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import resource
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

from winnow.launch import JOB_ENVIRONMENT

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
PLAIN = "plain"
Paths = Mapping[str, tuple[Callable[..., Any], Mapping[str, Any]]]


def arguments(doc: str | None, argv: Sequence[str] | None, repeats: int = 5, **extra: Any) -> argparse.Namespace:
    """The command line of a bench; `extra`: option name -> keyword arguments of add_argument."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu", help="cpu or cuda")
    p.add_argument("--threads", type=int, default=1, help="CPU threads of each path (1, as a job of the default has)")
    p.add_argument("--repeats", type=int, default=repeats, help=f"counted rounds ({repeats})")
    p.add_argument(
        "--tiny", action="store_true", help="sizes of a test: one round, in this process; times mean nothing"
    )
    p.add_argument("--out", type=Path, default=FOLDER, help="folder of the JSON files (docs/benchmarks)")
    for name, settings in extra.items():
        p.add_argument(f"--{name.replace('_', '-')}", **settings)
    args = p.parse_args(argv)
    if args.tiny:
        args.repeats = 1
    return args


class Timed:
    """A path in this process."""

    def __init__(self, make: Callable[..., Any], settings: Mapping[str, Any]):
        self.path, self.cuda = make(**settings), str(settings.get("device", "cpu")).startswith("cuda")

    def answer(self) -> Any:
        return self.path.answer()

    def seconds(self) -> tuple[float, float, Any]:
        """Wall seconds and CPU seconds of one run, and its value."""
        begun, cpu = time.perf_counter(), time.process_time()
        value = self.path.run()
        if self.cuda:
            import torch

            torch.cuda.synchronize()
        return time.perf_counter() - begun, time.process_time() - cpu, value

    def peak_mib(self) -> float:
        """Largest resident memory so far; on a GPU, largest allocation there."""
        if self.cuda:
            import torch

            return torch.cuda.max_memory_allocated() / 2**20
        status = Path(
            "/proc/self/status"
        ).read_text()  # ru_maxrss would begin at that of the process that started this one
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]

    def close(self) -> None:
        """Nothing to end."""


class Remote:
    """A path in a process of its own, by default in the environment of winnow's jobs; the same methods."""

    def __init__(
        self, make: Callable[..., Any], settings: Mapping[str, Any], environment: Mapping[str, str] = JOB_ENVIRONMENT
    ):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, dict(settings)), daemon=True)
        with patch.dict(os.environ, environment):
            self.process.start()
        theirs.close()
        self._receive()

    def _receive(self) -> Any:
        done, value = self.pipe.recv()
        if not done:
            raise RuntimeError(f"a path failed:\n{value}")
        return value

    def _ask(self, method: str) -> Any:
        self.pipe.send(method)
        return self._receive()

    def answer(self) -> Any:
        return self._ask("answer")

    def seconds(self) -> tuple[float, float, Any]:
        return self._ask("seconds")

    def peak_mib(self) -> float:
        return self._ask("peak_mib")

    def close(self) -> None:
        """End the process, so that its CPU time is ours and its memory free."""
        self.pipe.close()
        self.process.join()


def _serve(pipe: Any, make: Callable[..., Any], settings: dict[str, Any]) -> None:
    try:
        side = Timed(make, settings)
        pipe.send((True, None))
        while True:
            pipe.send((True, getattr(side, pipe.recv())()))
    except EOFError:
        return
    except Exception:
        pipe.send((False, traceback.format_exc()))


def race(
    case: str,
    paths: Paths,
    agree: Callable[[str, Any, Any], dict[str, float]],
    goals: Mapping[str, float],
    args: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Compare, then run the paths in turn; one row per path besides `plain`, its ratio being plain's time over its own.

    `agree(path, plain's answer, its answer)` raises when they differ and returns by how much.
    """
    sides: dict[str, Timed | Remote] = {}
    try:
        for name, (make, settings) in paths.items():
            environment = {} if name == PLAIN else JOB_ENVIRONMENT
            sides[name] = Timed(make, settings) if args.tiny else Remote(make, settings, environment)
        reference = sides[PLAIN].answer()
        same = {name: agree(name, reference, side.answer()) for name, side in sides.items() if name != PLAIN}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(args.repeats + 1):
            values = {}
            for name, side in sides.items():
                wall, cpu, values[name] = side.seconds()
                times[name].append((wall, cpu))
            differing = [n for n, v in values.items() if v != values[PLAIN] and n != "bf16"]
            assert not differing, f"{case}: {differing[0]} gives {values[differing[0]]}, plain {values[PLAIN]}"
        peaks = {name: side.peak_mib() for name, side in sides.items()}
    finally:
        for side in sides.values():
            side.close()
    goal = {} if args.tiny else goals
    rows = [_row(case, name, times, same[name], goal.get(name), peaks) for name in sides if name != PLAIN]
    for row in rows:
        show(row)
    return rows


def _row(
    case: str,
    name: str,
    times: Mapping[str, list[tuple[float, float]]],
    same: Mapping[str, float],
    goal: float | None,
    peaks: Mapping[str, float],
) -> dict[str, Any]:
    (plain, plain_cpu), (ours, own_cpu) = (zip(*times[n][1:], strict=True) for n in (PLAIN, name))
    ratios = sorted(a / b for a, b in zip(plain, ours, strict=True))
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    # the CPU time's ratio tells little on a GPU, but on a busy machine it moves less than the wall time's
    cpu_ratio = statistics.median(a / max(b, 1e-9) for a, b in zip(plain_cpu, own_cpu, strict=True))
    return {
        "case": case, "path": name, "value": statistics.median(ratios), "unit": "x", "goal": goal, "at_most": False,
        "low": ratios[0], "high": ratios[-1], "quartiles": [quartiles[0], quartiles[2]], "repeats": len(ratios),
        "plain_seconds": statistics.median(plain), "seconds": statistics.median(ours), "cpu_ratio": cpu_ratio,
        "plain_peak_mib": round(peaks[PLAIN]), "peak_mib": round(peaks[name]), "differences": dict(same),
    }  # fmt: skip


def measured(
    case: str, what: str, value: float, unit: str, goal: float | None = None, at_most: bool = True, **more: Any
) -> dict[str, Any]:
    """A row that is no race: one value and what it should reach."""
    row = {"case": case, "path": what, "value": value, "unit": unit, "goal": goal, "at_most": at_most, **more}
    show(row)
    return row


def met(row: Mapping[str, Any]) -> bool | None:
    """Whether the row reaches its goal; None without one."""
    if row["goal"] is None:
        return None
    return row["value"] <= row["goal"] if row["at_most"] else row["value"] >= row["goal"]


def show(row: Mapping[str, Any]) -> None:
    """One line on the terminal."""
    text = f"{row['case']}, {row['path']}: {row['value']:.3g} {row['unit']}"
    if "low" in row:
        text += f" ({row['low']:.2f}-{row['high']:.2f}; {row['plain_seconds']:.3g} s against {row['seconds']:.3g} s"
        text += f"; CPU time {row['cpu_ratio']:.2f})"
    if row["goal"] is not None:
        text += f", goal {'<=' if row['at_most'] else '>='} {row['goal']:g}: {'met' if met(row) else 'MISSED'}"
    print(text, flush=True)


class Run:
    """Collects a bench's rows and writes its JSON with the machine, and with how busy others kept it meanwhile."""

    def __init__(self, name: str, args: argparse.Namespace):
        self.name, self.args, self.rows = name, args, list[dict[str, Any]]()
        self.begun, self.busy, self.own = time.time(), _busy_seconds(), _own_seconds()

    def add(self, *rows: dict[str, Any]) -> None:
        self.rows += rows

    def write(self) -> None:
        wall = time.time() - self.begun
        others = max(0.0, (_busy_seconds() - self.busy) - (_own_seconds() - self.own)) / (wall * (os.cpu_count() or 1))
        suffix = "" if self.args.device == "cpu" else f"_{self.args.device.split(':')[0]}"
        record = {
            "machine": machine(self.args.device), "threads": self.args.threads, "device": self.args.device,
            "date": time.strftime("%Y-%m-%d"), "wall_seconds": round(wall, 1), "others_percent": round(100 * others, 1),
            "rows": self.rows,
        }  # fmt: skip
        self.args.out.mkdir(parents=True, exist_ok=True)
        (self.args.out / f"{self.name}{suffix}.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def _busy_seconds() -> float:
    """CPU seconds that this machine has spent on anything, or that its host took, since it started."""
    user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in usages)


def machine(device: str = "cpu") -> dict[str, Any]:
    """The processor (and GPU), what it can do, and the versions that decide the times."""
    info = Path("/proc/cpuinfo").read_text()
    field = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in info.splitlines())}
    found = {
        "processor": field.get("model name", platform.machine()), "cores": os.cpu_count(),
        "python": platform.python_version(),
        "bf16_instructions": "avx512_bf16" in field.get("flags", "") or "amx_bf16" in field.get("flags", ""),
        "torch": version("torch"),
    }  # fmt: skip
    if device.startswith("cuda"):
        import torch

        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def relative(found: Any, expected: Any) -> float:
    """|found - expected| / |expected| in the Euclidean norm, of arrays or numbers."""
    import numpy as np

    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-300))
