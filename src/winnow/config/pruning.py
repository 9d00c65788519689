"""Configuration of pruning, shared by the pipelines: one cut, and its iteration with rewinding."""

from __future__ import annotations

from typing import Any, Literal

from winnow.config.parts import Compute, Data, Percent, check_uncompiled
from winnow.config.text import TextData
from winnow.prune.methods import METHODS, Method
from winnow.schema import Part, key

RANDOM = "random"  # over all layers together, or by layer like another ticket
_ONE_CUT = {RANDOM if n == "random_global" else n: m for n, m in METHODS.items() if m.takes in ("weights", "model")}
LIGHT = tuple(n for n, m in _ONE_CUT.items() if m.takes == "weights")  # seconds of NumPy, where snakemake runs
FOR_IMAGES = tuple(n for n, m in _ONE_CUT.items() if "images" in m.tasks)
FOR_TEXTS = tuple(n for n, m in _ONE_CUT.items() if "texts" in m.tasks)


def entry(name: str) -> Method:
    """What a method needs, by the name that configurations use."""
    return METHODS["random_global" if name == RANDOM else name]


def settings(name: str, seed: int, images: int | None, **task: Any) -> dict[str, Any]:
    """The keys of `Prune` that a method reads: its seed where it draws, the task and its examples where it looks at
    them.
    """
    method = entry(name)
    looks = method.takes == "model"
    found: dict[str, Any] = {"seed": seed} if method.draws or (looks and method.examples) else {}
    found |= task if looks else {}
    return found | ({"images": images} if images is not None and looks and method.examples else {})


class Prune(Part):
    """What the stage `prune` gets: one method, and how many weights it leaves."""

    method: str = key("a method of winnow.prune: magnitude, random, erk, lamp, snip, ...")
    remaining_percent: float | None = key(
        "percentage of the prunable weights that REMAIN; null: each layer keeps as many as --like", None, gt=0, le=100
    )
    label: str | None = key("how the ticket calls its method; null: by its name", None)
    round: int | None = key("IMP round, for the record", None, ge=1)
    seed: int = key("draws positions or images", 0, ge=0)
    options: dict[str, bool] = key("switches of the method", factory=dict)
    images: int = key("methods that look at data: training images", 128, ge=1)
    data: Data | None = key("methods that look at data or at the size of an image: the task", None)
    text: TextData | None = key("the same for methods that look at texts", None)
    compute: Compute = key("numerical settings", factory=Compute)

    def check(self) -> None:
        """Scores differentiate a model once or twice, in ways that do not compile."""
        check_uncompiled(self.compute, "pruning")


def module_of(config: Prune) -> str:
    """The module of winnow.prune that a job runs."""
    if config.method != RANDOM:
        return config.method
    return "random_like" if config.remaining_percent is None else "random_global"


def loader_of(config: Prune) -> str | None:
    """The module that gives the model and the examples to a method that runs the model; None for the others."""
    entry = METHODS.get(module_of(config))
    if entry is None or entry.takes != "model":
        return None
    return "winnow.vision.training" if config.text is None else "winnow.text.training"


def modules_of(config: Prune) -> list[str]:
    """What a job imports by name, beyond what the stage itself imports: a cut by magnitude does not depend on training
    code.
    """
    return [f"winnow.prune.{module_of(config)}", *([loader] if (loader := loader_of(config)) else [])]


class Moving(Part):
    """Masks that move while the weights train; each layer keeps its count."""

    method: Literal["rigl"] = key(
        "rigl: what goes by magnitude, what grows by gradient (Evci et al., ICML 2020)", "rigl"
    )
    every: int = key("optimisation steps from one move to the next", 100, ge=1)
    fraction: float = key(
        "share of a layer's weights that the first move exchanges; it falls as a cosine", 0.3, gt=0, lt=1
    )
    stop: float = key("share of all steps after which masks stay", 0.75, gt=0, le=1)


class ImpSchedule(Part):
    """Iterative magnitude pruning: what goes in a round, which weights are ranked, what the next round starts from."""

    rounds: int = key("rounds to run", ge=0)
    prune_percent: float = key("percentage of the remaining weights removed each round", 20.0, gt=0, lt=100)
    remaining_percents: list[Percent] | None = key("percentage that remains after each round, instead of both", None)
    rewind: Literal["dense", "cold", "warm", "renda"] = key(
        "what a round trains from. dense: the weights that round 1 pruned; cold: those at initialisation; warm: those "
        "of rewind_iteration; renda: what the last round trained, only the learning rate starts over"
    )
    rewind_iteration: int = key("optimisation step that warm rewinds to", 1000, ge=0)
    ranked: Literal["last", "best"] = key("rank the weights of the last epoch, or of the best held-out accuracy")

    def remaining(self, number: int) -> float:
        """Percentage that remains after round `number`, from 1. ValueError for a round that remaining_percents does not
        have.
        """
        if self.remaining_percents is None:
            return 100.0 * (1.0 - self.prune_percent / 100.0) ** number
        if number > len(self.remaining_percents):
            raise ValueError(f"round {number}: remaining_percents has {len(self.remaining_percents)} rounds")
        return self.remaining_percents[number - 1]

    def schedule(self) -> list[float]:
        """Percentage that remains after each round that is run."""
        rounds = self.rounds if self.remaining_percents is None else len(self.remaining_percents)
        return [self.remaining(k) for k in range(1, rounds + 1)]

    def check(self) -> None:
        """The schedule falls."""
        chosen = self.remaining_percents
        if chosen is not None and (not chosen or sorted(set(chosen), reverse=True) != chosen):
            raise ValueError(f"remaining_percents: {chosen} must fall from round to round")
