"""What the stages of the rare-gems pipeline get."""

from __future__ import annotations

from typing import Literal

from winnow.config.gems import Search, WeightInit
from winnow.config.parts import AnyData, Attack, Compute, Model, Train, check_uncompiled
from winnow.schema import Part, key


class GemInit(Part):
    """Initial weights (stage gem_init)."""

    data: AnyData = key("the task; decides the number of classes")
    model: Model | None = key("architecture; not with --weights", None)
    init: WeightInit | None = key("initialisation; not with --weights", None)
    seed: int = key("draws the weights, or the new head", ge=0)


class GemSearch(Part):
    """A search among frozen weights (stage gem_search)."""

    search: Search = key("the algorithm")
    data: AnyData = key("the task")
    train: Train = key("optimisation of the scores")
    attack: Attack | None = key("adversary of a robust search; null: clean images", None)
    compute: Compute = key("numerical settings")
    seed: int = key("start scores, order, augmentation, attack starts", ge=0)

    def check(self) -> None:
        """The weights of a search change in place at every step."""
        check_uncompiled(self.compute, "a search")


class GemTicket(Part):
    """A ticket from a search's prune order (stage gem_ticket)."""

    target_sparsity: float = key("percentage of the weights that shall REMAIN", gt=0, lt=100)


class GemSanity(Part):
    """The sanity checks of a gem (stage gem_sanity)."""

    target_sparsity: float = key("percentage of the weights that shall REMAIN; read with --inverted", gt=0, lt=100)
    checks: list[Literal["reinit", "shuffle"]] = key(
        "checks to run besides the inverted search", factory=lambda: ["reinit", "shuffle"]
    )
    data: AnyData = key("the task")
    train: Train = key("optimisation of the weights")
    attack: Attack | None = key("as in fine-tuning", None)
    keep: Literal["last", "best"] = key("as in fine-tuning: weights of the last epoch, or the best held out", "best")
    compute: Compute = key("numerical settings")
    seed: int = key("new weights, shuffles, order, augmentation", ge=0)
