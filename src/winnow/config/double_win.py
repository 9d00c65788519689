"""Schema of the `double_win` section of the configuration."""

from __future__ import annotations

from typing import Literal

from winnow.config.parts import Attack, Compute, Data, Model, Train
from winnow.config.vision import Evaluation, WeightsSource
from winnow.schema import key, part

Method = Literal["dense", "imp", "omp", "random"]
NAME = "letters, digits, _ and . only: it becomes part of file names"


def check_names(kind: str, names: list[str]) -> None:
    """Names become folders: refuse what is empty, repeated or not plain."""
    for name in names:
        if not name or not all(c.isalnum() or c in "_." for c in name) or name.startswith("."):
            raise ValueError(f"{kind}: name {name!r} must be letters, digits, _ and .")
    if len(set(names)) != len(names):
        raise ValueError(f"{kind}: name {next(n for n in names if names.count(n) > 1)!r} appears twice")


@part
class Source:
    """The pre-training task, on which tickets are located."""

    name: str = key(f"column `source` of the table; {NAME}")
    data: Data = key("the task")
    model: Model = key("the architecture of every stage")


@part
class Pretraining:
    """One dense starting point, trained here or brought in."""

    name: str = key(f"column `pretraining`; {NAME}")
    method: Literal["std", "fast_adv", "adv", "import"] = key("how the dense weights come about")
    train: Train | None = key("optimisation; not for import", None)
    attack: Attack | None = key("adversary of fast_adv (one step) and adv", None)
    weights: WeightsSource | None = key("for import: where the weights come from", None)
    num_classes: int | None = key("for import: classes of the head in the file", None, ge=1)
    imp_regimes: list[Literal["std", "adv"]] = key("IMP chains to run from these weights; empty: none", factory=list)
    methods: list[Method] | None = key("kinds of tickets transferred from these weights; null: transfer.methods", None)

    def __post_init__(self) -> None:
        imported = self.method == "import"
        if imported and (self.weights is None or self.num_classes is None):
            raise ValueError(f"{self.name}: method import needs weights and num_classes")
        if not imported and self.train is None:
            raise ValueError(f"{self.name}: method {self.method} needs train")
        if (self.method in ("fast_adv", "adv")) != (self.attack is not None):
            raise ValueError(f"{self.name}: method {self.method} {'takes no' if self.attack else 'needs an'} attack")


@part
class Imp:
    """Iterative magnitude pruning on the source task."""

    rounds: int = key("rounds to run", ge=0)
    prune_percent: float = key("percentage of the remaining convolution weights removed each round", 20.0, gt=0, lt=100)
    train: Train = key("optimisation of a round")
    attack: Attack | None = key("adversary of adversarial IMP (regime adv)", None)


@part
class ExtraTicket:
    """A ticket from outside the grid: a released checkpoint, or another pipeline's."""

    name: str = key(f"column `method`; {NAME}")
    pretraining: str = key("the pre-training whose weights it masks")
    file: str = key("path of the .pth.tar, .pth or .safetensors file; a path below results/ is built first. {seed} is replaced")


@part
class Transfer:
    """Which tickets are transferred."""

    methods: list[Method] = key("kinds of tickets; dense is the reference of every match")
    rounds: list[int] | None = key("IMP rounds to transfer; null: all", None, ge=1)
    tickets: list[ExtraTicket] = key("further tickets", factory=list)


@part
class Downstream:
    """One downstream task."""

    name: str = key(f"column `dataset`; {NAME}")
    data: Data = key("the task")
    fractions: list[float] = key("stratified fractions of the training split", factory=lambda: [1.0], gt=0, le=1)
    std: Train = key("standard transfer")
    adv: Train = key("adversarial transfer")
    attack: Attack = key("adversary of adversarial transfer")
    evaluation: Evaluation = key("what is measured on the test split")


@part
class Published:
    """A published figure to stand beside ours."""

    pretraining: str = key("name of the pre-training")
    dataset: str = key("name of the downstream task")
    removed_percent: float = key("removed percentage of the sparsest double-win ticket", ge=0, le=100)


@part
class DoubleWin:
    """Double-win tickets (ICML 2022): pre-train, prune, transfer, compare with the dense model."""

    seeds: list[int] = key("one run of the whole chain each; table rows are means over them", ge=0)
    source_seed: int | None = key("one seed for pre-training and pruning, shared by all; null: every seed its own", None, ge=0)
    compute: Compute = key("numerical settings of every stage", factory=Compute)
    source: Source = key("the pre-training task")
    pretrainings: list[Pretraining] = key("the dense starting points")
    imp: Imp = key("iterative magnitude pruning")
    transfer: Transfer = key("which tickets are transferred")
    downstreams: list[Downstream] = key("the downstream tasks")
    tolerance: float | None = key(
        "a ticket matches when its mean is at most this many percentage points below the dense mean; "
        "null: one standard deviation of the dense runs (needs two seeds)", None, ge=0,
    )  # fmt: skip
    published: list[Published] = key("published figures for the table", factory=list)

    def __post_init__(self) -> None:
        for kind, items in (("pretrainings", self.pretrainings), ("downstreams", self.downstreams)):
            check_names(kind, [i.name for i in items])
        check_names("source", [self.source.name])
        check_names("transfer.tickets", [t.name for t in self.transfer.tickets])
        names = [p.name for p in self.pretrainings]
        for ticket in self.transfer.tickets:
            if ticket.pretraining not in names:
                raise ValueError(f"transfer.tickets: {ticket.name} names the unknown pretraining {ticket.pretraining!r}")
            if ticket.name in ("dense", "imp", "omp", "random"):
                raise ValueError(f"transfer.tickets: the name {ticket.name!r} is taken by a built-in method")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} must be at least one, and different")
        for where, methods in [("transfer", self.transfer.methods), *((p.name, p.methods) for p in self.pretrainings)]:
            if methods is not None and "dense" not in methods:
                raise ValueError(f"{where}.methods: dense is missing; it is what every ticket is compared with")
        late = [r for r in self.transfer.rounds or [] if r > self.imp.rounds]
        if late:
            raise ValueError(f"transfer.rounds: round {late[0]} is not run (imp.rounds is {self.imp.rounds})")
        if self.imp.attack is None and any("adv" in p.imp_regimes for p in self.pretrainings):
            raise ValueError("imp.attack: needed, since a pretraining has the IMP regime adv")
