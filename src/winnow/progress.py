"""How a long job tells where it is: a line at least every half minute, with position, rate and time left.

    with run.doing("epoch 1/10", total=4000, unit="step") as position:
        position.done += 1

    with speaking(run, log): ...     # in a stage: when nothing was logged for 25 seconds, the position is

The thread that speaks only reads a few numbers, so nothing that a job computes depends on it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

ALWAYS = 100  # level of what `winnow status` reads, above all that a log may leave out
SILENCE = 25.0  # seconds without a line after which one is written; with the time to notice it, under 30


def duration(seconds: float) -> str:
    """12.34 -> `12 s`, 150 -> `2 min 30 s`, 7260 -> `2 h 01 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(count: float, seconds: float, unit: str) -> str:
    """How fast: `12.3 steps/s`, or where one takes longer than a second `1.9 s/step`; empty before the first."""
    if count <= 0 or seconds <= 0:
        return ""
    each = seconds / count
    return f"{each:.1f} s/{unit}" if each >= 1.0 else f"{1 / each:.1f} {plural(unit)}/s"


def plural(unit: str) -> str:
    """step -> steps, batch -> batches."""
    return f"{unit}es" if unit.endswith("ch") else f"{unit}s"


def figures(record: Mapping[str, Any], most: int = 8) -> str:
    """The numbers of a record in one line, those of its parts under dotted names, at most so many."""
    flat = list(_flat(record))
    return ", ".join(flat[:most]) + (", ..." if len(flat) > most else "")


def _flat(record: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{above}{name} {value:.4g}" if isinstance(value, float) else f"{above}{name} {value}"


@dataclass
class Position:
    """Where some work is: `done` of `total` units, of which `first` were done before (a resumed run)."""

    what: str
    total: int
    unit: str
    done: int = 0
    figures: dict[str, float] = field(default_factory=dict)  # e.g. the loss so far
    count: Callable[[], int] | None = None  # where other processes do the work: how much is done
    begun: float = field(default_factory=time.monotonic)
    first: int = 0

    def left(self) -> str:
        """The time left, at the pace of what this run did; before its first unit, the time so far."""
        done, seconds = self.count() if self.count else self.done, time.monotonic() - self.begun
        here = done - self.first
        return f"{duration(seconds / here * (self.total - done))} left" if here > 0 else f"{duration(seconds)} so far"

    def text(self) -> str:
        """The position in one line."""
        done, seconds = self.count() if self.count else self.done, time.monotonic() - self.begun
        parts = [f"{self.what}: {done} of {self.total} {plural(self.unit)}"]
        parts += [f"{name} {value:.4g}" for name, value in self.figures.items()]
        return ", ".join(filter(None, [*parts, rate(done - self.first, seconds, self.unit), self.left()]))


class _Speaks(Protocol):
    position: Position | None


class _Listener(logging.Filter):
    """Remembers when the last line was written."""

    def __init__(self) -> None:
        super().__init__()
        self.last = time.monotonic()

    def filter(self, record: logging.LogRecord) -> bool:
        self.last = time.monotonic()
        return True


@contextmanager
def speaking(run: _Speaks, log: logging.Logger, silence: float | None = None) -> Iterator[None]:
    """Within: whenever nothing was written to `log` for `silence` seconds (25), a line tells where `run` is."""
    begun, listener, ended = time.monotonic(), _Listener(), threading.Event()
    longest = SILENCE if silence is None else silence

    def speak() -> None:
        while not ended.wait(max(0.01, listener.last + longest - time.monotonic())):
            if time.monotonic() - listener.last >= longest:
                position = run.position
                told = position.text() if position else f"at work for {duration(time.monotonic() - begun)}"
                log.log(ALWAYS, "%s", told)

    log.addFilter(listener)
    thread = threading.Thread(target=speak, name="winnow-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        log.removeFilter(listener)
