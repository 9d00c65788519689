"""Schema of the `rare_gems` section of the configuration."""

from __future__ import annotations

from typing import Literal

from winnow.config.double_win import NAME, check_names
from winnow.config.gems import ITERATIVE, SearchOptions, WeightInit
from winnow.config.parts import Attack, Compute, Data, Model, Train
from winnow.config.vision import WeightsSource
from winnow.schema import key, part

SEARCHED = ("hc_iter", "hc", "ep", "global_ep", "global_ep_iter")
SCORED = ("snip", "grasp", "synflow")


@part
class ImpOptions:
    """Iterative magnitude pruning with rewinding, the pruning that gems compete with."""

    rewind: Literal["warm", "cold", "renda"] = key(
        "warm: to rewind_iteration; cold: to iteration 0; renda: not the weights", "warm"
    )
    rewind_iteration: int = key("optimisation step that warm rewinds to", 1000, ge=0)
    prune_percent: float = key("percentage of the remaining weights removed each round", 20.0, gt=0, lt=100)
    rounds: int = key("rounds to run", 30, ge=1)
    remaining_percents: list[float] | None = key(
        "percentage that remains after each round, instead of both", None, gt=0, lt=100
    )

    def schedule(self) -> list[float]:
        """Percentage that remains after each round."""
        if self.remaining_percents is not None:
            return self.remaining_percents
        return [100.0 * (1.0 - self.prune_percent / 100.0) ** k for k in range(1, self.rounds + 1)]

    def __post_init__(self) -> None:
        chosen = self.remaining_percents
        if chosen is not None and (not chosen or sorted(set(chosen), reverse=True) != chosen):
            raise ValueError(f"remaining_percents: {chosen} must fall from round to round")


@part
class Branch:
    """One way to a ticket: rows of the table."""

    name: str = key(f"names its folder; {NAME}")
    algo: Literal[
        "hc_iter", "hc", "ep", "global_ep", "global_ep_iter", "imp", "wt", "smart_ratio", "random", "snip", "grasp", "synflow"
    ] = key("wt: dense training; the others as in the paper")
    targets: list[float] | None = key("percentages that REMAIN; null: the experiment's", None, gt=0, lt=100)
    init: WeightInit | None = key("initialisation of the weights; null: the experiment's", None)
    weights: str | None = key("start from this weights artifact of winnow instead (warm gems); {seed} is replaced", None)
    imported: WeightsSource | None = key("start from pre-trained weights from outside instead", None)
    imported_classes: int | None = key("for imported: classes of the head in the file", None, ge=1)
    search: SearchOptions | None = key("the search (hc_iter, hc, ep, global_ep, global_ep_iter)", None)
    train: Train | None = key("optimisation of the search, or of a round of imp and of wt", None)
    attack: Attack | None = key("adversary of search and fine-tuning (robust gems)", None)
    imp: ImpOptions | None = key("rounds and rewinding (imp)", None)
    images: int = key("training images that snip and grasp look at", 128, ge=1)
    finetune: Train | None = key("fine-tuning; null: the experiment's", None)
    sanity: bool = key("run the sanity checks of each ticket", False)

    def __post_init__(self) -> None:
        if (self.algo in SEARCHED) != (self.search is not None):
            raise ValueError(f"{self.name}: algo {self.algo} {'needs' if self.search is None else 'takes no'} search")
        if (self.algo in (*SEARCHED, "imp", "wt")) != (self.train is not None):
            raise ValueError(f"{self.name}: algo {self.algo} {'needs' if self.train is None else 'takes no'} train")
        if (self.algo == "imp") != (self.imp is not None):
            raise ValueError(f"{self.name}: algo {self.algo} {'takes no' if self.imp else 'needs'} imp")
        if (self.imported is None) != (self.imported_classes is None):
            raise ValueError(f"{self.name}: imported and imported_classes go together")
        if self.imported is not None and self.weights is not None:
            raise ValueError(f"{self.name}: set weights or imported, not both")
        if self.sanity and self.algo in ("imp", "wt"):
            raise ValueError(f"{self.name}: sanity checks are for tickets at initialisation, not for algo {self.algo}")
        if self.algo in ITERATIVE and self.search and not self.search.unflag_before_finetune and len(self.targets or []) > 1:
            raise ValueError(f"{self.name}: without unflag_before_finetune a search gives one target; make a branch for each")

    @property
    def one_search_for_all(self) -> bool:
        """Whether one search, down to the lowest target, serves the others too."""
        return self.algo in ITERATIVE


@part
class Experiment:
    """One architecture on one task, with all branches that are compared there."""

    name: str = key(f"names its folder; {NAME}")
    dataset: str = key("column `dataset` of the table")
    data: Data = key("the task")
    model: Model = key("the architecture; column `arch`")
    targets: list[float] = key("percentages of the weights that shall REMAIN", gt=0, lt=100)
    init: WeightInit = key("initialisation of the weights", factory=WeightInit)
    finetune: Train = key("fine-tuning of every ticket")
    branches: list[Branch] = key("what is compared")

    def __post_init__(self) -> None:
        check_names(f"experiment {self.name}: branches", [b.name for b in self.branches])
        for targets in (self.targets, *(b.targets for b in self.branches if b.targets is not None)):
            if not targets or len(set(targets)) != len(targets):
                raise ValueError(f"experiment {self.name}: targets {targets} must be at least one, and different")


@part
class PublishedGem:
    """A published figure to stand beside ours."""

    experiment: str = key("name of the experiment")
    branch: str = key("name of the branch")
    remaining_percent: float = key("percentage that remains there", gt=0, le=100)
    acc_after: float = key("test accuracy after fine-tuning (percent)", ge=0, le=100)
    acc_before: float | None = key("test accuracy before it", None, ge=0, le=100)


@part
class RareGems:
    """Rare gems (NeurIPS 2022): search at initialisation, fine-tune, check, compare."""

    seeds: list[int] = key("one run of everything each; table rows are means over them", ge=0)
    compute: Compute = key("numerical settings of every stage", factory=Compute)
    experiments: list[Experiment] = key("architectures and tasks", factory=list)
    from_files: list[str] = key("released configurations in the paper's own YAML keys; each adds an experiment", factory=list)
    checks: list[Literal["reinit", "shuffle", "invert"]] = key(
        "sanity checks of the branches that ask for them", factory=lambda: ["reinit", "shuffle", "invert"]
    )
    gem_margin: float = key("a gem beats every check by more than this many percentage points after fine-tuning", 1.0, ge=0)
    gem_before: float = key("a gem's accuracy before fine-tuning is this many points above chance", 10.0, ge=0)
    published: list[PublishedGem] = key("published figures for the table", factory=list)

    def __post_init__(self) -> None:
        check_names("experiments", [e.name for e in self.experiments])
        if not self.experiments and not self.from_files:
            raise ValueError("experiments: at least one, or a file in from_files")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} must be at least one, and different")
