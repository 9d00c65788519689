"""What a pipeline's table comes to: verdicts in words, and a table of at most eight columns. Plain text; no pandas, so
reports start at once.

Each pipeline has a `summary.py` with `summary(rows) -> Summary`, `rows` being those of its CSV as they stand there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite, sqrt

CLEAR = 2.0  # standard errors from which on a comparison counts as more than chance
COLUMNS = 8
ROWS = 6  # of a first screen

Row = Mapping[str, str]


@dataclass
class Summary:
    """Verdicts, one a line, and the small table; `won`: the numbers of its rows that are marked."""

    verdicts: list[str]
    header: list[str]
    rows: list[list[str]]
    won: set[int] = field(default_factory=set)
    more: int = 0  # rows that the whole table has beyond these


def number(row: Row, column: str) -> float | None:
    """A cell as a number; None where it is empty or the table has no such column."""
    try:
        value = float(row.get(column) or "nan")
    except ValueError:
        return None
    return value if isfinite(value) else None


def error(row: Row, column: str, seeds: str = "seeds") -> float | None:
    """The standard error of a mean, from its standard deviation in `column`; None of one seed."""
    deviation, count = number(row, column), number(row, seeds) or 0
    return None if deviation is None or count < 2 else deviation / sqrt(count)


def mean(row: Row, column: str, deviation: str) -> str:
    """`91.2 ± 0.4`: a mean with its standard error; without one, the mean alone."""
    value, spread = number(row, column), error(row, deviation)
    if value is None:
        return ""
    return f"{value:.1f}" if spread is None else f"{value:.1f} ± {spread:.1f}"


def percent(row: Row, column: str) -> str:
    """A percentage, short."""
    value = number(row, column)
    return "" if value is None else f"{value:.3g}"


def whole(row: Row, column: str) -> str:
    """A count."""
    value = number(row, column)
    return "" if value is None else f"{value:.0f}"


def sureness(margin: float | None, seeds: float | None) -> str:
    """How far a comparison can be trusted, in words."""
    if seeds is not None and seeds < 2:
        return "1 seed, so nothing is known of chance"
    if margin is None:
        return "seeds do not differ, so nothing is known of chance"
    words = "clear" if abs(margin) >= CLEAR else "within chance"
    return f"{words}: {abs(margin):.1f} standard errors, {seeds:.0f} seeds"


def flag(row: Row, column: str) -> str:
    """`yes (+2.3 SE)`, `no (1 seed)`; empty where the question stays open."""
    value, margin, seeds = number(row, column), number(row, f"{column}_margin_se"), number(row, f"{column}_seeds")
    if value is None:
        return ""
    sure = f"{margin:+.1f} SE" if margin is not None else ("1 seed" if seeds == 1 else "no spread")
    return f"{'yes' if value else 'no'} ({sure})"


def groups(rows: Iterable[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the values of these columns, in the order of their first."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(c, "") for c in columns), []).append(row)
    return found
