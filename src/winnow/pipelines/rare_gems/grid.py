"""The rare-gems grid: paths, tickets, and the configuration of every job.

    results/rare_gems/<experiment>/imported/<branch>.safetensors
    results/rare_gems/<experiment>/init/<init>/s<seed>.safetensors
    results/rare_gems/<experiment>/<branch>/s<seed>/search/<target>.{mask,order}.safetensors, <target>.levels/
                                                   /inverted/<target>.order.safetensors
                                                   /{drawn,<method>}/<target>.mask.safetensors
                                                   /tuned/<target>.json                  before and after fine-tuning
                                                   /sanity/<target>.json
                                                   /imp/round<k>.{json,safetensors}      round 0 is dense
                                                   /imp_inverted/round<k>.*              of imp's sanity checks

A target is the percentage that remains. An <init> is spelled `signed_constant`, `signed_constant-fan5.0` (fans scaled
for 5 %) or `from-<branch>` (that branch's pre-trained weights).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from winnow.config.gems import ITERATIVE, NESTED, Search, WeightInit
from winnow.config.jobs import ImportWeights, TrainWeights
from winnow.config.parts import Train
from winnow.config.pruning import FOR_IMAGES, LIGHT, Prune, settings
from winnow.pipelines import named
from winnow.pipelines.rare_gems.config import (
    SEARCHED,
    Branch,
    Experiment,
    ImpBranch,
    MovingBranch,
    PrunedBranch,
    PublishedGem,
    RareGems,
    SearchBranch,
)
from winnow.pipelines.rare_gems.jobs import GemInit, GemSanity, GemSearch, GemTicket
from winnow.prune.methods import START
from winnow.schema import Part, key

ROOT = "results/rare_gems"
TITLE, FIGURE, FIGURE_WILDCARDS = "Rare gems", "{experiment}", ("experiment",)
INVERTED = "imp_inverted"
LIGHT_METHODS = "|".join(("imp", INVERTED, *LIGHT))
SCORED_METHODS = "|".join(m for m in FOR_IMAGES if m not in LIGHT)
FOLDER = f"{ROOT}/{{experiment}}/{{branch}}/s{{seed}}"


@dataclass(frozen=True)
class Cell:
    """One ticket of one seed: everything that identifies it, and where its results lie."""

    experiment: str
    dataset: str
    arch: str
    branch: str
    algo: str
    target: float
    round: int
    sanity: bool
    seed: int

    @property
    def folder(self) -> str:
        """Folder of the branch's artifacts."""
        return f"{ROOT}/{self.experiment}/{self.branch}/s{self.seed}"

    @property
    def metrics(self) -> str:
        """Accuracy before and after."""
        if self.algo in ("imp", "wt"):
            return f"{self.folder}/imp/round{self.round}.json"
        return f"{self.folder}/tuned/{self.target:g}.json"

    @property
    def checks(self) -> str | None:
        """Accuracy of the sanity checks, where they were asked for."""
        return f"{self.folder}/sanity/{self.target:g}.json" if self.sanity else None


class Line(Part):
    """One branch as the grid sees it."""

    name: str = key("name of the branch")
    algo: str = key("its algorithm")
    targets: list[float] = key("percentages that remain")
    schedule: list[float] = key("imp: percentage that remains after each round", factory=list)
    sanity: bool = key("whether its sanity checks run", False)


class Block(Part):
    """One experiment as the grid sees it."""

    name: str = key("name of the experiment")
    dataset: str = key("its dataset")
    arch: str = key("its architecture")
    branches: list[Line] = key("what is compared")


class Grid(Part):
    """Everything that decides which tickets there are."""

    experiments: list[Block] = key("architectures and tasks")
    seeds: list[int] = key("seeds of the runs")

    def cells(self) -> Iterator[Cell]:
        """Every ticket that the table needs, seeds innermost."""
        for block in self.experiments:
            for line in block.branches:
                for target, seed in product(line.targets, self.seeds):
                    yield Cell(
                        experiment=block.name,
                        dataset=block.dataset,
                        arch=block.arch,
                        branch=line.name,
                        algo=line.algo,
                        target=target,
                        round=nearest_round(line.schedule, target) if line.schedule else 0,
                        sanity=line.sanity,
                        seed=seed,
                    )


def nearest_round(schedule: list[float], target: float) -> int:
    """The IMP round (from 1) whose remaining percentage is nearest to `target` in ratio."""
    return min(range(1, len(schedule) + 1), key=lambda k: abs(math.log(schedule[k - 1] / target)))


def targets_of(experiment: Experiment, branch: Branch) -> list[float]:
    """The percentages that a branch goes to; 100 for dense training."""
    if branch.algo == "wt":
        return [100.0]
    return branch.targets if branch.targets is not None else experiment.targets


def grid_of(section: RareGems) -> Grid:
    """The grid that a configuration spans."""
    return Grid(
        experiments=[
            Block(
                name=e.name,
                dataset=e.dataset,
                arch=e.model.arch,
                branches=[
                    Line(
                        name=b.name,
                        algo=b.algo,
                        targets=targets_of(e, b),
                        schedule=b.imp.schedule() if isinstance(b, ImpBranch) else [],
                        sanity=getattr(b, "sanity", False),  # dense training has none
                    )
                    for b in e.branches
                ],
            )
            for e in section.experiments
        ],
        seeds=section.seeds,
    )


def targets(section: RareGems) -> list[str]:
    """The table and figures of a section."""
    return ["results/tables/rare_gems.csv", *(f"results/figures/rare_gems/{e.name}.svg" for e in section.experiments)]


def table_inputs(section: RareGems) -> list[str]:
    """Metrics of every ticket and check."""
    cells = list(grid_of(section).cells())
    return sorted({c.metrics for c in cells} | {c.checks for c in cells if c.checks})


def find(section: RareGems, experiment: str, branch: str) -> tuple[Experiment, Branch]:
    """The experiment and branch of those names."""
    e = named(section.experiments, experiment)
    return e, named(e.branches, branch)


def init_name(experiment: Experiment, branch: Branch) -> str:
    """How a branch's initial weights are spelled in paths."""
    if branch.weights is not None or branch.imported is not None:
        return f"from-{branch.name}"
    init = branch.init or experiment.init
    return f"{init.init}-fan{init.target_sparsity!r}" if init.scale_fan else init.init


def init_path(section: RareGems, experiment: str, branch: str, seed: object) -> str:
    """A branch's initial weights."""
    e, b = find(section, experiment, branch)
    return f"{ROOT}/{experiment}/init/{init_name(e, b)}/s{seed}.safetensors"


def ticket_path(section: RareGems, experiment: str, branch: str, seed: object, target: str) -> str:
    """The ticket of a branch: of IMP's nearest round, what the search itself wrote, or what was drawn from its
    order.
    """
    e, b = find(section, experiment, branch)
    made_by: str = b.algo
    if isinstance(b, ImpBranch):
        target = f"round{nearest_round(b.imp.schedule(), float(target))}"
    if isinstance(b, MovingBranch):
        made_by = START
    if b.algo in SEARCHED:
        made_by = "search" if target == search_target(e, b, target) else "drawn"
    return f"{ROOT}/{experiment}/{branch}/s{seed}/{made_by}/{target}.mask.safetensors"


def search_target(experiment: Experiment, branch: Branch, target: str) -> str:
    """The target of the search that gives the ticket for `target`: the branch's lowest when one search serves all."""
    return f"{min(targets_of(experiment, branch)):g}" if branch.algo in NESTED else target


def inverted_path(section: RareGems, experiment: str, branch: str, seed: object, target: str) -> str | None:
    """The prune order of the inverted search, or the ticket of the inverted IMP; None where no hard prune can be
    inverted, or no check asks for it.
    """
    e, b = find(section, experiment, branch)
    if "invert" in section.checks and b.algo == "imp":
        return ticket_path(section, experiment, branch, seed, target).replace("/imp/", f"/{INVERTED}/")
    if "invert" not in section.checks or b.algo not in ITERATIVE:
        return None
    return f"{ROOT}/{experiment}/{branch}/s{seed}/inverted/{search_target(e, b, target)}.order.safetensors"


def init(section: RareGems, experiment: str, init: str, seed: str) -> GemInit:
    """What makes the initial weights that are spelled so."""
    e = named(section.experiments, experiment)
    if init.startswith("from-"):
        return GemInit(data=e.data, seed=int(seed))
    name, _, fan = init.partition("-fan")
    drawn = WeightInit.model_validate({"init": name, "scale_fan": bool(fan), "target_sparsity": float(fan or 100.0)})
    return GemInit(data=e.data, model=e.model, init=drawn, seed=int(seed))


def init_source(section: RareGems, experiment: str, init: str, seed: object) -> str | None:
    """The pre-trained weights behind a spelled init; None for a drawn one."""
    if not init.startswith("from-"):
        return None
    branch = find(section, experiment, init.removeprefix("from-"))[1]
    if branch.imported is not None:
        return f"{ROOT}/{experiment}/imported/{branch.name}.safetensors"
    return str(branch.weights).replace("{seed}", str(seed))


def imported(section: RareGems, experiment: str, branch: str) -> ImportWeights:
    """What brings in the weights that a branch starts from."""
    e, b = find(section, experiment, branch)
    assert b.imported is not None and b.imported_classes is not None
    return ImportWeights(weights=b.imported, model=e.model, num_classes=b.imported_classes)


def _training(section: RareGems, e: Experiment, b: Branch, train: Train, seed: str) -> dict[str, Any]:
    return {"data": e.data, "train": train, "attack": b.attack, "compute": section.compute, "seed": int(seed)}


def search(section: RareGems, experiment: str, branch: str, target: str, kind: str, seed: str) -> GemSearch:
    """A search; `kind` is search or inverted."""
    e, b = find(section, experiment, branch)
    assert isinstance(b, SearchBranch)
    options: dict[str, Any] = {name: getattr(b.search, name) for name in type(b.search).model_fields}
    chosen = Search(**options, algo=b.algo, target_sparsity=float(target), invert=kind == "inverted")
    uncompiled = {"compute": section.compute.having(compile=False)}
    return GemSearch(search=chosen, **_training(section, e, b, b.train, seed) | uncompiled)


def draw(section: RareGems, target: str) -> GemTicket:
    """A ticket from a search's prune order."""
    return GemTicket(target_sparsity=float(target))


def prune(section: RareGems, experiment: str, branch: str, target: str, seed: str, method: str = "imp") -> Prune:
    """A ticket cut from the initial weights, or the cut of a round of IMP or of its inverted chain (target
    round<k>).
    """
    e, b = find(section, experiment, branch)
    if isinstance(b, ImpBranch):
        number = int(target.removeprefix("round"))
        left, options = b.imp.remaining(number), {"invert": True} if method == INVERTED else {}
        return Prune(method="magnitude", label=method, remaining_percent=left, round=number, options=options)
    if isinstance(b, MovingBranch):
        return Prune(method=START, remaining_percent=float(target), **settings(START, int(seed), None))
    assert isinstance(b, PrunedBranch)
    options = {"divide_by_square": e.model.arch.startswith(("vgg", "tinyvgg"))} if b.algo == "smart_ratio" else {}
    keys = settings(b.algo, int(seed), b.images, data=e.data, compute=section.compute.having(compile=False))
    return Prune(method=b.algo, remaining_percent=float(target), options=options, **keys)


def finetune(section: RareGems, experiment: str, branch: str, seed: str) -> TrainWeights:
    """Fine-tuning of a ticket; the target is not in it, for the ticket tells."""
    e, b = find(section, experiment, branch)
    moving = b.moving if isinstance(b, MovingBranch) else None
    training = _training(section, e, b, b.finetune or e.finetune, seed)
    return TrainWeights(keep="best", measure=True, moving=moving, **training)


def sanity(section: RareGems, experiment: str, branch: str, target: str, seed: str) -> GemSanity:
    """The sanity checks of a ticket."""
    e, b = find(section, experiment, branch)
    checks = [c for c in section.checks if c != "invert"]
    train = b.train if isinstance(b, ImpBranch) else b.finetune or e.finetune
    keep = b.imp.ranked if isinstance(b, ImpBranch) else "best"
    return GemSanity(target_sparsity=float(target), checks=checks, keep=keep, **_training(section, e, b, train, seed))


def imp_train(section: RareGems, experiment: str, branch: str, round_number: str, seed: str) -> TrainWeights:
    """Dense training, also as round 0 of imp, which keeps the point to rewind to; or an IMP round."""
    e, b = find(section, experiment, branch)
    assert not isinstance(b, SearchBranch)
    warm = isinstance(b, ImpBranch) and b.imp.rewind == "warm" and round_number == "0"
    return TrainWeights(
        keep=b.imp.ranked if isinstance(b, ImpBranch) else "best", measure=True,
        rewind_iteration=b.imp.rewind_iteration if warm and isinstance(b, ImpBranch) else 0,
        **_training(section, e, b, b.train, seed),  # type: ignore[union-attr]
    )  # fmt: skip


class Table(Part):
    """What the stage rare_gems_table gets."""

    grid: Grid = key("every ticket of the table")
    gem_margin: float = key("a gem beats every check by more than this many percentage points", 1.0, ge=0)
    gem_before: float = key("a gem's accuracy before fine-tuning is this many points above chance", 10.0, ge=0)
    published: list[PublishedGem] = key("published figures to stand beside ours", factory=list)


def table(section: RareGems) -> Table:
    """The grid, and what makes a gem."""
    shared = {name: getattr(section, name) for name in ("gem_margin", "gem_before", "published")}
    return Table(grid=grid_of(section), **shared)


class Plot(Part):
    """What the stage rare_gems_plots gets."""

    experiment: str = key("experiment to draw")


def plot(section: RareGems, experiment: str) -> Plot:
    """One figure."""
    return Plot(experiment=experiment)
