"""How far a comparison of means over seeds holds: standard errors, without which a flag says little.

The standard error of a mean over n seeds is its standard deviation (n - 1) over sqrt(n); of a difference of two means
the root of the sum of their squares (Welch). Of one seed there is none.
"""

from __future__ import annotations

import pandas as pd


def standard_error(deviations: pd.Series, seeds: pd.Series) -> pd.Series:
    """Standard errors of means from standard deviations over seeds; NaN of fewer than two seeds."""
    return (deviations / seeds.pow(0.5)).where(seeds > 1)


def of_difference(one: pd.Series, other: pd.Series) -> pd.Series:
    """Standard errors of differences of two means that were taken over different runs."""
    return (one.pow(2) + other.pow(2)).pow(0.5)


def margin(above: pd.Series, error: pd.Series) -> pd.Series:
    """By how many standard errors a figure lies above its bound (negative: below); infinite where seeds do not differ
    at all.
    """
    return above.divide(error)


def least(margins: dict[str, pd.Series], skipna: bool = False) -> pd.Series:
    """The smallest of the margins of a row; NaN where it is none, or infinite: seeds that do not differ tell nothing of
    chance.
    """
    smallest = pd.DataFrame(margins).astype(float).min(axis=1, skipna=skipna)
    return smallest.where(smallest.abs() != float("inf"))
