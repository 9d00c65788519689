"""What the stages of the robust-ticket pipeline get."""

from __future__ import annotations

from typing import Literal

from winnow.config.parts import Compute, Ordinal, Train, check_uncompiled
from winnow.config.text import FreeLB, HardConcrete, TextAttack, TextData, TextModel
from winnow.schema import Part, key


class ImportTextModel(Part):
    """The pre-trained model (stage import_text_model)."""

    model: TextModel = key("the model")
    data: TextData = key("the task; decides the number of classes")
    compute: Compute = key("numerical settings of the pre-training", factory=Compute)
    seed: int = key("random weights of a tiny model, the new head, pre-training", 0, ge=0)

    def check(self) -> None:
        """Pre-training is not compiled."""
        if self.compute.compile:
            raise ValueError("compute.compile: pre-training runs uncompiled; set it to false")


class FinetuneText(Part):
    """Training on the task, dense or under a ticket (stage finetune_text)."""

    data: TextData = key("the task")
    train: Train = key("optimisation")
    adversary: FreeLB | None = key("adversarial training; null: plain", None)
    keep_epochs: list[Ordinal] = key("epochs, counted from 1, whose networks are kept besides the last's", factory=list)
    compute: Compute = key("numerical settings")
    seed: int = key("head, order, dropout, adversary", ge=0)

    def check(self) -> None:
        """Kept epochs are epochs."""
        kept = self.keep_epochs
        if kept and (max(kept) > self.train.epochs or len(set(kept)) < len(kept)):
            raise ValueError(f"keep_epochs: {kept} must be different epochs out of 1..{self.train.epochs}")


class SearchRobustTicket(Part):
    """The search of mask scores (stage search_robust_ticket)."""

    data: TextData = key("the task")
    train: Train = key("optimisation of the scores")
    masks: HardConcrete = key("mask distribution and L0 schedule", factory=HardConcrete)
    adversary: FreeLB = key("adversary", factory=FreeLB)
    keep_epochs: list[Ordinal] = key("epochs, counted from 1, whose scores are kept")
    frozen: bool = key(
        "false: gradients of the weights add up from step to step and count in the norm that is clipped", True
    )
    compute: Compute = key("numerical settings")
    seed: int = key("order, masks, dropout, adversary", ge=0)

    def check(self) -> None:
        """Kept epochs are epochs; masks that change every step are not compiled."""
        check_uncompiled(self.compute, "the search, whose masks change every step,")
        kept = self.keep_epochs
        if not kept or max(kept) > self.train.epochs or len(set(kept)) < len(kept):
            raise ValueError(f"keep_epochs {self.keep_epochs} must be different epochs out of 1..{self.train.epochs}")


class DrawTicket(Part):
    """A ticket from scores (stage draw_ticket)."""

    removed_fraction: float = key("fraction of the masked weights to remove", ge=0, lt=1)


class AttackText(Part):
    """An attack on a fine-tuned model (stage attack_text)."""

    data: TextData = key("the task; its test split is attacked")
    attack: TextAttack = key("the attacker")
    examples: int | None = key("attack only so many test examples; null: all", None, ge=1)
    selection: Literal["stratified", "first"] = key(
        "which: a random draw with the classes' shares kept, or the first", "stratified"
    )
    compute: Compute = key("numerical settings")
    seed: int = key("random character edits", 0, ge=0)

    def check(self) -> None:
        """Attacks are not compiled."""
        if self.compute.compile:
            raise ValueError("compute.compile: attacks run uncompiled, every call has another shape; set it to false")


class FetchAttackAssets(Part):
    """What attackers need, brought into a folder (stage fetch_attack_assets)."""

    attacks: list[TextAttack] = key("attackers whose needs to fetch")
    folder: str = key("where everything goes; one subfolder for each kind", "data/attack_assets")
    masked_lm: str = key("hub name of the masked language model", "google-bert/bert-base-uncased")
    encoder: str = key("hub name of the sentence encoder", "sentence-transformers/all-MiniLM-L6-v2")
