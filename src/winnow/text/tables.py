"""Tables of texts in files: TSV, CSV, JSON lines, JSON arrays and parquet, as rows of a few columns. Labels stay as
they stand.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from winnow import outside
from winnow.errors import WinnowError, nearest

LARGEST = outside.LARGEST_TABLE
KINDS = ("tsv", "csv", "jsonl", "json", "parquet")
Quoting = Literal["none", "minimal"]
_MARKS = [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
          (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")]  # fmt: skip


def read_rows(path: Path, columns: Sequence[str], quoting: Quoting | None = None) -> list[dict[str, Any]]:
    """The rows of a .tsv, .csv, .jsonl, .json or .parquet file (also .gz), with the values of `columns` alone.

    CSV and TSV give strings, the others what they hold. Lines end at line feeds (carriage returns in a file without),
    never at Unicode's other separators; a byte order mark says UTF-8, UTF-16 or UTF-32, and without one the text is
    UTF-8. `quoting`: none takes quote characters as text; minimal reads "a ""quoted"" cell" as CSV does; null: none for
    TSV, where cells that were quoted are refused, and minimal for CSV. WinnowError for anything that is not such a
    table.
    """
    if not path.exists():
        raise WinnowError(f"{path}: no such table; correct data.train_path or data.test_path, or --data-root")
    name = path.name.lower()
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind not in KINDS:
        raise WinnowError(f"{path}: unknown kind of table; use .tsv, .csv, .jsonl, .json or .parquet (also .gz)")
    try:
        data = outside.unpacked(path, LARGEST) if name.endswith(".gz") else outside.read_bytes(path, LARGEST)
    except (ValueError, zlib.error) as error:
        raise _damaged(path, kind, error) from None
    if not data.strip():
        raise WinnowError(f"{path}: holds no rows (the file is empty)")
    if kind == "parquet":
        rows = _parquet(path, data, columns)
    elif kind in ("tsv", "csv"):
        rows = _separated(path, _text(path, kind, data), kind, columns, quoting)
    else:
        rows = _json(path, kind, _text(path, kind, data), columns)
    if not rows:
        raise WinnowError(f"{path}: holds no rows")
    return rows


def _damaged(path: Path, kind: str, error: Exception) -> WinnowError:
    return WinnowError(f"{path}: cannot be read as {kind} ({str(error)[:160]}); the file is damaged or mislabelled")


def _no_column(path: Path, column: str, known: Sequence[str]) -> WinnowError:
    return WinnowError(f"{path}: no column {column!r}{nearest(column, [k[:40] for k in known])}")


def _text(path: Path, kind: str, data: bytes) -> str:
    mark, encoding = next(((m, e) for m, e in _MARKS if data.startswith(m)), (b"", "utf-8"))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        offset = len(mark) + error.start
        line = data[:offset].count(b"\n") + 1
        raise WinnowError(
            f"{path}: cannot be read as {kind}: byte {offset} (line {line}) is not {encoding.upper()}; "
            f"convert it, e.g. iconv -f latin1 -t utf-8"
        ) from None


def _separated(
    path: Path, text: str, kind: str, columns: Sequence[str], quoting: Quoting | None
) -> list[dict[str, Any]]:
    quoted = (quoting or ("none" if kind == "tsv" else "minimal")) == "minimal"
    delimiter = "\t" if kind == "tsv" else ","
    longest = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the module's own limit cuts off at 128 KiB
    try:
        reader = csv.reader(
            io.StringIO(text, newline="\n" if "\n" in text else ""), delimiter=delimiter, strict=True,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        )  # fmt: skip
        lines = [line for line in reader if line]  # an empty line is no row
    except csv.Error as error:
        if "new-line" in str(error):
            raise WinnowError(
                f"{path}: line {reader.line_num} holds a carriage return outside quotes, where no row ends; remove or "
                f"quote it"
            ) from None
        raise WinnowError(
            f"{path}: cannot be read as {kind} (line {reader.line_num}: {error}); the file is damaged or mislabelled, "
            "or its quote characters are text: set data.quoting to none"
        ) from None
    finally:
        csv.field_size_limit(longest)
    if not lines:
        raise WinnowError(f"{path}: holds no rows")
    header = lines[0]
    for column in columns:
        if column not in header:
            raise _no_column(path, column, header)
        if header.count(column) > 1:
            raise WinnowError(f"{path}: {header.count(column)} columns are named {column!r}; keep one")
    places = [(column, header.index(column)) for column in columns]
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(header):
            raise WinnowError(
                f"{path}: row {number} has {len(line)} cells, the header {len(header)}; a separator or line break "
                f"within a "
                "text must be quoted (data.quoting: minimal) or removed"
            )
        if quoting is None and not quoted and any(_was_quoted(line[place]) for _, place in places):
            raise WinnowError(
                f"{path}: row {number} holds a cell in quotes with doubled quotes inside, as written by CSV tools; set "
                "data.quoting to minimal to read it so, or to none where the quotes are text"
            )
    return [{column: line[place] for column, place in places} for line in lines[1:]]


def _was_quoted(cell: str) -> bool:
    inside = cell[1:-1]
    return len(cell) > 2 and cell[0] == cell[-1] == '"' and '""' in inside and '"' not in inside.replace('""', "")


def _json(path: Path, kind: str, text: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """JSON lines; or one JSON value: an array of objects, or an object of columns, as pandas writes them."""
    try:
        found = _parsed(text, columns)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, kind, error) from None
    for number, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise WinnowError(
                f"{path}: row {number} is no JSON object; each row must be one like {{'sentence': ..., 'label': ...}}"
            )
        for column in columns:
            if column not in row:
                where = f"row {number}: " if number > 1 else ""
                raise WinnowError(f"{path}: {where}no column {column!r}{nearest(column, [k[:40] for k in row])}")
    return [{column: row[column] for column in columns} for row in found]


def _parsed(text: str, columns: Sequence[str]) -> list[Any]:
    lines = [line for line in text.split("\n") if line.strip()]
    if text.lstrip()[:1] == "[" or len(lines) == 1:
        whole = json.loads(text)
    else:
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            whole = _whole(text, error, lines)
    return whole if isinstance(whole, list) else _from_columns(whole, columns)


def _whole(text: str, of_lines: ValueError, lines: list[str]) -> Any:
    """An object written over several lines; else the fault of the line that is none."""
    try:
        return json.loads(text)
    except ValueError:
        for number, line in enumerate(lines, 1):
            try:
                json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
        raise of_lines from None


def _from_columns(whole: Any, columns: Sequence[str]) -> list[Any]:
    """Rows of {"column": [...]} or {"column": {"0": ...}}; an object with other values is one row."""
    if not isinstance(whole, dict) or not all(isinstance(whole.get(c), dict | list) for c in columns):
        return [whole]
    values = [whole[c] if isinstance(whole[c], dict) else dict(enumerate(whole[c])) for c in columns]
    if any(v.keys() != values[0].keys() for v in values):
        return [whole]  # no table: refused where its values are looked at
    return [{c: v[k] for c, v in zip(columns, values, strict=True)} for k in values[0]]


def _parquet(path: Path, data: bytes, columns: Sequence[str]) -> list[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise WinnowError(f"{path}: parquet needs pyarrow, which is not installed; install envs/text.yaml") from None
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        names = list(file.schema_arrow.names)
        for column in columns:
            if column not in names:
                raise _no_column(path, column, names)
            if Counter(names)[column] > 1:
                raise WinnowError(f"{path}: {Counter(names)[column]} columns are named {column!r}; keep one")
        table = file.read(columns=list(columns))
        return table.select(list(columns)).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, "parquet", error) from None
