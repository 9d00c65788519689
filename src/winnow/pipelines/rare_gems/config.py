"""Schema of the `rare_gems` section of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from winnow.config import architectures
from winnow.config.gems import ITERATIVE, NESTED, SearchOptions, WeightInit
from winnow.config.parts import (
    AnyData,
    Attack,
    Compute,
    Corpus,
    Count,
    FilePath,
    Model,
    Percent,
    Train,
    check_names,
    check_seeds,
)
from winnow.config.pruning import FOR_IMAGES, LIGHT, ImpSchedule, Moving
from winnow.config.vision import WeightsSource
from winnow.pipelines.beyond import MeasuredSpeed, Relations, check_of, side
from winnow.schema import Part, key

SEARCHED = ("hc_iter", "hc", "ep", "global_ep", "global_ep_iter")
NAME = "letters, digits, _ and . only: it becomes part of file names"


class ImpWithRewinding(ImpSchedule):
    """Iterative magnitude pruning with rewinding, the pruning that gems compete with."""

    rounds: int = key("rounds to run", 30, ge=1)
    rewind: Literal["warm", "cold", "renda"] = key(
        "warm: to rewind_iteration; cold: to iteration 0; renda: not the weights", "warm"
    )
    ranked: Literal["last", "best"] = key(
        "rank the weights of the last epoch, or of the best held-out accuracy", "best"
    )


class _Branch(Part):
    name: str = key(f"names its folder; {NAME}")
    targets: list[Percent] | None = key("percentages that REMAIN; null: the experiment's", None)
    init: WeightInit | None = key("initialisation of the weights; null: the experiment's", None)
    weights: FilePath | None = key(
        "start from this weights artifact of winnow instead (warm gems); {seed} is replaced", None
    )
    imported: WeightsSource | None = key("start from pre-trained weights from outside instead", None)
    imported_classes: int | None = key("for imported: classes of the head in the file", None, ge=1)
    attack: Attack | None = key("adversary of search and fine-tuning (robust gems)", None)
    finetune: Train | None = key("fine-tuning; null: the experiment's", None)

    def check(self) -> None:
        """One source of the weights."""
        if (self.imported is None) != (self.imported_classes is None):
            raise ValueError("imported and imported_classes go together")
        if self.imported is not None and self.weights is not None:
            raise ValueError("set weights or imported, not both")


class SearchBranch(_Branch):
    """Tickets that a search finds: Gem-Miner, edge-popup and their forms."""

    algo: Literal["hc_iter", "hc", "ep", "global_ep", "global_ep_iter"] = key(
        "hc_iter: Gem-Miner; hc: without hard prunes; ep: edge-popup; global_ep, global_ep_iter: its global forms"
    )
    search: SearchOptions = key("the search")
    train: Train = key("optimisation of the search")
    sanity: bool = key("run the sanity checks of each ticket", False)

    def check(self) -> None:
        """An iterative search prunes at least once."""
        super().check()
        if self.algo in ITERATIVE and self.train.epochs <= self.search.iter_period:
            raise ValueError(
                f"train.epochs: a search of {self.train.epochs} epochs never prunes with iter_period "
                f"{self.search.iter_period}; it takes iter_period + 1"
            )


class ImpBranch(_Branch):
    """Tickets of iterative magnitude pruning."""

    algo: Literal["imp"] = key("iterative magnitude pruning")
    train: Train = key("optimisation of a round")
    imp: ImpWithRewinding = key("rounds and rewinding")
    sanity: bool = key(
        "run the sanity checks of each ticket; invert is a second chain, whose rounds remove the largest weights", False
    )


class DenseBranch(_Branch):
    """The dense network."""

    algo: Literal["wt"] = key("dense training")
    train: Train = key("its optimisation")


class MovingBranch(_Branch):
    """Networks trained under masks that move, from Erdős–Rényi-kernel densities on."""

    algo: Literal["rigl"] = key("RigL (Evci et al., ICML 2020); `finetune` is its training")
    moving: Moving = key("how the masks move", factory=Moving)


class PrunedBranch(_Branch):
    """Tickets that are cut from the initial weights in one step."""

    algo: Literal[*FOR_IMAGES] = key(  # type: ignore[valid-type]
        "random: uniform over all layers; the others as in winnow.prune"
    )
    images: int = key("training images that snip and grasp look at", 128, ge=1)
    sanity: bool = key("run the sanity checks of each ticket", False)


Branch = Annotated[SearchBranch | ImpBranch | DenseBranch | MovingBranch | PrunedBranch, Field(discriminator="algo")]


class Experiment(Part):
    """One architecture on one task, with all branches that are compared there."""

    name: str = key(f"names its folder; {NAME}")
    dataset: str = key("column `dataset` of the table")
    data: AnyData = key("the task")
    model: Model = key("the architecture; column `arch`")
    targets: list[Percent] = key("percentages of the weights that shall REMAIN")
    init: WeightInit = key("initialisation of the weights", factory=WeightInit)
    finetune: Train = key("fine-tuning of every ticket")
    branches: list[Branch] = key("what is compared")

    def check(self) -> None:
        """Names and targets; one target for a search whose hard prunes do not decide alone."""
        check_names("branches", [b.name for b in self.branches])
        for targets in (self.targets, *(b.targets for b in self.branches if b.targets is not None)):
            if not targets or len(set(targets)) != len(targets):
                raise ValueError(f"targets: {targets} must be at least one, and different")
        for b in self.branches:
            drawn = isinstance(b, SearchBranch) and b.algo in NESTED and not b.search.unflag_before_finetune
            if drawn and len(b.targets or self.targets) > 1:
                raise ValueError(
                    f"{b.name}: without unflag_before_finetune a search gives one target; make a branch for each"
                )
        language = self.model.arch in architectures.LANGUAGE
        if language != isinstance(self.data, Corpus):
            raise ValueError(
                f"model.arch: {self.model.arch} {'reads words' if language else 'sees images'}, "
                f"data.dataset {self.data.dataset} has {'images' if language else 'words'}"
            )
        for b in self.branches if language else ():
            if isinstance(b, PrunedBranch) and b.algo not in LIGHT:
                raise ValueError(f"{b.name}: {b.algo} looks at images; over a corpus take one of {', '.join(LIGHT)}")
            if b.imported is not None or b.attack is not None:
                raise ValueError(f"{b.name}: imported and attack are for images; leave them out over a corpus")


class PublishedGem(Part):
    """A published figure to stand beside ours."""

    experiment: str = key("name of the experiment")
    branch: str = key("name of the branch")
    remaining_percent: float = key("percentage that remains there", gt=0, le=100)
    acc_after: float = key("test accuracy after fine-tuning (percent)", ge=0, le=100)
    acc_before: float | None = key("test accuracy before it", None, ge=0, le=100)


class RareGems(Part):
    """Rare gems (NeurIPS 2022): search at initialisation, fine-tune, check, compare."""

    seeds: list[Count] = key("one run of everything each; table rows are means over them")
    compute: Compute = key("numerical settings of every stage", factory=Compute)
    experiments: list[Experiment] = key("architectures and tasks", factory=list)
    from_files: list[FilePath] = key(
        "released configurations in the paper's own YAML keys; each adds an experiment", factory=list
    )
    checks: list[Literal["reinit", "shuffle", "invert"]] = key(
        "sanity checks of the branches that ask for them", factory=lambda: ["reinit", "shuffle", "invert"]
    )
    gem_margin: float = key(
        "a gem beats every check by more than this many percentage points after fine-tuning", 1.0, ge=0
    )
    gem_before: float = key("a gem's accuracy before fine-tuning is this many points above chance", 10.0, ge=0)
    published: list[PublishedGem] = key("published figures for the table", factory=list)
    speed: MeasuredSpeed | None = key("measure how fast tickets run here; null: no", None)
    relations: Relations | None = key("compare tickets and the networks trained under them; null: no", None)

    def check(self) -> None:
        """Names and seeds."""
        check_names("experiments", [e.name for e in self.experiments])
        if not self.experiments and not self.from_files:
            raise ValueError("experiments: at least one, or a file in from_files")
        check_seeds(self.seeds)
        check_of(self, {b.name for e in self.experiments for b in e.branches})
        unseen = [e.name for e in self.experiments if not isinstance(e.data, Corpus) and side(e.data) is None]
        if self.speed is not None and unseen:
            raise ValueError(f"speed: set data.image_size of {unseen[0]}, the side of the images to measure with")
