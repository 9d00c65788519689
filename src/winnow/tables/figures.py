"""What all figures share: one look, SVG and PNG, bytes that do not change from run to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.artifacts import atomic_path

if TYPE_CHECKING:
    import pandas as pd

    Draw = Callable[[Any, pd.DataFrame, str, list[str]], None]

COLOURS = {"imp": "#0b6e99", "random": "#b0413e", "omp": "#c98a1b", "dense": "#333333"}
MORE = ["#5b8c5a", "#7b5ea7", "#8c6d46", "#4c8c8c"]


def pyplot() -> Any:
    """matplotlib.pyplot without a display, with the project's style and reproducible SVG ids."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({
        "svg.hashsalt": "winnow", "svg.fonttype": "path", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False, "figure.dpi": 110,
    })  # fmt: skip
    return plt


def colour(name: str, names: list[str]) -> str:
    """The colour of a method; methods without one of their own take the next free."""
    own = [n for n in names if n not in COLOURS]
    return COLOURS.get(name) or MORE[own.index(name) % len(MORE)]


def panels(rows: pd.DataFrame, by: str, heading: str, across: str, metrics: dict[str, str], draw: Draw, height: float) -> Any:
    """A figure with a column of panels for each value of the table's column `by`, a row for each metric (name -> label).

    `draw(axis, rows of the column, metric, methods of the whole table)` fills a panel; `across` labels the x axes.
    """
    names, methods = list(dict.fromkeys(rows[by])), sorted(set(rows["method"]))
    size = (3.1 * len(names) + 1, height)
    figure, axes = pyplot().subplots(len(metrics), len(names), figsize=size, sharex=True, sharey="row", squeeze=False)
    for j, name in enumerate(names):
        axes[0, j].set_title(f"{heading}{name}")
        axes[-1, j].set_xlabel(across)
        for i, metric in enumerate(metrics):
            draw(axes[i, j], rows[rows[by] == name], metric, methods)
    for i, label in enumerate(metrics.values()):
        axes[i, 0].set_ylabel(label)
    return figure


def shared_legend(figure: Any, columns: int, below: float) -> None:
    """One legend for all panels, this share of the figure's height below them; a label of several panels appears once."""
    handles = {text: line for a in figure.axes for line, text in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=columns, bbox_to_anchor=(0.5, -below))


def save(figure: Any, *paths: Path) -> None:
    """Write the figure to each path by its suffix, atomically and without dates in it."""
    for path in paths:
        kind = path.suffix.removeprefix(".")
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata, bbox_inches="tight")
