"""Schema of the `double_win` section of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from winnow.config import architectures
from winnow.config.parts import (
    Attack,
    Compute,
    Count,
    Data,
    FilePath,
    Fraction,
    Model,
    Ordinal,
    Train,
    check_names,
    check_seeds,
)
from winnow.config.pruning import FOR_IMAGES, ImpSchedule
from winnow.config.vision import Normalisation, TaskEvaluation, WeightsSource
from winnow.pipelines.beyond import MeasuredSpeed, Relations, side
from winnow.schema import Part, key

BUILT_IN = ("dense", "imp", "omp", "random")
METHODS = (*BUILT_IN, *(m for m in FOR_IMAGES if m not in (*BUILT_IN, "magnitude")))
NAME = "letters, digits, _ and . only: it becomes part of file names"
Regime = Literal["std", "adv"]


class Source(Part):
    """The pre-training task, on which tickets are located."""

    name: str = key(f"column `source` of the table; {NAME}")
    data: Data = key("the task")
    model: Model = key("the architecture of every stage")

    def check(self) -> None:
        """Images alone can be attacked."""
        if self.model.arch in architectures.LANGUAGE:
            raise ValueError(f"model.arch: {self.model.arch} reads words; language models are for rare_gems")


class _Start(Part):
    name: str = key(f"column `pretraining`; {NAME}")
    imp_regimes: list[Regime] = key("IMP chains to run from these weights; empty: none", factory=list)
    methods: list[str] | None = key("kinds of tickets transferred from these weights; null: transfer.methods", None)


class StandardPretraining(_Start):
    """Dense weights trained here on clean images."""

    method: Literal["std"] = key("how the dense weights come about")
    train: Train = key("optimisation")


class FastAdversarialPretraining(_Start):
    """Dense weights trained here with one FGSM step from a random start (Wong et al., ICLR 2020)."""

    method: Literal["fast_adv"] = key("how the dense weights come about")
    train: Train = key("optimisation")
    attack: Attack = key("the adversary; one step")

    def check(self) -> None:
        """One step."""
        if self.attack.steps != 1:
            raise ValueError(f"attack.steps: {self.attack.steps}, but fast_adv takes one step; use method adv for more")


class AdversarialPretraining(_Start):
    """Dense weights trained here against PGD (Madry et al., ICLR 2018)."""

    method: Literal["adv"] = key("how the dense weights come about")
    train: Train = key("optimisation")
    attack: Attack = key("the adversary")


class ImportedPretraining(_Start):
    """Dense weights brought in."""

    method: Literal["import"] = key("how the dense weights come about")
    weights: WeightsSource = key("where the weights come from")
    num_classes: int = key("classes of the head in the file", ge=1)


Pretraining = Annotated[
    StandardPretraining | FastAdversarialPretraining | AdversarialPretraining | ImportedPretraining,
    Field(discriminator="method"),
]


class Imp(ImpSchedule):
    """Iterative magnitude pruning on the source task."""

    rewind: Literal["dense", "renda"] = key(
        "what a round trains from. dense: the pre-trained weights; renda: what the last round trained", "dense"
    )
    ranked: Literal["last", "best"] = key(
        "rank the weights of the last epoch, or of the best held-out accuracy", "last"
    )
    train: Train = key("optimisation of a round")
    attack: Attack | None = key("adversary of adversarial IMP (regime adv)", None)


class ExtraTicket(Part):
    """A ticket from outside the grid: a released checkpoint, or another pipeline's."""

    name: str = key(f"column `method`; {NAME}")
    pretraining: str = key("the pre-training whose weights it masks")
    file: FilePath = key(
        "path of the .pth.tar, .pth or .safetensors file; a path below results/ is built first. {seed} is replaced"
    )


class Tickets(Part):
    """Which tickets are transferred."""

    methods: list[str] = key(
        f"kinds of tickets: {', '.join(METHODS)}; dense is the reference of every match, omp is one-shot magnitude "
        f"pruning"
    )
    rounds: list[Ordinal] | None = key("IMP rounds to transfer; null: all", None)
    random: Literal["per_layer", "global"] = key(
        "random tickets: per layer as many as IMP's, or uniform over all", "per_layer"
    )
    tickets: list[ExtraTicket] = key("further tickets", factory=list)
    keep_models: Literal["all", "table"] = key(
        "table: the transferred networks are deleted once they are measured, and trained anew when another measurement "
        "is asked for; "
        "they are nearly all of a grid's disk", "all",
    )  # fmt: skip


class Downstream(Part):
    """One downstream task."""

    name: str = key(f"column `dataset`; {NAME}")
    data: Data = key("the task")
    fractions: list[Fraction] = key("stratified fractions of the training split", factory=lambda: [1.0])
    std: Train = key("standard transfer")
    adv: Train = key("adversarial transfer")
    attack: Attack = key("adversary of adversarial transfer")
    selection_attack: Attack | None = key(
        "attack of the validation RA that selects the best weights; null: `attack`", None
    )
    normalisation: Normalisation | None = key(
        "statistics of the input in transfer; null: those of the pre-trained model", None
    )
    imagenet_stem: bool = key(
        "false: images of 32 pixels or so pass as they are, through a new 3x3/1 convolution instead of the pre-trained "
        "7x7/2 one and pooling (the released native variant); tickets leave it dense",
        True,
    )
    evaluation: TaskEvaluation = key("what is measured on the test split")

    def check(self) -> None:
        """Both transfers train."""
        for mode in ("std", "adv"):
            if getattr(self, mode).epochs == 0:
                raise ValueError(f"{mode}.epochs: 0, but a transfer trains at least one epoch (its best epoch is kept)")
        if not self.fractions or len(set(self.fractions)) != len(self.fractions):
            raise ValueError(f"fractions: {self.fractions} must be at least one, and different")


class Published(Part):
    """A published figure to stand beside ours."""

    pretraining: str = key("name of the pre-training")
    dataset: str = key("name of the downstream task")
    removed_percent: float = key("removed percentage of the sparsest double-win ticket", ge=0, le=100)


class DoubleWin(Part):
    """Double-win tickets (ICML 2022): pre-train, prune, transfer, compare with the dense model."""

    seeds: list[Count] = key("one run of the whole chain each; table rows are means over them")
    source_seed: int | None = key(
        "one seed for pre-training and pruning, shared by all; null: every seed its own", None, ge=0
    )
    compute: Compute = key("numerical settings of every stage", factory=Compute)
    source: Source = key("the pre-training task")
    pretrainings: list[Pretraining] = key("the dense starting points")
    imp: Imp = key("iterative magnitude pruning")
    transfer: Tickets = key("which tickets are transferred")
    downstreams: list[Downstream] = key("the downstream tasks")
    tolerance: float | None = key(
        "a ticket matches when its mean is at most this many percentage points below the dense mean; "
        "null: one standard deviation of the dense runs (needs two seeds)", None, ge=0,
    )  # fmt: skip
    published: list[Published] = key("published figures for the table", factory=list)
    speed: MeasuredSpeed | None = key("measure how fast tickets run here; null: no", None)
    relations: Relations | None = key("compare tickets and the networks trained under them; null: no", None)

    def check(self) -> None:
        """Names, methods, rounds and regimes fit together."""
        for kind, items in (("pretrainings", self.pretrainings), ("downstreams", self.downstreams)):
            if not items:
                raise ValueError(f"{kind} is empty: nothing to run")
            check_names(kind, [i.name for i in items])
        check_names("source", [self.source.name])
        check_names("transfer.tickets", [t.name for t in self.transfer.tickets])
        check_seeds(self.seeds)
        if self.speed is not None and side(self.source.data) is None:
            raise ValueError("speed: set source.data.image_size, the side of the images to measure with")
        for ticket in self.transfer.tickets:
            if ticket.pretraining not in [p.name for p in self.pretrainings]:
                raise ValueError(
                    f"transfer.tickets: {ticket.name} names the unknown pretraining {ticket.pretraining!r}"
                )
            if ticket.name in METHODS:
                raise ValueError(f"transfer.tickets: the name {ticket.name!r} is taken by a built-in method")
        for where, methods in [("transfer", self.transfer.methods), *((p.name, p.methods) for p in self.pretrainings)]:
            check_methods(f"{where}.methods", methods)
        for task in self.downstreams:
            self._check_autoattack(task)
            arch = self.source.model.arch
            if not task.imagenet_stem and (architectures.is_winnows(arch) or not self.source.model.imagenet_stem):
                raise ValueError(
                    f"{task.name}.imagenet_stem: {arch} has no such stem here to replace; leave the key out"
                )
        rounds = len(self.imp.schedule())
        late = [r for r in self.transfer.rounds or [] if r > rounds]
        if late:
            raise ValueError(f"transfer.rounds: round {late[0]} is not run (imp.rounds is {rounds})")
        if self.imp.attack is None and any("adv" in p.imp_regimes for p in self.pretrainings):
            raise ValueError("imp.attack: needed, since a pretraining has the IMP regime adv")

    def _check_autoattack(self, task: Downstream) -> None:
        kinds = [*METHODS, *(t.name for t in self.transfer.tickets)]
        auto = task.evaluation.autoattack
        for ticket in (auto.tickets if auto else None) or []:
            kind, _, number = ticket.partition("-")
            if kind not in kinds or (number and not number.isdigit()):
                from winnow.errors import nearest

                raise ValueError(
                    f"{task.name}.evaluation.autoattack.tickets: {ticket!r} is no ticket here{nearest(kind, kinds)}"
                )


def check_methods(where: str, methods: list[str] | None) -> None:
    """ValueError for an unknown kind of ticket, or where dense is missing."""
    for method in methods or []:
        if method not in METHODS:
            from winnow.errors import nearest

            raise ValueError(f"{where}: {method!r} is not a valid choice{nearest(method, METHODS)}")
    if methods is not None and "dense" not in methods:
        raise ValueError(f"{where}: dense is missing; it is what every ticket is compared with")
