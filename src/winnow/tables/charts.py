"""Pieces of the report: tables that sort on a click, and the density of a ticket's layers as a chart."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, BELOW = 720, 150, 40, 8, 22  # of a chart, in pixels


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], won: Collection[int] = ()) -> str:
    """A table; the rows whose numbers are in `won` are marked. Columns of words stand to the left."""
    rows = [list(row) for row in rows]
    words = [all(str(row[i])[:1].isalpha() or row[i] == "" for row in rows) for i in range(len(header))]
    left = [' class="words"' if w else "" for w in words]
    head = "".join(f"<th{c}>{html.escape(str(h))}</th>" for h, c in zip(header, left, strict=True))
    marks = {i: ' class="won"' for i in won}
    lines = ("".join(map(_cell, row, left)) for row in rows)
    body = "".join(f"<tr{marks.get(i, '')}>{line}</tr>" for i, line in enumerate(lines))
    return f'<div class="wide"><table class="sorts"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any, left: str = "") -> str:
    """A cell; a long number is shown short, and whole as its title."""
    text = str(value)
    try:
        short = text if len(text) <= 6 else f"{float(text):.2f}"
    except ValueError:
        short = text
    title = f' title="{html.escape(text)}"' if short != text else ""
    return f"<td{left}{title}>{html.escape(short)}</td>"


def ticket(name: str, about: Mapping[str, Any]) -> str:
    """One ticket, folded: its chart and its layers. `about`: its record (shapes, kept, remaining_percent, method)."""
    layers = []
    for layer, shape in about["shapes"].items():
        total, kept = math.prod(shape), about["kept"][layer]
        layers.append((layer, " x ".join(map(str, shape)), total, kept, 100.0 * kept / total if total else 0.0))
    summary = f"{html.escape(name)}: {about['remaining_percent']:.2f} % remain ({html.escape(str(about['method']))})"
    rows = table(("layer", "shape", "weights", "kept", "remaining (%)"), layers)
    chart = density([(layer, remaining) for layer, *_, remaining in layers], about["remaining_percent"])
    return f"<details><summary>{summary}</summary>{chart}{rows}</details>"


def density(layers: Sequence[tuple[str, float]], overall: float) -> str:
    """Bars of the percentage that remains in each layer, in the order of the network, and a line at the whole
    ticket's.
    """
    step, high = (WIDTH - LEFT) / max(1, len(layers)), HEIGHT - TOP - BELOW
    parts = []
    for tick in (0, 25, 50, 75, 100):
        y = TOP + high * (1 - tick / 100)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{tick}</text>')
    for i, (layer, remaining) in enumerate(layers):
        size = high * remaining / 100
        title = f"<title>{html.escape(layer)}: {remaining:.2f} %</title>"
        parts.append(
            f'<rect x="{LEFT + i * step + step * 0.1:.1f}" y="{TOP + high - size:.1f}" width="{step * 0.8:.1f}" '
            f'height="{size:.1f}" '
            f'fill="#0072B2">{title}</rect>'
        )
    y = TOP + high * (1 - overall / 100)
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#D55E00" stroke-dasharray="5 3"/>')
    said = (
        f"remaining weights (%) of {len(layers)} layers, input on the left; dashed: the whole ticket, {overall:.2f} %"
    )
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">{said}</text>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(said)}" '
        f'style="max-width:{WIDTH}px;width:100%" '
        f'font-size="11" font-family="system-ui, sans-serif">{"".join(parts)}</svg>'
    )
