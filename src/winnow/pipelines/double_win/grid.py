"""The double-win grid: paths, tickets, transfers and the configuration of every job.

    results/double_win/<source>/<pretraining>/s<seed>/dense.safetensors
                                                     /tickets/<ticket>.mask.safetensors
                                                     /trained/imp-<regime>-<round>.safetensors
                                                     /transfer/<dataset>/<percent>/<ticket>/<mode>/s<run seed>/

A ticket is spelled `dense`, `imp-<regime>-<round>`, `random-<regime>-<round>`, `extra-<name>` or `<method>-<round>`: a
one-shot method (omp: magnitude) that leaves as many weights as IMP does after that round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from winnow.config.jobs import ExportTicket, ImportTicket, ImportWeights, TrainWeights
from winnow.config.pruning import FOR_IMAGES, LIGHT, Prune, settings
from winnow.config.vision import AutoAttack, Evaluation
from winnow.pipelines import named, percent
from winnow.pipelines.double_win.config import BUILT_IN, DoubleWin, Downstream, Published
from winnow.pipelines.double_win.jobs import AutoAttacked, Evaluate, Pretrain, Transfer
from winnow.schema import Part, key

ROOT = "results/double_win"
CHAIN = f"{ROOT}/{{source}}/{{pretraining}}/s{{seed}}"
TRANSFER = f"{CHAIN}/transfer/{{dataset}}/{{percent}}/{{ticket}}"
TITLE, FIGURE, FIGURE_WILDCARDS = "Double-win tickets", "{dataset}-{percent}", ("dataset", "percent")
LIGHT_TICKETS = rf"(imp|random)-(std|adv)-\d+|({'|'.join(('omp', *LIGHT))})-\d+"
SCORED_TICKETS = rf"({'|'.join(m for m in FOR_IMAGES if m not in LIGHT)})-\d+"
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
        return int(last) if self.ticket != "dense" and not self.ticket.startswith("extra-") else 0


class Branch(Part):
    """One pre-training as the grid sees it."""

    name: str = key("name of the pre-training")
    imp_regimes: list[str] = key("its IMP chains")
    methods: list[str] = key("kinds of its tickets")
    extra: list[str] = key("names of its further tickets")


class Task(Part):
    """One downstream task as the grid sees it."""

    name: str = key("name of the task")
    fractions: list[float] = key("fractions of the training split")
    autoattack: bool = key("whether AutoAttack runs", False)
    autoattacked: list[str] | None = key("tickets that it attacks; null: all", None)


class Grid(Part):
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
            found += [f"{m}-{r}" for m in branch.methods if m == "omp" or m not in BUILT_IN]
            for method in ("imp", "random"):
                if method in branch.methods:
                    found += [f"{method}-{regime}-{r}" for regime in branch.imp_regimes]
        return found + [f"extra-{name}" for name in branch.extra]

    def autoattacked(self, run: Run) -> bool:
        """Whether AutoAttack runs on the transferred network."""
        task = named(self.tasks, run.dataset)
        chosen = task.autoattacked
        return (
            run.mode == "adv"
            and task.autoattack
            and (chosen is None or bool({run.method, f"{run.method}-{run.round}"} & {*chosen}))
        )

    def results(self, runs: Iterable[Run]) -> list[str]:
        """The measurements of these runs."""
        attacked = [f"{run.folder}/autoattack.json" for run in runs if self.autoattacked(run)]
        return [f"{run.folder}/evaluation.json" for run in runs] + attacked

    def runs(self) -> Iterator[Run]:
        """Every transfer that the table needs."""
        for branch, task in product(self.branches, self.tasks):
            for fraction, ticket, mode, seed in product(task.fractions, self.tickets(branch), MODES, self.seeds):
                own = seed if self.source_seed is None else self.source_seed
                yield Run(self.source, branch.name, own, task.name, percent(fraction), ticket, mode, seed)


def grid_of(section: DoubleWin) -> Grid:
    """The grid that a configuration spans."""
    extra, rounds = section.transfer.tickets, section.transfer.rounds
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
        tasks=[_task(d) for d in section.downstreams],
        rounds=list(range(1, len(section.imp.schedule()) + 1)) if rounds is None else rounds,
        seeds=section.seeds,
        source_seed=section.source_seed,
    )


def _task(task: Downstream) -> Task:
    auto = task.evaluation.autoattack
    return Task(
        name=task.name,
        fractions=task.fractions,
        autoattack=auto is not None,
        autoattacked=auto.tickets if auto else None,
    )


def dense(section: DoubleWin, name: str, seed: str) -> Pretrain | ImportWeights:
    """What makes the dense weights of a pre-training."""
    p, source = named(section.pretrainings, name), section.source
    if p.method == "import":
        return ImportWeights(weights=p.weights, model=source.model, num_classes=p.num_classes)
    return Pretrain(
        method=p.method, data=source.data, model=source.model, train=p.train, attack=getattr(p, "attack", None),
        compute=section.compute, seed=int(seed),
    )  # fmt: skip


def imp_train(section: DoubleWin, regime: str, seed: str) -> TrainWeights:
    """The training of an IMP round; the round is not in it, for the mask tells."""
    imp = section.imp
    return TrainWeights(
        data=section.source.data, train=imp.train, attack=imp.attack if regime == "adv" else None,
        compute=section.compute,
        seed=int(seed), keep=imp.ranked,
    )  # fmt: skip


def prune(section: DoubleWin, seed: str, ticket: str) -> Prune:
    """What prunes a ticket."""
    kind, _, rest = ticket.partition("-")
    if kind == "random" and section.transfer.random == "per_layer":
        return Prune(method="random", label="random", seed=int(seed))
    number = int(rest.rpartition("-")[2])
    left = section.imp.remaining(number)
    method = {"imp": "magnitude", "omp": "magnitude"}.get(kind, kind)
    keys = settings(method, int(seed), None, data=section.source.data, compute=section.compute.having(compile=False))
    return Prune(method=method, label=kind, remaining_percent=left, round=number, **keys)


def export(section: DoubleWin) -> ExportTicket:
    """The released format."""
    return ExportTicket()


def imported_ticket(section: DoubleWin, name: str) -> ImportTicket:
    """A ticket from outside the grid."""
    return ImportTicket()


def transfer(section: DoubleWin, dataset: str, fraction_percent: str, mode: str, seed: str) -> Transfer:
    """A standard or adversarial transfer."""
    task: Downstream = named(section.downstreams, dataset)
    fraction = next(f for f in task.fractions if percent(f) == fraction_percent)
    train, attack = (task.std, None) if mode == "std" else (task.adv, task.attack)
    return Transfer(
        data=task.data, fraction=fraction, train=train, attack=attack, normalisation=task.normalisation,
        imagenet_stem=task.imagenet_stem, compute=section.compute,
        selection_attack=task.selection_attack if attack else None, seed=int(seed),
    )  # fmt: skip


def evaluate(section: DoubleWin, dataset: str, seed: str) -> Evaluate:
    """The measurements of a transferred model."""
    task: Downstream = named(section.downstreams, dataset)
    wanted = Evaluation(**{name: getattr(task.evaluation, name) for name in Evaluation.model_fields})
    uncompiled = section.compute.having(compile=False)
    return Evaluate(data=task.data, evaluation=wanted, compute=uncompiled, seed=int(seed))


def autoattack(section: DoubleWin, dataset: str, seed: str) -> AutoAttacked:
    """AutoAttack on a transferred model; which tickets it attacks is not in it."""
    task: Downstream = named(section.downstreams, dataset)
    assert task.evaluation.autoattack is not None
    wanted = AutoAttack(**{name: getattr(task.evaluation.autoattack, name) for name in AutoAttack.model_fields})
    size = task.evaluation.batch_size
    uncompiled = section.compute.having(compile=False)
    return AutoAttacked(data=task.data, autoattack=wanted, batch_size=size, compute=uncompiled, seed=int(seed))


class Table(Part):
    """What the stage double_win_table gets."""

    grid: Grid = key("every run of the table")
    tolerance: float | None = key(
        "allowed distance below the dense mean in percentage points; null: one std", None, ge=0
    )
    published: list[Published] = key("published figures to stand beside ours", factory=list)


def table(section: DoubleWin) -> Table:
    """The grid, and how its rows are compared."""
    return Table(grid=grid_of(section), tolerance=section.tolerance, published=section.published)


class Plot(Part):
    """What the stage double_win_plots gets."""

    dataset: str = key("downstream task to draw")
    fraction: float = key("fraction of its training data", gt=0, le=1)


def plot(section: DoubleWin, dataset: str, fraction_percent: str) -> Plot:
    """One figure."""
    fractions = named(section.downstreams, dataset).fractions
    return Plot(dataset=dataset, fraction=next(f for f in fractions if percent(f) == fraction_percent))


def targets(section: DoubleWin) -> list[str]:
    """The table and figures of a section."""
    shown = [f"{d.name}-{percent(f)}" for d in section.downstreams for f in d.fractions]
    return ["results/tables/double_win.csv", *(f"results/figures/double_win/{s}.svg" for s in shown)]


def table_inputs(section: DoubleWin) -> list[str]:
    """Every evaluation and ticket that the table reads."""
    grid = grid_of(section)
    runs = list(grid.runs())
    return grid.results(runs) + sorted({run.mask for run in runs if run.mask})
