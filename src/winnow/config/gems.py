"""Configuration parts of the rare-gems stages, under the names that the papers' configurations use."""

from __future__ import annotations

from typing import Literal

from winnow.schema import Part, key

Algo = Literal["hc_iter", "hc", "ep", "global_ep", "global_ep_iter"]
InitName = Literal[
    "signed_constant",
    "unsigned_constant",
    "kaiming_normal",
    "kaiming_uniform",
    "xavier_normal",
    "xavier_constant",
    "standard",
]
ScoreInitName = Literal["unif", "half", "bern", "bimodal", "skew", "kaiming_uniform"]
Regularizer = Literal["L2", "L1", "L1_L2", "var_red_1", "var_red_2", "bin_entropy"]
EDGE_POPUP = ("ep", "global_ep", "global_ep_iter")
ITERATIVE = ("hc_iter", "global_ep_iter")  # remove more every iter_period epochs
NESTED = ("hc_iter",)  # what is removed stays so: one run holds the tickets of all sparsities


def prune_count(epochs: int, iter_period: int) -> int:
    """Number of prunes in a search of `epochs`: one after each epoch e > 0 (0-based) that iter_period divides."""
    return (epochs - 1) // iter_period


class WeightInit(Part):
    """Initialisation of the weights that stay frozen during the search."""

    init: InitName = key("distribution of the weights", "signed_constant")
    scale_fan: bool = key("multiply the fans by target_sparsity / 100", False)
    target_sparsity: float = key(
        "read when scale_fan is set: percentage of the weights that shall REMAIN (released files: 100 (1 - "
        "prune_rate))",
        100.0,
        gt=0,
    )


class SearchOptions(Part):
    """How scores become masks, what regularises them, when weights go for good."""

    iter_period: int = key("epochs between hard prunes (iterative algorithms)", 5, ge=1)
    prune_type: Literal["BottomK", "LocalBottomK", "FixThresholding"] = key(
        "hard prune of hc_iter: smallest scores of all layers, of each layer, or all up to 0.5", "BottomK"
    )
    round: Literal["naive", "prob"] = key(
        "hc forward mask: score above quantize_threshold, or drawn with it as probability", "naive"
    )
    hc_quantized: bool = key(
        "hc: round the scores in the forward pass; false multiplies the weights by the scores", True
    )
    quantize_threshold: float = key("scores above it are rounded to 1", 0.5, ge=0, lt=1)
    score_init: ScoreInitName | None = key(
        "distribution of the start scores; null: unif, and for edge-popup in all forms kaiming_uniform (a = sqrt 5)",
        None,
    )
    regularization: Regularizer | None = key("term of the scores in the loss; null: none", "L2")
    lmbda: float = key("factor of the regularisation", 1e-4, ge=0)
    unflag_before_finetune: bool = key(
        "hc_iter: the ticket keeps all that was not hard-pruned; false: only what rounds to 1 as well", True
    )
    rewind_score: bool = key("set the scores back to their start after each hard prune", False)


class Search(SearchOptions):
    """A search for a gem."""

    algo: Algo = key(
        "hc_iter: Gem-Miner; hc: without hard prunes; ep: edge-popup; global_ep, global_ep_iter: its global forms"
    )
    target_sparsity: float = key("percentage of the weights that shall REMAIN", gt=0, lt=100)
    invert: bool = key("sanity check: the largest scores are removed", False)

    @property
    def iterative(self) -> bool:
        """Whether more is removed every iter_period epochs."""
        return self.algo in ITERATIVE

    @property
    def start(self) -> str:
        """Distribution of the start scores."""
        return self.score_init or ("kaiming_uniform" if self.algo in EDGE_POPUP else "unif")

    def check(self) -> None:
        """Keys that go together."""
        if self.invert and self.algo not in ITERATIVE:
            raise ValueError(
                f"invert: hard prunes are inverted, and algo {self.algo} has none; use one of {', '.join(ITERATIVE)}"
            )
