"""One table of all measurements against their goals, from docs/benchmarks/*.json; rewrites its block in
docs/performance.md.

python -m bench.report
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.common import FOLDER, met

PAGE = FOLDER.parent / "performance.md"
BUSY = 5.0  # percent of the machine that others may use before a measurement is marked
ORDER = (
    "adversarial_step", "pgd_evaluation", "gem_search_epoch", "robust_search_step", "mask_memory", "text_attack",
    "image_loading", "ticket", "sparse", "workflow",
)  # fmt: skip


def load(folder: Path, suffix: str = "") -> dict[str, dict[str, Any]]:
    """Name -> record, in the order of the report."""
    paths = {name: folder / f"{name}{suffix}.json" for name in ORDER}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def table(records: Iterable[dict[str, Any]]) -> str:
    """Markdown: what, path, plain and own seconds, value with its spread, goal, verdict."""
    lines = ["| what | path | plain, s | winnow, s | value | goal | |", "|---|---|---:|---:|---:|---:|---|"]
    for record in records:
        mark = " *" if record["others_percent"] > BUSY else ""
        for row in record["rows"]:
            value = f"**{_number(row['value'])}{_unit(row)}**"
            if "low" in row:
                value += f" ({row['low']:.2f}-{row['high']:.2f})"
            goal = "" if row["goal"] is None else f"{'≤' if row['at_most'] else '≥'} {_number(row['goal'])}{_unit(row)}"
            verdict = {None: "", True: "met", False: "missed"}[met(row)]
            times = [_number(row[k]) if k in row else "" for k in ("plain_seconds", "seconds")]
            lines.append(
                f"| {row['case']} | {row['path']}{mark} | {times[0]} | {times[1]} | {value} | {goal} | {verdict} |"
            )
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _unit(row: dict[str, Any]) -> str:
    return {"x": "x", "": ""}.get(row["unit"], f" {row['unit']}")


def heading(records: dict[str, dict[str, Any]], timed: bool = True) -> str:
    """The machine, the day, and, of what is `timed`, whether anything else ran meanwhile."""
    record = next(iter(records.values()))
    m = record["machine"]
    chip = (
        m.get("gpu") or f"{m['processor']}, {m['cores']} cores{', bf16 instructions' if m['bf16_instructions'] else ''}"
    )
    text = f"{chip}; {record['threads']} thread{'s' * (record['threads'] > 1)} a path; "
    text += f"torch {m['torch']}, Python {m['python']}; "
    text += f"{max(r['date'] for r in records.values())}."
    busy = [n for n, r in records.items() if timed and r["others_percent"] > BUSY]
    if busy:
        text += f"\n\\* Other programs used more than {BUSY:g} % of the machine meanwhile; to be taken again: "
        text += f"{', '.join(busy)}."
    return text


def replace(text: str, name: str, body: str) -> str:
    """`text` with the block between `<!-- name -->` and `<!-- /name -->` replaced; ValueError when there is none."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no block <!-- {name} --> to write to")
    return pattern.sub(lambda m: m[1] + body + "\n" + m[2], text)


def floor_table(record: dict[str, Any]) -> str:
    """Operations, bytes, floor and measured time of each hot path; the machine's limits first."""
    limits = [r for r in record["rows"] if r["case"] == "machine"]
    lines = ["; ".join(f"{r['path']}: {r['value']:.0f} {r['unit']}" for r in limits) + ".", ""]
    lines += [
        "| step | GFLOP | GB | floor, s | measured, s | measured / floor | largest shares of the floor |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for r in (r for r in record["rows"] if r["case"] != "machine"):
        shares = ", ".join(f"{k} {100 * v:.0f} %" for k, v in r["largest"].items())
        numbers = " | ".join(
            _number(v) for v in (r["gflop"], r["gigabytes"], r["floor_seconds"], r["seconds"], r["value"])
        )
        lines.append(f"| {r['case']} | {numbers} | {shares} |")
    return "\n".join(lines)


def scaling_table(record: dict[str, Any]) -> str:
    """The fitted line and the points of each curve."""
    lines = ["| what | against | line | largest misfit | points |", "|---|---|---|---:|---|"]
    for r in record["rows"]:
        points = ", ".join(f"{x:g}: {_number(y)}" for x, y in r["points"])
        formula = f"{_number(r['offset'])} + {_number(r['slope'])} n {r['unit']}"
        lines.append(f"| {r['case']} | {r['against']} | {formula} | {r['misfit']:.0f} % | {points} |")
    return "\n".join(lines)


def precision_table(record: dict[str, Any]) -> str:
    """Means and standard deviations over the seeds."""
    lines = [
        "| accuracy, % | float32 | bf16 | difference, points | in pooled standard deviations |",
        "|---|---:|---:|---:|---:|",
    ]
    for r in record["rows"]:
        both = " | ".join(f"{statistics.mean(r[p]):.2f} ± {statistics.stdev(r[p]):.2f}" for p in ("float32", "bf16"))
        share = abs(r["difference"]) / r["pooled_std"] if r["pooled_std"] else float(r["difference"] != 0)
        lines.append(f"| {r['case']} | {both} | {r['difference']:+.2f} | {share:.1f} |")
    return "\n".join(lines)


def main() -> None:
    text = PAGE.read_text()
    for block, suffix in (("measurements", ""), ("measurements on a GPU", "_cuda")):
        records = load(FOLDER, suffix)
        if records:
            shown = heading(records) + "\n\n" + table(records.values())
            print(shown)
            text = replace(text, block, shown)
    for name, make in (("floor", floor_table), ("scaling", scaling_table), ("precision", precision_table)):
        if (FOLDER / f"{name}.json").exists():
            record = json.loads((FOLDER / f"{name}.json").read_text())
            text = replace(text, name, heading({name: record}, timed=name != "precision") + "\n\n" + make(record))
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
