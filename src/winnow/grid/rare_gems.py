"""The rare-gems grid: paths, tickets, and the configuration of every job.

    results/rare_gems/<experiment>/imported/<branch>.safetensors
    results/rare_gems/<experiment>/init/<init>/s<seed>.safetensors
    results/rare_gems/<experiment>/<branch>/s<seed>/search/<target>.{mask,order}.safetensors, <target>.levels/
                                                   /inverted/<target>.order.safetensors
                                                   /{drawn,random,smart_ratio,snip,grasp,synflow}/<target>.mask.safetensors
                                                   /tuned/<target>.json                  before and after fine-tuning
                                                   /sanity/<target>.json
                                                   /imp/round<k>.{json,safetensors}      round 0 is dense

A target is the percentage that remains. An <init> is spelled `signed_constant`, `signed_constant-fan5` (fans scaled for
5 %) or `from-<branch>` (that branch's pre-trained weights).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from winnow.config.gems import ITERATIVE, WeightInit
from winnow.config.rare_gems import SEARCHED, Branch, Experiment, RareGems
from winnow.grid import named
from winnow.schema import key, part, plain

ROOT = "results/rare_gems"


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


@part
class Line:
    """One branch as the grid sees it."""

    name: str = key("name of the branch")
    algo: str = key("its algorithm")
    targets: list[float] = key("percentages that remain")
    schedule: list[float] = key("imp: percentage that remains after each round", factory=list)
    sanity: bool = key("whether its sanity checks run", False)


@part
class Block:
    """One experiment as the grid sees it."""

    name: str = key("name of the experiment")
    dataset: str = key("its dataset")
    arch: str = key("its architecture")
    branches: list[Line] = key("what is compared")


@part
class Grid:
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
                        schedule=b.imp.schedule() if b.imp else [],
                        sanity=b.sanity,
                    )
                    for b in e.branches
                ],
            )
            for e in section.experiments
        ],
        seeds=section.seeds,
    )


def targets(section: RareGems | None) -> list[str]:
    """The table and figures of a section; nothing without one."""
    if section is None:
        return []
    return ["results/tables/rare_gems.csv", *(f"results/figures/rare_gems/{e.name}.svg" for e in section.experiments)]


def find(section: RareGems, experiment: str, branch: str) -> tuple[Experiment, Branch]:
    """The experiment and branch of those names."""
    e = named(section.experiments, experiment)
    return e, named(e.branches, branch)


def init_name(experiment: Experiment, branch: Branch) -> str:
    """How a branch's initial weights are spelled in paths."""
    if branch.weights is not None or branch.imported is not None:
        return f"from-{branch.name}"
    init = branch.init or experiment.init
    return f"{init.init}-fan{init.target_sparsity:g}" if init.scale_fan else init.init


def init_path(section: RareGems, experiment: str, branch: str, seed: object) -> str:
    """A branch's initial weights."""
    e, b = find(section, experiment, branch)
    return f"{ROOT}/{experiment}/init/{init_name(e, b)}/s{seed}.safetensors"


def ticket_path(section: RareGems, experiment: str, branch: str, seed: object, target: str) -> str:
    """The ticket of a searched or drawn branch: what the search itself wrote, or what was drawn from its order."""
    e, b = find(section, experiment, branch)
    made_by: str = b.algo
    if b.algo in SEARCHED:
        made_by = "search" if target == search_target(e, b, target) else "drawn"
    return f"{ROOT}/{experiment}/{branch}/s{seed}/{made_by}/{target}.mask.safetensors"


def search_target(experiment: Experiment, branch: Branch, target: str) -> str:
    """The target of the search that gives the ticket for `target`: the branch's lowest when one search serves all."""
    return f"{min(targets_of(experiment, branch)):g}" if branch.one_search_for_all else target


def inverted_path(section: RareGems, experiment: str, branch: str, seed: object, target: str) -> str | None:
    """The prune order of the inverted search; None where no hard prune can be inverted, or no check asks for it."""
    e, b = find(section, experiment, branch)
    if "invert" not in section.checks or b.algo not in ITERATIVE:
        return None
    return f"{ROOT}/{experiment}/{branch}/s{seed}/inverted/{search_target(e, b, target)}.order.safetensors"


def init_config(section: RareGems, experiment: str, init: str, seed: int | str) -> dict[str, Any]:
    """Configuration of gem_init for one spelled init."""
    e = named(section.experiments, experiment)
    if init.startswith("from-"):
        return {"data": plain(e.data), "seed": int(seed)}
    name, _, fan = init.partition("-fan")
    drawn = WeightInit(init=name, scale_fan=bool(fan), target_sparsity=float(fan or 100.0))  # type: ignore[arg-type]
    return {"data": plain(e.data), "model": plain(e.model), "init": plain(drawn), "seed": int(seed)}


def init_source(section: RareGems, experiment: str, init: str, seed: object) -> str | None:
    """The pre-trained weights behind a spelled init; None for a drawn one."""
    if not init.startswith("from-"):
        return None
    branch = find(section, experiment, init.removeprefix("from-"))[1]
    if branch.imported is not None:
        return f"{ROOT}/{experiment}/imported/{branch.name}.safetensors"
    return str(branch.weights).replace("{seed}", str(seed))


def import_config(section: RareGems, experiment: str, branch: str) -> dict[str, Any]:
    """Configuration of import_weights for a branch that starts from weights from outside."""
    e, b = find(section, experiment, branch)
    return {"weights": plain(b.imported), "model": plain(e.model), "num_classes": b.imported_classes}


def _training(section: RareGems, e: Experiment, b: Branch, train: Any, seed: int | str) -> dict[str, Any]:
    attack = {"attack": plain(b.attack)} if b.attack else {}
    return {"data": plain(e.data), "train": plain(train), "compute": plain(section.compute), "seed": int(seed), **attack}


def search_config(
    section: RareGems, experiment: str, branch: str, target: str, invert: bool, seed: int | str
) -> dict[str, Any]:
    """Configuration of gem_search."""
    e, b = find(section, experiment, branch)
    search = {**plain(b.search), "algo": b.algo, "target_sparsity": float(target), "invert": invert}
    return {"search": search, **_training(section, e, b, b.train, seed)}


def finetune_config(section: RareGems, experiment: str, branch: str, seed: int | str) -> dict[str, Any]:
    """Configuration of gem_finetune; the target is not in it, for the ticket tells."""
    e, b = find(section, experiment, branch)
    return _training(section, e, b, b.finetune or e.finetune, seed)


def sanity_config(section: RareGems, experiment: str, branch: str, target: str, seed: int | str) -> dict[str, Any]:
    """Configuration of gem_sanity."""
    checks = [c for c in section.checks if c != "invert"]
    return {**finetune_config(section, experiment, branch, seed), "target_sparsity": float(target), "checks": checks}


def ticket_config(section: RareGems, experiment: str, branch: str, target: str, seed: int | str) -> dict[str, Any]:
    """Configuration of the stage that draws a branch's tickets: gem_ticket, smart_ratio, random_ticket, snip, grasp, synflow."""
    e, b = find(section, experiment, branch)
    if b.algo == "random":
        return {"remaining_fraction": float(target) / 100.0, "seed": int(seed)}
    if b.algo == "smart_ratio":
        return {"target_sparsity": float(target), "divide_by_square": e.model.arch.startswith("vgg"), "seed": int(seed)}
    if b.algo == "synflow":
        return {"target_sparsity": float(target), "data": plain(e.data), "compute": plain(section.compute)}
    if b.algo in ("snip", "grasp"):
        shared = {"data": plain(e.data), "compute": plain(section.compute), "images": b.images, "seed": int(seed)}
        return {"target_sparsity": float(target), **shared}
    return {"target_sparsity": float(target)}


def dense_config(section: RareGems, experiment: str, branch: str, seed: int | str) -> dict[str, Any]:
    """Configuration of weight_training, dense or as round 0 of imp."""
    e, b = find(section, experiment, branch)
    iteration = b.imp.rewind_iteration if b.imp and b.imp.rewind == "warm" else 0
    return {**_training(section, e, b, b.train, seed), "rewind_iteration": iteration}


def imp_config(section: RareGems, experiment: str, branch: str, round_number: int, seed: int | str) -> dict[str, Any]:
    """Configuration of one imp_rewind round."""
    e, b = find(section, experiment, branch)
    assert b.imp is not None
    remaining = b.imp.schedule()[round_number - 1]
    return {**_training(section, e, b, b.train, seed), "rewind": b.imp.rewind, "remaining_percent": remaining}


def table_config(section: RareGems) -> dict[str, Any]:
    """Configuration of rare_gems_table: the grid, and what makes a gem."""
    whole = plain(section)
    return {"grid": plain(grid_of(section)), **{k: whole[k] for k in ("gem_margin", "gem_before", "published")}}
