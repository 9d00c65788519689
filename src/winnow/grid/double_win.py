"""The double-win grid: paths, tickets, transfers and the configuration of every job.

    results/double_win/<source>/<pretraining>/s<seed>/dense.safetensors
                                                     /tickets/<ticket>.mask.safetensors
                                                     /trained/imp-<regime>-<round>.safetensors
                                                     /transfer/<dataset>/<percent>/<ticket>/<mode>/s<run seed>/

A ticket is spelled `dense`, `imp-<regime>-<round>`, `random-<regime>-<round>`, `omp-<round>` or `extra-<name>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from winnow.config.double_win import DoubleWin, Downstream, Pretraining
from winnow.schema import key, part, plain

ROOT = "results/double_win"
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
        return f"{ROOT}/{self.source}/{self.pretraining}/s{self.seed}"

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


def percent(fraction: float) -> str:
    """0.1 -> '10', as in paths."""
    return f"{100 * fraction:g}"


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


def named(items: list[Any], name: str) -> Any:
    """The item of that name."""
    return next(i for i in items if i.name == name)


def dense_config(section: DoubleWin, name: str, seed: int) -> dict[str, Any]:
    """Configuration of pretrain, or of import_weights, for one pre-training."""
    p: Pretraining = named(section.pretrainings, name)
    if p.method == "import":
        return {"weights": plain(p.weights), "model": plain(section.source.model), "num_classes": p.num_classes}
    optional = {"attack": plain(p.attack)} if p.attack else {}
    shared = {"data": plain(section.source.data), "model": plain(section.source.model), "compute": plain(section.compute)}
    return {"method": p.method, "train": plain(p.train), "seed": seed, **shared, **optional}


def imp_train_config(section: DoubleWin, regime: str, seed: int) -> dict[str, Any]:
    """Configuration of imp_train; the round is not in it, for the mask tells."""
    attack = {"attack": plain(section.imp.attack)} if regime == "adv" else {}
    shared = {"data": plain(section.source.data), "train": plain(section.imp.train), "compute": plain(section.compute)}
    return {**shared, "seed": seed, **attack}


def prune_config(section: DoubleWin, round_number: int) -> dict[str, Any]:
    """Configuration of imp_prune and one_shot_prune."""
    return {"prune_percent": section.imp.prune_percent, "round": round_number}


def transfer_config(section: DoubleWin, dataset: str, fraction_percent: str, mode: str, seed: int) -> dict[str, Any]:
    """Configuration of transfer."""
    task: Downstream = named(section.downstreams, dataset)
    attack = {"attack": plain(task.attack)} if mode == "adv" else {}
    train = plain(task.adv if mode == "adv" else task.std)
    shared = {"data": plain(task.data), "compute": plain(section.compute)}
    return {**shared, "train": train, "fraction": float(fraction_percent) / 100, "seed": seed, **attack}


def evaluate_config(section: DoubleWin, dataset: str, seed: int) -> dict[str, Any]:
    """Configuration of evaluate."""
    task: Downstream = named(section.downstreams, dataset)
    return {"data": plain(task.data), "evaluation": plain(task.evaluation), "compute": plain(section.compute), "seed": seed}


def table_config(section: DoubleWin) -> dict[str, Any]:
    """Configuration of double_win_table: the grid, and how its rows are compared."""
    return {"grid": plain(grid_of(section)), "tolerance": section.tolerance, "published": plain(section)["published"]}
