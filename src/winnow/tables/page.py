"""The report: one HTML file that needs nothing else. Tables that sort on a click, figures, tickets by layer, run times.

What it shows is what the tables were made from: it follows their parents, so leftovers of other configurations are not in it.
"""

from __future__ import annotations

import base64
import csv
import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow import records
from winnow.errors import WinnowError

TITLES = {"double_win": "Double-win tickets", "robust_bert": "Robust BERT tickets", "rare_gems": "Rare gems"}
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 84em; padding: 0 1em; color: #222 }
.wide { overflow-x: auto } img { max-width: 100%; display: block } table { border-collapse: collapse; font-size: 13px }
td, th { padding: .2em .6em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
td:first-child, th:first-child { text-align: left } th { cursor: pointer; background: #f4f4f4 }
th[aria-sort=ascending]::after { content: " \\25b2" } th[aria-sort=descending]::after { content: " \\25bc" }
"""
_SCRIPT = """
document.querySelectorAll("th").forEach((th) => th.addEventListener("click", () => {
  const body = th.closest("table").tBodies[0], up = th.ariaSort !== "ascending";
  const text = (row) => row.cells[th.cellIndex].title || row.cells[th.cellIndex].textContent;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");  // empty cells stay last
    const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
    return up ? order : -order;
  };
  for (const other of th.parentNode.cells) other.removeAttribute("aria-sort");
  th.ariaSort = up ? "ascending" : "descending";
  [...body.rows].sort((a, b) => compare(text(a), text(b))).forEach((row) => body.append(row));
}));
"""


def page(results: Path, captions: Path) -> str:
    """The HTML of the tables below `results`, with the captions `<pipeline>_{table,figure}.rst`. Raises WinnowError without a table."""
    tables = sorted((results / "tables").glob("*.csv"))
    if not tables:
        raise WinnowError(f"{results / 'tables'}: holds no table; run snakemake first")
    records.forget()
    found = {node.file: node for table in tables for node in records.tree(table) if not node.repeated}
    bad = [f"{node.file}: {node.state}" for node in found.values() if node.state != "verified"]
    state = f"<p>{len(found)} artifacts lie behind these tables; " + (
        f"these do not verify:</p>{_list(bad)}" if bad else "every one was verified.</p>"
    )
    parts = [part for table in tables for part in _pipeline(results, table, captions, found)]
    times = _table(("stage", "jobs", "seconds in all", "longest"), _times(results, set(found)))
    body = "".join([state, *parts, "<h2>Run times</h2>", times])
    head = f'<meta charset="utf-8"><title>winnow</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body><h1>winnow</h1>{body}<script>{_SCRIPT}</script></body></html>\n'


def _pipeline(results: Path, table: Path, captions: Path, found: Mapping[Path, records.Node]) -> Iterable[str]:
    name = table.stem
    yield f"<h2>{html.escape(TITLES.get(name, name))}</h2>{_caption(captions / f'{name}_table.rst')}"
    with table.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    yield _table(header, rows)
    figures = [f for f in sorted((results / "figures" / name).glob("*.svg")) if _drawn_from(f, records.near(table))]
    if figures:
        yield _caption(captions / f"{name}_figure.rst")
    for figure in figures:
        data = base64.b64encode(figure.read_bytes()).decode()
        yield f'<h3>{html.escape(figure.stem)}</h3><img alt="{html.escape(figure.stem)}" src="data:image/svg+xml;base64,{data}">'
    own = (node for node in records.tree(table) if not node.repeated and node.record)
    tickets = [node.record for node in own if node.record and node.record.about.get("kind") == "ticket"]
    if tickets:
        yield f"<h3>Tickets by layer</h3>{''.join(map(_ticket, tickets))}"


def _drawn_from(figure: Path, table: Path) -> bool:
    about = records.record_about(records.near(figure))
    return about is not None and (table, records.sha256(table)) in about.parents.values()


def _ticket(record: records.Record) -> str:
    about, rows = record.about, []
    for layer, shape in about["shapes"].items():
        total, kept = math.prod(shape), about["kept"][layer]
        rows.append((layer, " x ".join(map(str, shape)), total, kept, 100.0 * kept / total))
    summary = f"{html.escape(str(record.file))}: {about['remaining_percent']:.2f} % remain ({html.escape(about['method'])})"
    table = _table(("layer", "shape", "weights", "kept", "remaining (%)"), rows)
    return f"<details><summary>{summary}</summary>{table}</details>"


def _times(results: Path, behind: set[Path]) -> list[tuple[str, int, float, float]]:
    """(stage, jobs, seconds in all, longest), of the jobs behind the tables that keep metrics; others take seconds."""
    seconds: dict[str, list[float]] = {}
    for file in records.artifacts(records.near(results)):
        about = records.record(file) if file.suffix == ".json" and records.intact(file) else None
        if about is not None and about.run and behind & {file, *about.vouched}:
            seconds.setdefault(about.about["stage"], []).append(about.run["wall_seconds"])
    return [(stage, len(all_), sum(all_), max(all_)) for stage, all_ in sorted(seconds.items())]


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(str(h))}</th>" for h in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    """A cell; a long number is shown short, and whole as its title."""
    text = str(value)
    try:
        short = text if len(text) <= 6 else f"{float(text):.2f}"
    except ValueError:
        return f"<td>{html.escape(text)}</td>"
    return f'<td title="{html.escape(text)}">{html.escape(short)}</td>' if short != text else f"<td>{html.escape(text)}</td>"


def _caption(file: Path) -> str:
    try:
        text = html.escape(file.read_text(encoding="utf-8"))
    except OSError:
        raise WinnowError(f"{file}: no such caption; give the folder workflow/report with --captions") from None
    return "<p>" + re.sub("``(.+?)``", r"<code>\1</code>", text) + "</p>"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"
