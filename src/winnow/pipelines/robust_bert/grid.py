"""The robust-ticket grid: paths, tickets, attacks and the configuration of every job.

    results/robust_bert/<model>/<task>/pretrained/model.safetensors
                                      /s<seed>/<network>/model.safetensors
                                      /s<seed>/scores/epoch-<epoch>.safetensors
                                      /s<seed>/tickets/<ticket>.mask.safetensors
                                      /s<seed>/attacks/<attacker>/<network>.jsonl

A network is `dense`, `freelb`, a ticket or, on the way of a ticket's retraining, `<ticket>.epoch<k>`; a ticket is
spelled `robust-<epoch>-<removed %>`, `imp-<removed %>` (rounds of iterative magnitude pruning) or `<method>-<removed
%>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from winnow.config.parts import Compute
from winnow.config.pruning import FOR_TEXTS, LIGHT, Prune, settings
from winnow.config.text import TextAttack, TextData
from winnow.pipelines import named, percent
from winnow.pipelines.robust_bert.config import RobustBert, Task
from winnow.pipelines.robust_bert.jobs import (
    AttackText,
    DrawTicket,
    FetchAttackAssets,
    FinetuneText,
    ImportTextModel,
    SearchRobustTicket,
)
from winnow.schema import Part, key, plain
from winnow.text.assets import needed_roles

ROOT = "results/robust_bert"
TASK = f"{ROOT}/{{model}}/{{task}}"
SEED = f"{TASK}/s{{seed}}"
KINDS = ("random", "imp", *(m for m in FOR_TEXTS if m != "random"))
LIGHT_KINDS = "|".join(("imp", *(m for m in FOR_TEXTS if m in LIGHT)))
SCORED_KINDS = "|".join(m for m in FOR_TEXTS if m not in LIGHT) or "(?!)"
TITLE, FIGURE, FIGURE_WILDCARDS = "Robust BERT tickets", "{task}", ("task",)
EPOCH = ".epoch"  # between a ticket and an epoch of its retraining
RETRAINED = r"(?!.*\.epoch)\w+-[\w.-]+"  # a ticket; Snakemake tries such a pattern on the start of a longer name too
FETCHED = "data/attack_assets"  # what fetch_attack_assets fills


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
    def ticket(self) -> str:
        """The network at the end of its training."""
        return self.network.partition(EPOCH)[0]

    @property
    def retrain_epoch(self) -> int:
        """Column `retrain_epoch`; 0 at the end of the training."""
        return int(self.network.partition(EPOCH)[2] or 0)

    @property
    def mask(self) -> str | None:
        """The ticket's file; None for dense networks."""
        return f"{self.folder}/tickets/{self.ticket}.mask.safetensors" if "-" in self.network else None

    @property
    def method(self) -> str:
        """Column `method`."""
        kind = self.network.partition("-")[0]
        return kind if kind in ("dense", "freelb") else f"{kind}_ticket"

    @property
    def search_epoch(self) -> int:
        """Column `search_epoch`; 0 where no search is behind the network."""
        return int(self.network.split("-")[1]) if self.network.startswith("robust-") else 0


class GridTask(Part):
    """One task as the grid sees it."""

    name: str = key("name of the task")
    search_epochs: list[int] = key("epochs that tickets are drawn from")


class Grid(Part):
    """Everything that decides which attacks there are."""

    model: str = key("name of the model")
    tasks: list[GridTask] = key("tasks")
    removed_fractions: list[float] = key("sparsities")
    methods: list[str] = key("kinds of networks")
    attackers: list[str] = key("names of the attackers")
    seeds: list[int] = key("seeds of the runs")
    kept_epochs: list[int] = key("epochs of retraining after which tickets are attacked as well", factory=list)

    def networks(self, task: GridTask) -> list[str]:
        """Networks of one task, dense first; a ticket's earlier epochs before its last."""
        found: list[str] = [m for m in ("dense", "freelb") if m in self.methods]
        for fraction in self.removed_fractions:
            if "robust_ticket" in self.methods:
                found += [f"robust-{epoch}-{percent(fraction)}" for epoch in task.search_epochs]
            found += [f"{k}-{percent(fraction)}" for k in KINDS if f"{k}_ticket" in self.methods]
        earlier = {n: [f"{n}{EPOCH}{e}" for e in self.kept_epochs] if "-" in n else [] for n in found}
        return [network for n in found for network in (*earlier[n], n)]

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
        kept_epochs=kept_epochs(section),
    )


def kept_epochs(section: RobustBert) -> list[int]:
    """Epochs of retraining, but for the last, after which tickets are attacked."""
    every, epochs = section.attack_every, section.tasks[0].retrain.epochs
    return [] if every is None else list(range(every, epochs, every))


def _training_data(data: TextData) -> TextData:
    # neither the size of the test split nor what attacks leave alone touches training
    return data.having(test_examples=None, fixed_text=None)


def _uncompiled(section: RobustBert) -> Compute:
    return section.compute.having(compile=False)  # `compile` is for fine-tuning alone


def import_model(section: RobustBert, task: str) -> ImportTextModel:
    """The pre-trained model: one for all seeds, as a released encoder is."""
    data = _training_data(named(section.tasks, task).data)
    return ImportTextModel(model=section.model, data=data, compute=_uncompiled(section), seed=0)


def finetune(section: RobustBert, task: str, network: str, seed: str) -> FinetuneText:
    """Fine-tuning (networks dense and freelb), or the retraining of a ticket."""
    t: Task = named(section.tasks, task)
    return FinetuneText(
        data=_training_data(t.data),
        train={"dense": t.finetune, "freelb": t.freelb}.get(network, t.retrain),
        adversary=(t.freelb_adversary or t.adversary) if network == "freelb" else None,
        keep_epochs=kept_epochs(section) if "-" in network else [],
        compute=section.compute,
        seed=int(seed),
    )


def search(section: RobustBert, task: str, seed: str) -> SearchRobustTicket:
    """The search of a task."""
    t: Task = named(section.tasks, task)
    return SearchRobustTicket(
        data=_training_data(t.data), train=t.search, masks=t.masks, adversary=t.adversary, keep_epochs=t.search_epochs,
        frozen=t.search_frozen,
        compute=_uncompiled(section), seed=int(seed),
    )  # fmt: skip


def draw(section: RobustBert, removed_percent: str) -> DrawTicket:
    """A ticket from a search's scores."""
    return DrawTicket(removed_fraction=float(removed_percent) / 100)


def prune(section: RobustBert, task: str, kind: str, removed_percent: str, seed: str) -> Prune:
    """A ticket from weights."""
    method = "magnitude" if kind == "imp" else kind
    text = _training_data(named(section.tasks, task).data)
    keys = settings(method, int(seed), None, text=text, compute=_uncompiled(section))
    return Prune(method=method, label=kind, remaining_percent=100.0 - float(removed_percent), **keys)


def attack(section: RobustBert, task: str, attacker: str, seed: str) -> AttackText:
    """An attack on one network."""
    t: Task = named(section.tasks, task)
    return AttackText(
        data=t.data.having(train_examples=None), attack=attack_of(section, attacker), examples=t.attacked_examples,
        selection=t.attacked_selection, compute=_uncompiled(section), seed=int(seed),
    )  # fmt: skip


def attack_of(section: RobustBert, name: str) -> TextAttack:
    """The settings of the attacker of that name."""
    return named(section.attackers, name).attack


class Table(Part):
    """What the stage robust_bert_table gets."""

    grid: Grid = key("every run of the table")


def table(section: RobustBert) -> Table:
    """The grid."""
    return Table(grid=grid_of(section))


class Plot(Part):
    """What the stage robust_bert_plots gets."""

    task: str = key("task to draw")


def plot(section: RobustBert, task: str) -> Plot:
    """One figure."""
    return Plot(task=task)


def fetch(section: RobustBert) -> FetchAttackAssets:
    """The attackers with an asset in the folder that fetch_attack_assets fills."""
    fetched = {role for role, path in plain(section.assets).items() if path and path.startswith(f"{FETCHED}/")}
    return FetchAttackAssets(
        attacks=[a.attack for a in section.attackers if fetched & set(needed_roles(a.attack))], folder=FETCHED
    )


def targets(section: RobustBert) -> list[str]:
    """The table and figures of a section."""
    return ["results/tables/robust_bert.csv", *(f"results/figures/robust_bert/{t.name}.svg" for t in section.tasks)]


def table_inputs(section: RobustBert) -> list[str]:
    """Attack figures and tickets behind the table."""
    runs = list(grid_of(section).runs())
    return sorted({r.figures for r in runs}) + sorted({r.mask for r in runs if r.mask})
