"""The report: one HTML file that needs nothing else. First what came out, in words and small tables; below it
everything, folded.

What it shows is what the tables were made from: it follows their parents, so leftovers of other configurations are not
in it. The same results give the same bytes.
"""

from __future__ import annotations

import base64
import csv
import html
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow import pipelines, records
from winnow.errors import WinnowError
from winnow.tables import beyond, charts
from winnow.tables.summary import Row, Summary

BEYOND = ("_speed", "_relations")  # tables of pipelines.beyond
STYLE = """
:root { color-scheme: light }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 88em; padding: .6em 1.2em 3em; color: #1b1b1b }
h1 { font-size: 1.3em; margin: .2em 0 } h2 { font-size: 1.1em; margin: .1em 0 .3em }
h3 { font-size: 1em; margin: 1.2em 0 .3em } h4 { font-size: .95em; margin: .8em 0 .2em; font-weight: 600 }
.first { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 36em), 1fr)); gap: .8em 1.6em;
 align-items: start }
.card { border: 1px solid #ccd; border-radius: 6px; padding: .6em .9em .8em; min-width: 0 }
#verdicts p { margin: .2em 0 } #verdicts { margin: .2em 0 .8em } .note { color: #555; font-size: 13px; margin: .3em 0 }
.bad { color: #a11 } .wide { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
td, th { padding: .16em .5em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
.card th { white-space: normal } td:first-child, th:first-child, .words { text-align: left }
th { background: #f3f4f7; vertical-align: bottom }
.sorts th { cursor: pointer } tr.won td { background: #fdf6c8; font-weight: 600 }
.sorts th[aria-sort=ascending]::after { content: " \25b2" } .sorts th[aria-sort=descending]::after { content: " \25bc" }
img { max-width: 100%; display: block } details { margin: .35em 0 } summary { cursor: pointer }
code { overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1em .9em; font-size: 13px; margin: .2em 0 }
dd { margin: 0; min-width: 0 }
.card table { font-size: 12px } .card td, .card th { padding: .15em .38em }
"""
SCRIPT = """
document.querySelectorAll(".sorts th").forEach((th) => th.addEventListener("click", () => {
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
    """The HTML of the tables below `results`, with the captions `<pipeline>_{table,figure}.rst`. Raises WinnowError
    without a table.
    """
    tables = sorted((results / "tables").glob("*.csv"))
    if not tables:
        raise WinnowError(f"{results / 'tables'}: holds no table; run snakemake first")
    records.forget()
    found = {node.file: node for table in tables for node in records.tree(table) if not node.repeated}
    bad = [f"{node.file}: {node.state}" for node in found.values() if node.state != "verified"]
    known = [(table, *_read(table)) for table in sorted(tables, key=_order)]
    summaries = {table.stem: _summary(table.stem, rows) for table, _, rows in known}
    verdicts = "".join(_verdicts(name, made) for name, made in summaries.items())
    cards = "".join(_card(name, made) for name, made in summaries.items())
    state = f"{len(found)} artifacts lie behind these tables; " + (
        "these do not verify:" if bad else "every one was verified."
    )
    first = f'<div class="first">{cards}<section class="card" id="ran"><h2>What ran</h2>{_ran(tables, found)}'
    first += f'<p class="note{" bad" if bad else ""}">{state}</p>{_list(bad) if bad else ""}</section></div>'
    parts = [part for table, header, rows in known for part in _pipeline(results, table, header, rows, captions)]
    times = charts.table(("stage", "jobs", "seconds in all", "longest"), _times(results, set(found)))
    body = "".join(
        [
            "<h1>winnow: what came out</h1>",
            f'<div id="verdicts">{verdicts}</div>',
            first,
            *parts,
            "<h2>Run times</h2>",
            times,
        ]
    )
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>winnow</title>'
    head += f"<style>{STYLE}</style>"
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}<script>{SCRIPT}</script></body></html>\n'


def _order(table: Path) -> tuple[int, str]:
    """Pipelines in their own order, tables of others after them."""
    return (pipelines.NAMES.index(table.stem) if table.stem in pipelines.NAMES else len(pipelines.NAMES)), table.stem


def _title(name: str) -> str:
    pipeline, _, kind = name.rpartition("_")
    if name.endswith(BEYOND) and pipeline in pipelines.NAMES:
        return f"{pipelines.grid(pipeline).TITLE}: {kind}"
    return pipelines.grid(name).TITLE if name in pipelines.NAMES else name


def _read(table: Path) -> tuple[list[str], list[Row]]:
    with table.open(newline="") as stream:
        reader = csv.DictReader(stream)
        return list(reader.fieldnames or []), list(reader)


def _summary(name: str, rows: list[Row]) -> Summary:
    if name.endswith(BEYOND):
        return beyond.summary(name, rows)
    if name not in pipelines.NAMES:
        return Summary([f"a table of {len(rows)} rows, of no pipeline of winnow's"], [], [])
    return importlib.import_module(f"winnow.pipelines.{name}.summary").summary(rows)


def _verdicts(name: str, made: Summary) -> str:
    """What came out of one pipeline, in words; at most three lines, the rest folded."""
    lines = [f"<p><b>{html.escape(_title(name))}.</b> {html.escape(v)}.</p>" for v in made.verdicts]
    rest = "".join(lines[3:])
    more = f"<details><summary>{len(lines) - 3} more of {html.escape(_title(name))}</summary>{rest}</details>"
    return "".join(lines[:3]) + (more if lines[3:] else "")


def _card(name: str, made: Summary) -> str:
    """The small table of one pipeline, for the first screen; columns without a figure are left out."""
    used = [i for i in range(len(made.header)) if any(row[i] for row in made.rows)]
    table = charts.table([made.header[i] for i in used], [[row[i] for i in used] for row in made.rows], made.won)
    more = f'<p class="note">± is the standard error of the mean over seeds. <a href="#{html.escape(name)}">'
    more += f"{made.more} more rows, all columns, figures and tickets</a></p>"
    return f'<section class="card"><h2>{html.escape(_title(name))}</h2>{table}{more}</section>' if used else ""


def _ran(tables: Sequence[Path], found: Mapping[Path, records.Node]) -> str:
    """Command, configuration, date, machine and commit, from the records of the tables and of the jobs behind them."""
    runs = [about.run for t in tables if (about := records.record_about(records.near(t))) is not None]
    jobs = [node.record.run for node in found.values() if node.record is not None and node.record.run]
    abouts = [node.record.about for node in found.values() if node.record is not None]
    versions = {f"{package} {version}" for a in abouts for package, version in a.get("versions", {}).items()}

    def told(name: str, among: Iterable[Mapping[str, Any]]) -> list[str]:
        return sorted({str(r[name]) for r in among if r.get(name)})

    commands = told("command", runs)
    files = sorted({f for c in commands for f in re.findall(r"--configfile[= ](\S+)", c)})
    dates = told("finished", [*runs, *jobs])
    known = {
        "command": commands or ["by hand: no workflow told its command"],
        "configuration": files or (["the embedded default"] if commands else []),
        "finished": [f"{dates[-1]} (first job {dates[0]})"] if dates else [],
        "machine": told("machine", jobs),
        "devices": told("device", abouts),
        "commit": told("commit", runs),
        "versions": [", ".join(sorted(versions))] if versions else [],
    }
    lines = "".join(
        f"<dt>{name}</dt><dd>{'<br>'.join(f'<code>{html.escape(v)}</code>' for v in values)}</dd>"
        for name, values in known.items()
        if values
    )
    return f"<dl>{lines}</dl>"


def _pipeline(results: Path, table: Path, header: list[str], rows: list[Row], captions: Path) -> Iterable[str]:
    name = table.stem
    called = name.rpartition("_")[2] if name.endswith(BEYOND) else name
    caption = _caption(captions / f"{called}_table.rst")
    yield f'<h2 id="{html.escape(name)}" style="margin-top:2em">{html.escape(_title(name))}</h2>{caption}'
    whole = charts.table(header, [[row[c] for c in header] for row in rows])
    yield f"<details><summary>All {len(rows)} rows and {len(header)} columns</summary>{whole}</details>"
    figures = [f for f in sorted((results / "figures" / name).glob("*.svg")) if _drawn_from(f, records.near(table))]
    if name.endswith(BEYOND):  # a figure beside each measurement
        files = dict.fromkeys(results.parent / row["file"] for row in rows)
        figures = [f.with_suffix(".svg") for f in files if _drawn_from(f.with_suffix(".svg"), records.near(f))]
    if figures:
        yield _caption(captions / f"{called}_figure.rst")
    for figure in figures:
        data = base64.b64encode(figure.read_bytes()).decode()
        alt = html.escape(str(figure.relative_to(results).with_suffix("")) if called != name else figure.stem)
        yield f'<h3>{alt}</h3><img alt="{alt}" src="data:image/svg+xml;base64,{data}">'
    own = (node for node in records.tree(table) if not node.repeated and node.record)
    tickets = [node.record for node in own if node.record and node.record.about.get("kind") == "ticket"]
    if tickets:
        inner = "".join(charts.ticket(str(t.file), t.about) for t in tickets)
        yield f"<details><summary>{len(tickets)} tickets by layer</summary>{inner}</details>"


def _drawn_from(figure: Path, table: Path) -> bool:
    about = records.record_about(records.near(figure))
    return about is not None and (table, records.sha256(table)) in about.parents.values()


def _times(results: Path, behind: set[Path]) -> list[tuple[str, int, float, float]]:
    """(stage, jobs, seconds in all, longest), of the jobs behind the tables that keep metrics; others take seconds."""
    seconds: dict[str, list[float]] = {}
    for file in records.artifacts(records.near(results)):
        about = records.record(file) if file.suffix == ".json" and records.intact(file) else None
        if about is not None and about.run and behind & {file, *about.vouched}:
            seconds.setdefault(about.about["stage"], []).append(about.run["wall_seconds"])
    return [(stage, len(all_), round(sum(all_), 3), max(all_)) for stage, all_ in sorted(seconds.items())]


def _caption(file: Path) -> str:
    try:
        text = html.escape(file.read_text(encoding="utf-8"))
    except OSError:
        raise WinnowError(f"{file}: no such caption; give the folder workflow/report with --captions") from None
    return '<p class="note">' + re.sub("``(.+?)``", r"<code>\1</code>", text) + "</p>"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"
