"""The double-win grid: paths, tickets, transfers and the configuration of every job.

    results/double_win/<source>/<pretraining>/s<seed>/dense.safetensors
                                                     /tickets/<ticket>.mask.safetensors
                                                     /trained/imp-<regime>-<round>.safetensors
                                                     /transfer/<dataset>/<percent>/<ticket>/<mode>/s<run seed>/

A ticket is spelled `dense`, `imp-<regime>-<round>`, `random-<regime>-<round>`, `omp-<round>` or `extra-<name>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from winnow.config.double_win import DoubleWin, Downstream, Pretraining
from winnow.grid import named, percent
from winnow.schema import key, part, plain

ROOT = "results/double_win"
CHAIN = f"{ROOT}/{{source}}/{{pretraining}}/s{{seed}}"
MODES = ("std", "adv")


@dataclass(frozen=True)
class Run:
    """One transfer: everything that identifies it."""

    source: str
    pretraining: str
    seed: int
    dataset: str
    percent: str
    ticket: str
    mode: str
    run_seed: int

    @property
    def chain(self) -> str:
        """Folder of the dense weights and tickets."""
        return CHAIN.format(source=self.source, pretraining=self.pretraining, seed=self.seed)

    @property
    def folder(self) -> str:
        """Folder of the transferred models."""
        return f"{self.chain}/transfer/{self.dataset}/{self.percent}/{self.ticket}/{self.mode}/s{self.run_seed}"

    @property
    def mask(self) -> str | None:
        """The ticket's file; None for dense."""
        return None if self.ticket == "dense" else f"{self.chain}/tickets/{self.ticket}.mask.safetensors"

    @property
    def method(self) -> str:
        """imp, omp, random, dense or the name of a further ticket."""
        kind, _, rest = self.ticket.partition("-")
        return rest if kind == "extra" else kind

    @property
    def regime(self) -> str:
        """IMP regime; `none` where no IMP chain is behind the ticket."""
        parts = self.ticket.split("-")
        return parts[1] if parts[0] in ("imp", "random") else "none"

    @property
    def round(self) -> int:
        """IMP round; 0 for dense and further tickets."""
        last = self.ticket.rpartition("-")[2]
        return int(last) if self.ticket.split("-")[0] in ("imp", "omp", "random") else 0


@part
class Branch:
    """One pre-training as the grid sees it."""

    name: str = key("name of the pre-training")
    imp_regimes: list[str] = key("its IMP chains")
    methods: list[str] = key("kinds of its tickets")
    extra: list[str] = key("names of its further tickets")


@part
class Task:
    """One downstream task as the grid sees it."""

    name: str = key("name of the task")
    fractions: list[float] = key("fractions of the training split")


@part
class Grid:
    """Everything that decides which transfers there are."""

    source: str = key("name of the source task")
    branches: list[Branch] = key("pre-trainings")
    tasks: list[Task] = key("downstream tasks")
    rounds: list[int] = key("IMP rounds that are transferred")
    seeds: list[int] = key("seeds of the runs")
    source_seed: int | None = key("shared seed of pre-training and pruning; null: each run's own")

    def tickets(self, branch: Branch) -> list[str]:
        """Tickets of one pre-training that are transferred, dense first."""
        found = ["dense"]
        for r in self.rounds:
            if "omp" in branch.methods:
                found.append(f"omp-{r}")
            for method in ("imp", "random"):
                if method in branch.methods:
                    found += [f"{method}-{regime}-{r}" for regime in branch.imp_regimes]
        return found + [f"extra-{name}" for name in branch.extra]

    def runs(self) -> Iterator[Run]:
        """Every transfer that the table needs."""
        for branch, task in product(self.branches, self.tasks):
            for fraction, ticket, mode, seed in product(task.fractions, self.tickets(branch), MODES, self.seeds):
                own = seed if self.source_seed is None else self.source_seed
                yield Run(self.source, branch.name, own, task.name, percent(fraction), ticket, mode, seed)


def grid_of(section: DoubleWin) -> Grid:
    """The grid that a configuration spans."""
    extra = section.transfer.tickets
    rounds = section.transfer.rounds
    return Grid(
        source=section.source.name,
        branches=[
            Branch(
                name=p.name,
                imp_regimes=list(p.imp_regimes),
                methods=list(p.methods or section.transfer.methods),
                extra=[t.name for t in extra if t.pretraining == p.name],
            )
            for p in section.pretrainings
        ],
        tasks=[Task(name=d.name, fractions=d.fractions) for d in section.downstreams],
        rounds=list(range(1, section.imp.rounds + 1)) if rounds is None else rounds,
        seeds=section.seeds,
        source_seed=section.source_seed,
    )


def dense_config(section: DoubleWin, name: str, seed: str) -> dict[str, Any]:
    """Configuration of pretrain, or of import_weights, for one pre-training."""
    p: Pretraining = named(section.pretrainings, name)
    if p.method == "import":
        return {"weights": plain(p.weights), "model": plain(section.source.model), "num_classes": p.num_classes}
    optional = {"attack": plain(p.attack)} if p.attack else {}
    shared = {"data": plain(section.source.data), "model": plain(section.source.model), "compute": plain(section.compute)}
    return {"method": p.method, "train": plain(p.train), "seed": int(seed), **shared, **optional}


def imp_train_config(section: DoubleWin, regime: str, seed: str) -> dict[str, Any]:
    """Configuration of imp_train; the round is not in it, for the mask tells."""
    attack = {"attack": plain(section.imp.attack)} if regime == "adv" else {}
    shared = {"data": plain(section.source.data), "train": plain(section.imp.train), "compute": plain(section.compute)}
    return {**shared, "seed": int(seed), **attack}


def prune_config(section: DoubleWin, round_number: str) -> dict[str, Any]:
    """Configuration of imp_prune and one_shot_prune."""
    return {"prune_percent": section.imp.prune_percent, "round": int(round_number)}


def random_config(section: DoubleWin, seed: str) -> dict[str, Any]:
    """Configuration of random_prune."""
    return {"seed": int(seed)}


def std_config(section: DoubleWin, dataset: str, fraction_percent: str, seed: str) -> dict[str, Any]:
    """Configuration of a standard transfer."""
    task: Downstream = named(section.downstreams, dataset)
    shared = {"data": plain(task.data), "compute": plain(section.compute)}
    return {**shared, "train": plain(task.std), "fraction": float(fraction_percent) / 100, "seed": int(seed)}


def adv_config(section: DoubleWin, dataset: str, fraction_percent: str, seed: str) -> dict[str, Any]:
    """Configuration of an adversarial transfer."""
    task: Downstream = named(section.downstreams, dataset)
    return std_config(section, dataset, fraction_percent, seed) | {"train": plain(task.adv), "attack": plain(task.attack)}


def evaluate_config(section: DoubleWin, dataset: str, seed: str) -> dict[str, Any]:
    """Configuration of evaluate."""
    task: Downstream = named(section.downstreams, dataset)
    shared = {"data": plain(task.data), "compute": plain(section.compute)}
    return {**shared, "evaluation": plain(task.evaluation), "seed": int(seed)}


def table_config(section: DoubleWin) -> dict[str, Any]:
    """Configuration of double_win_table: the grid, and how its rows are compared."""
    return {"grid": plain(grid_of(section)), "tolerance": section.tolerance, "published": plain(section)["published"]}


def plot_config(section: DoubleWin, dataset: str, fraction_percent: str) -> dict[str, Any]:
    """Configuration of double_win_plots."""
    return {"dataset": dataset, "fraction": float(fraction_percent) / 100}


def targets(section: DoubleWin | None) -> list[str]:
    """The table and figures of a section; nothing without one."""
    if section is None:
        return []
    shown = [f"{d.name}-{percent(f)}" for d in section.downstreams for f in d.fractions]
    return ["results/tables/double_win.csv", *(f"results/figures/double_win/{s}.svg" for s in shown)]


def table_inputs(section: DoubleWin | None) -> list[str]:
    """Every evaluation and ticket that the table reads."""
    runs = list(grid_of(section).runs()) if section else []
    return [f"{run.folder}/evaluation.json" for run in runs] + sorted({run.mask for run in runs if run.mask})


def imported_names(section: DoubleWin | None) -> str:
    """A regular expression of the pre-trainings that are brought in rather than trained (one that matches nothing: none)."""
    names = [p.name for p in section.pretrainings if p.method == "import"] if section else []
    return "|".join(re.escape(n) for n in names) or "(?!)"


def weights_file(section: DoubleWin, wildcards: Any) -> str | list[str]:
    """The local file of an imported pre-training; none for torchvision and hub weights."""
    file = named(section.pretrainings, wildcards.pretraining).weights.file
    return file.replace("{seed}", wildcards.seed) if file else []


def extra_file(section: DoubleWin, wildcards: Any) -> str:
    """The file of a ticket from outside the grid."""
    return named(section.transfer.tickets, wildcards.name).file.replace("{seed}", wildcards.seed)


def last_round(wildcards: Any) -> dict[str, str | list[str]]:
    """What round k prunes: the dense weights (k = 1), or what round k-1 trained, with its mask."""
    chain, last = CHAIN.format(**wildcards), int(wildcards.round) - 1
    if last == 0:
        return {"weights": f"{chain}/dense.safetensors", "mask": []}
    name = f"imp-{wildcards.regime}-{last}"
    return {"weights": f"{chain}/trained/{name}.safetensors", "mask": f"{chain}/tickets/{name}.mask.safetensors"}


def transferred(wildcards: Any) -> dict[str, str | list[str]]:
    """Dense weights and, unless the dense model itself is transferred, a ticket."""
    chain = CHAIN.format(**wildcards)
    mask: str | list[str] = [] if wildcards.ticket == "dense" else f"{chain}/tickets/{wildcards.ticket}.mask.safetensors"
    return {"init": f"{chain}/dense.safetensors", "mask": mask}


def best_ra(wildcards: Any) -> str | list[str]:
    """The best-RA checkpoint beside a best-SA one; adversarial transfers alone have it."""
    if wildcards.mode == "std":
        return []
    folder = "{dataset}/{percent}/{ticket}/adv/s{run_seed}".format(**wildcards)
    return f"{CHAIN.format(**wildcards)}/transfer/{folder}/best_ra.safetensors"
