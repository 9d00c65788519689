"""Which jobs of a cluster run share a SLURM job: those of one ticket, as many as fit into a request.

A site grants a few submissions a minute, and a job of seconds costs a scheduler as much as one of hours. Members of a
pack wait for nothing but one ticket, so none waits for another's inputs; they run one after the other on what one of
them asks for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Job = tuple[str, tuple[tuple[str, str], ...]]  # rule, sorted wildcards


def job(rule: str, **wildcards: object) -> Job:
    """A job by its rule and wildcards."""
    return rule, tuple(sorted((name, str(value)) for name, value in wildcards.items()))


def _of(name: str) -> Any:
    return importlib.import_module(f"winnow.pipelines.{name}.packs")


def rules(root: Any) -> list[str]:
    """The rules of which there may be members: each pipeline's `packs.RULES`."""
    return [rule for name in root.sections() for rule in _of(name).RULES]


def members(root: Any) -> Iterator[tuple[str, list[Job]]]:
    """The ticket, and the jobs that run for it one after the other: each pipeline's `packs.members(section)`."""
    for name, section in root.sections().items():
        yield from _of(name).members(section)


def packed(
    found: Iterable[tuple[str, list[Job]]], minutes: Callable[[Job], float], most: int, longest: float
) -> dict[Job, str]:
    """The pack of each job: at most `most` members of one ticket in a row, of at most `longest` minutes together.

    A member that is longer by itself is a pack by itself.
    """
    packs: dict[Job, str] = {}
    filled: dict[str, tuple[int, int, float]] = {}  # ticket -> number of its last pack, members and minutes in it
    for ticket, jobs in found:
        number, count, sum_ = filled.get(ticket, (0, 0, 0.0))
        own = sum(minutes(j) for j in jobs)
        if count and (count == most or sum_ + own > longest):
            number, count, sum_ = number + 1, 0, 0.0
        filled[ticket] = number, count + 1, sum_ + own
        packs |= {j: f"{ticket}_{number}" for j in jobs}
    return packs
