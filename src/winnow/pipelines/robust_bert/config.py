"""Schema of the `robust_bert` section of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from winnow.config.parts import Compute, Count, FilePath, Ordinal, Train, check_names, check_seeds
from winnow.config.pruning import FOR_TEXTS
from winnow.config.text import FreeLB, HardConcrete, TextAttack, TextData, TextModel
from winnow.errors import nearest
from winnow.schema import Part, key

NAME = "letters, digits, _ and . only: it becomes part of file names"
KINDS = ("robust", "imp", *FOR_TEXTS)  # of tickets: column `method` says <kind>_ticket
METHODS = ("dense", "freelb", *(f"{kind}_ticket" for kind in KINDS))


class Task(Part):
    """One classification task with its training settings."""

    name: str = key(f"column `task` of the table; {NAME}")
    data: TextData = key("the task")
    finetune: Train = key("fine-tuning of the dense model, which the search and magnitude tickets start from")
    freelb: Train = key("fine-tuning of the FreeLB baseline")
    search: Train = key("optimisation of the scores")
    retrain: Train = key("retraining of a ticket on the pre-trained weights")
    search_epochs: list[Ordinal] = key("epochs of the search, from 1, whose scores are drawn from")
    search_frozen: bool = key(
        "search on frozen weights; false: their gradients add up from step to step and count in the norm that is "
        "clipped, as in the "
        "released code (the weights never move either way)", True,
    )  # fmt: skip
    masks: HardConcrete = key("mask distribution and L0 schedule", factory=HardConcrete)
    adversary: FreeLB = key("adversary of the search", factory=FreeLB)
    freelb_adversary: FreeLB | None = key("adversary of the FreeLB baseline; null: that of the search", None)
    attacked_examples: int | None = key("test examples under attack; null: all", None, ge=1)
    attacked_selection: Literal["stratified", "first"] = key(
        "which test examples: a random draw with the classes' shares kept, or the first so many", "stratified"
    )

    def check(self) -> None:
        """Keys that go together."""
        for name in ("finetune", "freelb", "search", "retrain"):
            if getattr(self, name).epochs == 0:
                raise ValueError(f"{name}.epochs: 0, but it trains at least one epoch")
        if len(set(self.search_epochs)) != len(self.search_epochs):
            raise ValueError(f"search_epochs: {self.search_epochs} names an epoch twice")
        if not self.search_epochs or max(self.search_epochs) > self.search.epochs:
            raise ValueError(f"search_epochs: {self.search_epochs} must lie within 1..{self.search.epochs}")


class Attacker(Part):
    """One attacker of the table."""

    name: str = key(f"column `attacker`; {NAME}")
    attack: TextAttack = key("recipe and settings")


class Assets(Part):
    """Files and folders that attackers need; each is given only to the attackers that ask for it."""

    neighbours: FilePath | None = key("neighbour list, JSON of word -> words, also .gz", None)
    counter_fitted: FilePath | None = key("folder of the counter-fitted embedding", None)
    masked_lm: FilePath | None = key("folder of a masked language model", None)
    encoder: FilePath | None = key("folder of a Hugging Face sentence encoder", None)
    use: FilePath | None = key("TF-Hub cache with the Universal Sentence Encoder", None)
    nltk: FilePath | None = key("NLTK data folder", None)


class RobustBert(Part):
    """Robust tickets for pre-trained language models (ACL 2022.acl-long.157)."""

    seeds: list[Count] = key("one run of everything for each")
    compute: Compute = key("numerical settings", factory=Compute)
    attack_processes: int = key("processes of one attack job; changes no result", 1, ge=1)
    model_name: str = key(f"column `model` of the table; {NAME}")
    model: TextModel = key("the pre-trained model")
    tasks: list[Task] = key("tasks")
    removed_fractions: list[Annotated[float, Field(gt=0, lt=1)]] = key(
        "fractions of the masked weights that tickets remove"
    )
    imp_step_percent: float = key(
        "imp_ticket: percentage of all masked weights that a round removes", 10.0, gt=0, lt=100
    )
    attack_every: int | None = key(
        "attack tickets after every so many epochs of their retraining as well (a row each); null: at its end alone. "
        "The weights of these epochs lie in the retraining's checkpoint until it ends",
        None, ge=1,
    )  # fmt: skip
    methods: list[str] = key(f"rows of the table: {', '.join(METHODS)}")
    attackers: list[Attacker] = key("attackers")
    assets: Assets = key("files of the attackers", factory=Assets)

    def check(self) -> None:
        """Keys that go together."""
        check_names("model_name", [self.model_name])
        check_names("tasks", [t.name for t in self.tasks])
        check_names("attackers", [a.name for a in self.attackers])
        check_seeds(self.seeds)
        for kind in ("tasks", "methods", "attackers", "removed_fractions"):
            if not getattr(self, kind):
                raise ValueError(f"{kind} is empty: nothing to run")
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"methods: {method!r} is not a valid choice{nearest(method, METHODS)}")
        for task in self.tasks if self.model.source == "tiny" else []:
            sizes = (self.model.hidden, self.model.intermediate)
            if any(size % b for b in task.masks.block or [] for size in sizes):
                raise ValueError(
                    f"{task.name}.masks.block: {task.masks.block} must divide the model's hidden {sizes[0]} and "
                    f"intermediate {sizes[1]}"
                )
        if self.attack_every is not None and len({t.retrain.epochs for t in self.tasks}) > 1:
            raise ValueError("attack_every: retrain.epochs must be the same in every task")
        if any(t.search_epochs != self.tasks[0].search_epochs for t in self.tasks):
            raise ValueError("tasks: search_epochs must be the same list in every task")
