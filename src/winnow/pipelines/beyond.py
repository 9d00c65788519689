"""What a pipeline can say of its tickets beyond their accuracy: whether their networks run faster here (`speed`), and
how they relate to one another (`relations`). Both are optional sections of a pipeline.

A pipeline that offers them has a module `beyond` with, for each kind, the pattern of its files (SPEED, RELATIONS), the
wildcards that its job follows, what the job gets, what it reads, and `rows(section, kind)`: the rows of its table.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

from winnow.config.jobs import Draw, RelationOptions, SpeedOptions
from winnow.config.parts import Corpus
from winnow.config.public_data import OTHER, PUBLIC
from winnow.schema import Part, key

KINDS = ("speed", "relations")


class MeasuredSpeed(SpeedOptions):
    """The optional output speed of a pipeline: times of this machine, of the first seed's tickets."""

    of: list[str] | None = key("rare_gems: branches; double_win: tickets, or their methods; null: all", None)


class Relations(RelationOptions):
    """The optional output relations of a pipeline."""

    of: list[str] | None = key("as in speed; dense networks too", None)
    pairs: list[Literal["seeds", "order"]] = key(
        "seeds: the tickets and networks of the first two seeds; order (rare_gems): one ticket and its weights, "
        "trained "
        "on two orders of the data", factory=lambda: ["seeds", "order"],
    )  # fmt: skip


class Row(Part):
    """One row of a table: what tells it from others, and the file that was measured."""

    names: dict[str, str] = key("column -> value")
    file: str = key("metrics of the stage speed or compare_tickets")


class Table(Part):
    """What the stages speed_table and relations_table get."""

    rows: list[Row] = key("one a measurement")


def module(name: str) -> Any:
    """The module `beyond` of a pipeline."""
    return importlib.import_module(f"winnow.pipelines.{name}.beyond")


def asked_for(section: Any) -> list[str]:
    """The kinds that a section sets."""
    return [kind for kind in KINDS if getattr(section, kind, None) is not None]


def table(name: str, section: Any, kind: str) -> Table:
    """The rows of one kind."""
    return Table(rows=module(name).rows(section, kind))


def drawn(section: Any) -> Draw:
    """A figure without a title: its place tells what it shows."""
    return Draw()


def targets(name: str, section: Any) -> list[str]:
    """Tables and figures of the kinds that a section sets."""
    found = []
    for kind in asked_for(section):
        figures = [row.file.removesuffix(".json") + ".svg" for row in module(name).rows(section, kind)]
        found += [f"results/tables/{name}_{kind}.csv", *figures]
    return found


def chosen(options: Any, *names: str) -> bool:
    """Whether a ticket of these names is asked for."""
    return options.of is None or bool({*names} & {*options.of})


def options_of(cls: type[Part], given: Part) -> dict[str, Any]:
    """The keys of `cls` as a section gives them."""
    return {name: getattr(given, name) for name in cls.model_fields}


def check_of(section: Any, known: set[str]) -> None:
    """ValueError for a name in `of` that is none of the section's."""
    for kind in asked_for(section):
        for name in getattr(section, kind).of or []:
            if name not in known:
                raise ValueError(f"{kind}.of: {name!r} is none of {', '.join(sorted(known))}")


def side(data: Any) -> int | None:
    """Side of the images of a task; None where only its files tell, and of a corpus."""
    return None if isinstance(data, Corpus) else data.image_size or PUBLIC.get(data.dataset, OTHER).side
