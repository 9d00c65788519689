"""What all figures share: one look, one axis convention, files fit for a paper, bytes that do not change from run to
run.

The x axis is the percentage of the weights that remain, on a logarithmic scale from the dense network on the left to
the sparsest on the right; its ticks stand at percentages that were run. Colours are those of Okabe and Ito, which
people with any kind of colour blindness tell apart, and each method has a marker and a line of its own too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.artifacts import atomic_path

if TYPE_CHECKING:
    import pandas as pd

    Draw = Callable[[Any, pd.DataFrame, str, list[str]], None]

KNOWN = {"dense": ("#000000", "s"), "imp": ("#0072B2", "o"), "random": ("#D55E00", "v"), "omp": ("#E69F00", "^")}
MORE = [("#009E73", "D"), ("#CC79A7", "P"), ("#56B4E9", "X"), ("#8C6D46", "<"), ("#666666", ">"), ("#999900", "h")]
ACROSS = "remaining weights (%)"
DPI = 300
TICKS = 7  # labels that fit under a panel


def pyplot() -> Any:
    """matplotlib.pyplot without a display, with the project's style, text as text and reproducible SVG ids."""
    import logging

    import matplotlib

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every table of every font in a PDF
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({
        "svg.hashsalt": "winnow", "svg.fonttype": "none", "pdf.fonttype": 42, "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"], "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
        "legend.frameon": False,
    })  # fmt: skip
    return plt


def look(name: str, names: Iterable[str]) -> dict[str, Any]:
    """Colour and marker of a method; methods without their own take the next free ones."""
    own = [n for n in dict.fromkeys(names) if n not in KNOWN]
    colour, marker = KNOWN.get(name) or MORE[own.index(name) % len(MORE)]
    return {"color": colour, "marker": marker}


def remaining_axis(axis: Any, remaining: Iterable[float], label: bool = True) -> None:
    """Make the x axis that of all figures, for these percentages."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    values = sorted({float(f"{v:.4g}") for v in remaining}, reverse=True)
    axis.set_xscale("log")
    span = math.log(values[0] / values[-1]) or 1.0
    ticks = values[:1]
    for value in values[1:]:
        if math.log(ticks[-1] / value) >= span / TICKS:
            ticks.append(value)
    if values[-1] not in ticks:  # the sparsest is what a reader looks for
        if len(ticks) > 1 and math.log(ticks[-1] / values[-1]) < span / TICKS:
            ticks.pop()
        ticks.append(values[-1])
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(FixedFormatter([_percentage(t) for t in ticks]))
    axis.xaxis.set_minor_locator(NullLocator())
    edge = math.exp(0.06 * span)
    axis.set_xlim(values[0] * edge, values[-1] / edge)
    if label:
        axis.set_xlabel(ACROSS)


def _percentage(value: float) -> str:
    """36.0004 -> 36, 4.9976 -> 5, 0.59 -> 0.59: counts of weights are whole, so percentages are met within a weight."""
    whole = round(value)
    return str(whole) if whole and abs(value - whole) < 0.005 * value else f"{value:.3g}"


def line(axis: Any, x: Any, mean: Any, spread: Any, style: dict[str, Any], label: str, **more: Any) -> None:
    """A method's means at their true percentages, joined, with error bars where there is a spread over seeds."""
    errors = None if spread.isna().all() else spread.fillna(0.0)
    axis.errorbar(x, mean, errors, **{"ms": 4, "lw": 1.2, "capsize": 2, **style, **more}, label=label)


def winners(axis: Any, x: Any, y: Any, label: str) -> None:
    """A star behind the mark of each winner, whose own colour stays to be seen."""
    star = {"marker": "*", "ms": 17, "mfc": "#F0E442", "mec": "#000000", "mew": 0.8}
    axis.plot(x, y, ls="", zorder=1.9, clip_on=False, label=label, **star)  # whole at the edge of the panel too


def panels(rows: pd.DataFrame, by: str, heading: str, metrics: dict[str, str], draw: Draw, height: float) -> Any:
    """A figure with a column of panels for each value of the table's column `by`, a row for each metric (name ->
    label).

    `draw(axis, rows of the column, metric, methods of the whole table)` fills a panel.
    """
    names, methods = list(dict.fromkeys(rows[by])), sorted(set(rows["method"]))
    size = (3.3 * len(names) + 1, height)
    figure, axes = pyplot().subplots(len(metrics), len(names), figsize=size, sharex=True, sharey="row", squeeze=False)
    for j, name in enumerate(names):
        axes[0, j].set_title(f"{heading}{name}")
        for i, metric in enumerate(metrics):
            draw(axes[i, j], rows[rows[by] == name], metric, methods)
        remaining_axis(axes[-1, j], rows["remaining_percent"])
    for i, label in enumerate(metrics.values()):
        axes[i, 0].set_ylabel(label)
    return figure


def spread_in_words(seeds: Iterable[int]) -> str:
    """What points and bars are, for a title."""
    most = max(seeds)
    return f"mean and standard deviation over {most} seeds" if most > 1 else "1 seed"


def shared_legend(figure: Any, columns: int, below: float) -> None:
    """One legend for all panels, this share of the figure's height below them; a label of several panels appears
    once.
    """
    handles = {text: line for a in figure.axes for line, text in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="upper center", ncols=columns, bbox_to_anchor=(0.5, -below))


def save(figure: Any, *paths: Path) -> None:
    """Write the figure to each path by its suffix (svg, pdf, png), atomically and without dates in it; PNG at 300
    dpi.
    """
    metadata: dict[str, dict[str, Any]] = {
        "svg": {"Date": None},
        "pdf": {"CreationDate": None},
        "png": {"Software": None},
    }
    for path in paths:
        kind = path.suffix.removeprefix(".")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata[kind], bbox_inches="tight", dpi=DPI)
    pyplot().close(figure)
