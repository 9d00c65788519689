"""Labels of text files as class numbers: one numbering over all splits of a task, and no label taken for what it is
not.
"""

from __future__ import annotations

import decimal
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow.errors import WinnowError

log = logging.getLogger("winnow")
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
_ABSENT = frozenset(["", "-", "?", "nan", "null", "<na>", "n/a", "#n/a"])  # how tables say that there is no label


def class_of(value: Any) -> int | str:
    """The class that one cell names: a whole number from 0, or a name. ValueError with what it is instead."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _ABSENT:
            raise ValueError(f"{value!r} says that there is no label" if text else "it is empty")
        if _WHOLE.fullmatch(text):
            return _from_zero(int(text.partition(".")[0]), text)
        if _NUMBER.fullmatch(text):
            raise ValueError(f"{text[:40]} is no class number")
        return text
    if isinstance(value, int | float | decimal.Decimal | np.integer | np.floating):
        if value != value:
            raise ValueError("it is not a number (NaN)")
        if value in (float("inf"), float("-inf")) or value != int(value):
            raise ValueError(f"{value} is no class number")
        return _from_zero(int(value), str(value))
    raise ValueError("it is empty" if value is None else f"it is a {type(value).__name__}, not a number or a name")


def _from_zero(number: int, shown: str) -> int:
    if number < 0:
        raise ValueError(f"{shown} is below 0, as unlabelled examples are marked")
    return number


def numbered(columns: Mapping[Path, Sequence[Any]], column: str, classes: int) -> dict[Path, np.ndarray]:
    """Class numbers (int64) of every file's labels, 0..classes-1, by one rule over all of them.

    Numbers below `classes` are the classes; `classes` other numbers (1..5, or 0 and 4) are numbered in numerical order,
    names in alphabetical order, which the log says. WinnowError with file and row for what is no label, and for a count
    of classes that does not fit.
    """
    found: dict[Path, list[int | str]] = {}
    first: dict[type, tuple[Path, int, Any]] = {}
    for path, values in columns.items():
        found[path] = []
        for row, value in enumerate(values, 1):
            try:
                label = class_of(value)
            except ValueError as error:
                raise WinnowError(
                    f"{path}: row {row}, column {column!r}: no label ({error}); correct or drop the row"
                ) from None
            first.setdefault(type(label), (path, row, value))
            found[path].append(label)
    if len(first) > 1:
        (one, row_one, number), (other, row_other, name) = first[int], first[str]
        raise WinnowError(
            f"{other}: row {row_other}, column {column!r}: the label {name!r} is a name, {number!r} in row {row_one} "
            f"of {one} a "
            "number; use one kind"
        )
    known: list[Any] = sorted({label for labels in found.values() for label in labels})
    named = str in first
    if not named and known[-1] < classes:
        order = {label: label for label in known}
    elif len(known) == classes:
        order = {label: number for number, label in enumerate(known)}
        log.info(
            "classes of column %r: %s", column, ", ".join(f"{n} = {label}" for label, n in list(order.items())[:12])
        )
    else:
        shown = ", ".join(map(repr, known[:12])) + (", ..." if len(known) > 12 else "")
        files = " and ".join(map(str, found))
        raise WinnowError(
            f"data.classes: {classes} classes, but column {column!r} of {files} has {len(known)} different labels "
            f"({shown}); "
            "correct data.classes, data.label_column or the files"
        )
    return {path: np.array([order[label] for label in labels], dtype=np.int64) for path, labels in found.items()}
