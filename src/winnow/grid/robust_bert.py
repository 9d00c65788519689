"""The robust-ticket grid: paths, tickets, attacks and the configuration of every job.

    results/robust_bert/<model>/<task>/pretrained/model.safetensors
                                      /s<seed>/<network>/model.safetensors
                                      /s<seed>/scores/epoch-<epoch>.safetensors
                                      /s<seed>/tickets/<ticket>.mask.safetensors
                                      /s<seed>/attacks/<attacker>/<network>.jsonl

A network is `dense`, `freelb` or a ticket; a ticket is spelled `robust-<epoch>-<removed %>`, `random-<removed %>` or
`magnitude-<removed %>`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from winnow.config.robust_bert import Attacker, RobustBert, Task
from winnow.config.text import TextAttack, TextData
from winnow.grid import percent
from winnow.schema import key, part, plain
from winnow.text.assets import needed_roles
from winnow.weights import pretrained_files, pretrained_folder

ROOT = "results/robust_bert"
TASK = f"{ROOT}/{{model}}/{{task}}"
SEED = f"{TASK}/s{{seed}}"
FETCHED = "data/attack_assets"  # what fetch_attack_assets fills
METHODS = {"robust": "robust_ticket", "random": "random_ticket", "magnitude": "magnitude_ticket"}


@dataclass(frozen=True)
class Run:
    """One attack on one network."""

    model: str
    task: str
    seed: int
    network: str
    attacker: str

    @property
    def folder(self) -> str:
        """Folder of the seed."""
        return f"{ROOT}/{self.model}/{self.task}/s{self.seed}"

    @property
    def figures(self) -> str:
        """The attack's metrics file."""
        return f"{self.folder}/attacks/{self.attacker}/{self.network}.json"

    @property
    def mask(self) -> str | None:
        """The ticket's file; None for dense networks."""
        return f"{self.folder}/tickets/{self.network}.mask.safetensors" if "-" in self.network else None

    @property
    def method(self) -> str:
        """Column `method`."""
        kind = self.network.partition("-")[0]
        return METHODS.get(kind, kind)

    @property
    def search_epoch(self) -> int:
        """Column `search_epoch`; 0 where no search is behind the network."""
        return int(self.network.split("-")[1]) if self.network.startswith("robust-") else 0


@part
class GridTask:
    """One task as the grid sees it."""

    name: str = key("name of the task")
    search_epochs: list[int] = key("epochs that tickets are drawn from")


@part
class Grid:
    """Everything that decides which attacks there are."""

    model: str = key("name of the model")
    tasks: list[GridTask] = key("tasks")
    removed_fractions: list[float] = key("sparsities")
    methods: list[str] = key("kinds of networks")
    attackers: list[str] = key("names of the attackers")
    seeds: list[int] = key("seeds of the runs")

    def networks(self, task: GridTask) -> list[str]:
        """Networks of one task, dense first."""
        found: list[str] = [m for m in ("dense", "freelb") if m in self.methods]
        for fraction in self.removed_fractions:
            if "robust_ticket" in self.methods:
                found += [f"robust-{epoch}-{percent(fraction)}" for epoch in task.search_epochs]
            found += [f"{m}-{percent(fraction)}" for m in ("random", "magnitude") if METHODS[m] in self.methods]
        return found

    def runs(self) -> Iterator[Run]:
        """Every attack that the table needs."""
        for task in self.tasks:
            for network, attacker, seed in product(self.networks(task), self.attackers, self.seeds):
                yield Run(self.model, task.name, seed, network, attacker)


def grid_of(section: RobustBert) -> Grid:
    """The grid that a configuration spans."""
    return Grid(
        model=section.model_name,
        tasks=[GridTask(name=t.name, search_epochs=t.search_epochs) for t in section.tasks],
        removed_fractions=section.removed_fractions,
        methods=list(section.methods),
        attackers=[a.name for a in section.attackers],
        seeds=section.seeds,
    )


def task_of(section: RobustBert, name: str) -> Task:
    """The task of that name."""
    return next(t for t in section.tasks if t.name == name)


def attack_of(section: RobustBert, name: str) -> TextAttack:
    """The settings of the attacker of that name."""
    found: Attacker = next(a for a in section.attackers if a.name == name)
    return found.attack


def _training_data(data: TextData) -> dict[str, Any]:
    # neither the size of the test split nor what attacks leave alone touches training
    return plain(replace(data, test_examples=None, fixed_text=None))


def _uncompiled(section: RobustBert) -> dict[str, Any]:
    return plain(replace(section.compute, compile=False))  # `compile` is for fine-tuning alone


def import_config(section: RobustBert, task: str) -> dict[str, Any]:
    """Configuration of import_text_model; one model for all seeds, as a released encoder is."""
    data = _training_data(task_of(section, task).data)
    return {"model": plain(section.model), "data": data, "compute": _uncompiled(section), "seed": 0}


def model_inputs(section: RobustBert, data_root: str) -> list[str]:
    """Files of a pre-trained model that lies in a folder; none for tiny and hub models."""
    folder = pretrained_folder(section.model.path, data_root) if section.model.path else None
    return [str(file) for file in pretrained_files(folder)] if folder else []


def finetune_config(section: RobustBert, task: str, network: str, seed: int | str) -> dict[str, Any]:
    """Configuration of finetune_text (networks dense and freelb) or retrain_ticket (any ticket)."""
    t = task_of(section, task)
    train = {"dense": t.finetune, "freelb": t.freelb}.get(network, t.retrain)
    shared = {"data": _training_data(t.data), "train": plain(train), "compute": plain(section.compute), "seed": int(seed)}
    return {**shared, "adversary": plain(t.freelb_adversary or t.adversary)} if network == "freelb" else shared


def search_config(section: RobustBert, task: str, seed: int | str) -> dict[str, Any]:
    """Configuration of search_robust_ticket."""
    t = task_of(section, task)
    shared = {"data": _training_data(t.data), "train": plain(t.search), "compute": _uncompiled(section), "seed": int(seed)}
    return {**shared, "masks": plain(t.masks), "adversary": plain(t.adversary), "keep_epochs": t.search_epochs}


def draw_config(removed_percent: str) -> dict[str, Any]:
    """Configuration of draw_ticket."""
    return {"removed_fraction": float(removed_percent) / 100}


def keep_config(removed_percent: str, seed: int | str | None = None) -> dict[str, Any]:
    """Configuration of magnitude_ticket, or of random_ticket when a seed is given."""
    kept = {"remaining_fraction": round(1 - float(removed_percent) / 100, 12)}
    return kept if seed is None else {**kept, "seed": int(seed)}


def attack_config(section: RobustBert, task: str, attacker: str, seed: int | str) -> dict[str, Any]:
    """Configuration of attack_text."""
    t = task_of(section, task)
    data = plain(replace(t.data, train_examples=None))
    return {
        "data": data, "attack": plain(attack_of(section, attacker)), "examples": t.attacked_examples,
        "selection": t.attacked_selection, "compute": _uncompiled(section), "seed": int(seed),
    }  # fmt: skip


def table_config(section: RobustBert) -> dict[str, Any]:
    """Configuration of robust_bert_table."""
    return {"grid": plain(grid_of(section))}


def search_epochs(section: RobustBert | None) -> list[int]:
    """The epochs whose scores the search keeps; one list for all tasks, since one rule declares the files."""
    return section.tasks[0].search_epochs if section else []


def fetch_config(section: RobustBert) -> dict[str, Any]:
    """Configuration of fetch_attack_assets: the attackers with an asset in its folder."""
    fetched = {role for role, path in plain(section.assets).items() if path and path.startswith(f"{FETCHED}/")}
    attacks = [a.attack for a in section.attackers if fetched & set(needed_roles(a.attack))]
    return {"attacks": [plain(a) for a in attacks], "folder": FETCHED}


def targets(section: RobustBert | None) -> list[str]:
    """The table and figures of a section; nothing without one."""
    if section is None:
        return []
    return ["results/tables/robust_bert.csv", *(f"results/figures/robust_bert/{t.name}.svg" for t in section.tasks)]


def table_inputs(section: RobustBert | None) -> list[str]:
    """Attack figures and tickets behind the table."""
    runs = list(grid_of(section).runs()) if section else []
    return sorted({r.figures for r in runs}) + sorted({r.mask for r in runs if r.mask})


def given_assets(section: RobustBert, wildcards: Any) -> dict[str, str]:
    """Role -> path of the files that the attacker needs and the configuration names."""
    roles = needed_roles(attack_of(section, wildcards.attacker))
    return {role: path for role in roles if (path := getattr(section.assets, role))}


def asset_inputs(section: RobustBert, wildcards: Any) -> dict[str, str]:
    """The same as inputs; what lies in the folder that fetch_attack_assets fills stands for that rule's manifest."""
    given = given_assets(section, wildcards)
    own = {role: path for role, path in given.items() if not path.startswith(f"{FETCHED}/")}
    return own if len(own) == len(given) else {**own, "fetched": f"{FETCHED}/manifest.json"}


def asset_arguments(section: RobustBert, wildcards: Any) -> str:
    """The same as arguments of attack_text, quoted."""
    given = given_assets(section, wildcards)
    return " ".join(f"--{role.replace('_', '-')} {shlex.quote(path)}" for role, path in given.items())
