"""What a valid configuration will leave open, said before any job: no mistake, so nothing is refused."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

from winnow.config import architectures


def notices(root: Any) -> Iterator[str]:
    """One line for each; `root` is the whole configuration."""
    double_win, gems, texts = root.double_win, root.rare_gems, root.robust_bert
    if double_win is not None and len(double_win.seeds) == 1 and double_win.tolerance is None:
        yield (
            "double_win.tolerance: null compares with the spread of the dense runs, and there is 1 seed: the columns "
            "*_match and double_win will be empty; give several seeds, or a tolerance in percentage points"
        )
    elif double_win is not None and len(double_win.seeds) == 1:
        yield (
            "double_win.seeds: 1 seed: double_win and *_match compare single runs, without a standard error; "
            "give several seeds"
        )
    if (
        gems is not None
        and len(gems.seeds) == 1
        and any(getattr(b, "sanity", False) for e in gems.experiments for b in e.branches)
    ):
        yield "rare_gems.seeds: 1 seed: is_gem compares single runs, without a standard error; give several seeds"
    if texts is not None and len(texts.seeds) == 1:
        yield "robust_bert.seeds: 1 seed: the table has no standard deviations; give several seeds"
    if double_win is not None and (few := few_pruned(double_win.source.model)):
        yield f"double_win.source.model.{few}"


def few_pruned(model: Any) -> str | None:
    """A line when the chosen layers hold under a fifth of the network; known networks of convolutions are not built for
    it.

    None too where torch is not installed: the jobs warn as well.
    """
    if model.layers.kinds == ["conv"] and architectures.mostly_convolutions(model.arch):
        return None
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchvision") is None:
        return None
    survey = importlib.import_module("winnow.vision.models.survey")  # by name: no stage depends on it
    return survey.few_pruned(model, 1000)
