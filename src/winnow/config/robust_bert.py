"""Schema of the `robust_bert` section of the configuration."""

from __future__ import annotations

from typing import Literal

from winnow.config.double_win import NAME, check_names
from winnow.config.parts import Compute, Train
from winnow.config.text import FreeLB, HardConcrete, TextAttack, TextData, TextModel
from winnow.schema import key, part


@part
class Task:
    """One classification task with its training settings."""

    name: str = key(f"column `task` of the table; {NAME}")
    data: TextData = key("the task")
    finetune: Train = key("fine-tuning of the dense model, which the search and magnitude tickets start from")
    freelb: Train = key("fine-tuning of the FreeLB baseline")
    search: Train = key("optimisation of the scores")
    retrain: Train = key("retraining of a ticket on the pre-trained weights")
    search_epochs: list[int] = key("epochs of the search, from 1, whose scores are drawn from", ge=1)
    masks: HardConcrete = key("mask distribution and L0 schedule", factory=HardConcrete)
    adversary: FreeLB = key("adversary of the search", factory=FreeLB)
    freelb_adversary: FreeLB | None = key("adversary of the FreeLB baseline; null: that of the search", None)
    attacked_examples: int | None = key("test examples under attack; null: all", None, ge=1)
    attacked_selection: Literal["stratified", "first"] = key(
        "which test examples: a random draw with the classes' shares kept, or the first so many", "stratified"
    )

    def __post_init__(self) -> None:
        if not self.search_epochs or max(self.search_epochs) > self.search.epochs:
            raise ValueError(f"{self.name}: search_epochs {self.search_epochs} must lie within 1..{self.search.epochs}")


@part
class Attacker:
    """One attacker of the table."""

    name: str = key(f"column `attacker`; {NAME}")
    attack: TextAttack = key("recipe and settings")


@part
class Assets:
    """Files and folders that attackers need; each is given only to the attackers that ask for it."""

    neighbours: str | None = key("neighbour list, JSON of word -> words, also .gz", None)
    counter_fitted: str | None = key("folder of the counter-fitted embedding", None)
    masked_lm: str | None = key("folder of a masked language model", None)
    encoder: str | None = key("folder of a Hugging Face sentence encoder", None)
    use: str | None = key("TF-Hub cache with the Universal Sentence Encoder", None)
    nltk: str | None = key("NLTK data folder", None)


@part
class RobustBert:
    """Robust tickets for pre-trained language models (ACL 2022.acl-long.157)."""

    seeds: list[int] = key("one run of everything for each", ge=0)
    compute: Compute = key("numerical settings", factory=Compute)
    attack_processes: int = key("processes of one attack job; changes no result", 1, ge=1)
    model_name: str = key(f"column `model` of the table; {NAME}")
    model: TextModel = key("the pre-trained model")
    tasks: list[Task] = key("tasks")
    removed_fractions: list[float] = key("fractions of the masked weights that tickets remove", gt=0, lt=1)
    methods: list[Literal["robust_ticket", "dense", "freelb", "random_ticket", "magnitude_ticket"]] = key("rows of the table")
    attackers: list[Attacker] = key("attackers")
    assets: Assets = key("files of the attackers", factory=Assets)

    def __post_init__(self) -> None:
        check_names("model_name", [self.model_name])
        check_names("tasks", [t.name for t in self.tasks])
        check_names("attackers", [a.name for a in self.attackers])
        for kind, values in (
            ("seeds", self.seeds),
            ("tasks", self.tasks),
            ("methods", self.methods),
            ("attackers", self.attackers),
        ):
            if not values:
                raise ValueError(f"{kind} is empty: nothing to run")
        if any(t.search_epochs != self.tasks[0].search_epochs for t in self.tasks):
            raise ValueError("tasks: search_epochs must be the same list in every task")
