"""What the stages of several pipelines get; a stage parses the class that the grid made."""

from __future__ import annotations

from typing import Literal

from winnow.config.parts import AnyData, Attack, Compute, Model, Ordinal, Positive, Train
from winnow.config.pruning import Moving
from winnow.config.vision import WeightsSource
from winnow.schema import Part, key


class TrainWeights(Part):
    """Training from given weights, dense or under a ticket (stage train)."""

    data: AnyData = key("the task")
    train: Train = key("optimisation; the optimiser starts anew")
    attack: Attack | None = key("adversarial training; null: clean images", None)
    compute: Compute = key("numerical settings")
    seed: int = key("order, augmentation, attack starts", ge=0)
    keep: Literal["last", "best"] = key("weights of the last epoch, or of the best held-out accuracy")
    measure: bool = key("set batch statistics under the mask first, and take test accuracy before and after", False)
    moving: Moving | None = key("move the ticket's masks in training; null: they stay", None)
    rewind_iteration: int = key("optimisation steps after which --rewind is taken; 0: the initial weights", 0, ge=0)


class ImportWeights(Part):
    """Weights from outside (stage import_weights)."""

    weights: WeightsSource = key("where they come from")
    model: Model = key("architecture")
    num_classes: int = key("classes of the head in the file", ge=1)


class ExportTicket(Part):
    """A ticket in a released layout (stage export_ticket)."""

    layout: Literal["double_win", "gem_miner", "imp_mask", "imp_model", "robust_bert"] = key(
        "double_win: .pth.tar with weight_mask and weight_orig; gem_miner: weight, flag and scores; imp_mask, "
        "imp_model: the round_<k>_mask.npy and round_<k>_model.pth of the rare-gems IMP program; robust_bert: "
        "pytorch_model.bin with scores of "
        "20 and -20", "double_win",
    )  # fmt: skip


class ImportTicket(Part):
    """A ticket from a file of another layout (stage import_ticket)."""

    remaining_percent: float | None = key(
        "for files with scores: keep this percentage, as the program that wrote them would", None, gt=0, le=100
    )
    rule: Literal["auto", "flags", "flags_and_scores", "ep", "global_ep", "weights"] = key(
        "masks of a Gem-Miner checkpoint: flags (what was not hard-pruned), flags_and_scores (of that, what rounds to "
        "1), ep or global_ep (the remaining_percent largest scores), weights (what is not zero: IMP rounds); auto: "
        "flags_and_scores, or "
        "weights where all flags are 1 and weights are zero", "auto",
    )  # fmt: skip
    head: Literal["auto", "keep", "drop"] = key(
        "masks of the classification head, which a transfer replaces; auto: kept in the rare-gems layouts, which prune "
        "it, else "
        "dropped", "auto",
    )  # fmt: skip


class SpeedOptions(Part):
    """How the speed of a ticket's network is measured."""

    batches: list[Ordinal] = key("examples that are computed together", factory=lambda: [1, 8, 64])
    threads: list[Ordinal] = key("CPU threads", factory=lambda: [1])
    repeats: int = key("rounds in which both sides are timed", 9, ge=2)
    keep_plans: bool = key("use and keep measured plans in the user's cache folder", True)

    def check(self) -> None:
        """Something to measure."""
        if not self.batches or not self.threads:
            raise ValueError("batches, threads: at least one each")


class Speed(SpeedOptions):
    """A ticket's network, dense against sparse, on this machine (stage speed)."""

    image_size: int | None = key("side of the images; null: a text model", None, ge=4)
    length: int | None = key("tokens of a text; null: an image model", None, ge=2)

    def check(self) -> None:
        """Images or texts."""
        super().check()
        if (self.image_size is None) == (self.length is None):
            raise ValueError(
                "image_size, length: give one of them (images of image_size pixels, or texts of length tokens)"
            )


class Draw(Part):
    """A figure of one job's metrics (stages speed_plots, compare_tickets_plots)."""

    title: str = key("heading of the figure", "")


class RelationOptions(Part):
    """How two tickets are compared."""

    batch_size: int = key("images at a time; of a corpus, columns", 256, ge=1)
    points: int = key("networks on the path, both ends included", 11, ge=3)
    interpolation: Literal["linear", "sampled"] = key(
        "linear: the weights' weighted mean; sampled: each weight is that of the second network with the probability "
        "of its "
        "position (prob in the rare-gems code)", "linear",
    )  # fmt: skip
    flipped_percent: list[Positive] = key(
        "sharpness: percentages of the mask's entries that are flipped at random (rare-gems code: up to 20); none: not "
        "measured",
        factory=lambda: [1.0, 5.0, 20.0],
    )  # fmt: skip
    draws: int = key("draws of a sampled path and of flipped masks", 5, ge=1)

    def check(self) -> None:
        """Percentages of a mask."""
        if any(p > 100 for p in self.flipped_percent):
            raise ValueError(
                f"flipped_percent: {max(self.flipped_percent):g} is more than all of the mask; at most 100"
            )


class CompareTickets(RelationOptions):
    """Two tickets of one network, and the networks trained under them (stage compare_tickets)."""

    data: AnyData = key("the task, for losses and accuracies of the networks between the two")
    compute: Compute = key("numerical settings")
    seed: int = key("images that batch statistics are taken from, their augmentation; draws", 0, ge=0)
