"""What the stages of several pipelines get; a stage parses the class that the grid made."""

from __future__ import annotations

from typing import Literal

from winnow.config.parts import Attack, Compute, Data, Model, Train
from winnow.config.vision import WeightsSource
from winnow.schema import Part, key


class TrainWeights(Part):
    """Training from given weights, dense or under a ticket (stage train)."""

    data: Data = key("the task")
    train: Train = key("optimisation; the optimiser starts anew")
    attack: Attack | None = key("adversarial training; null: clean images", None)
    compute: Compute = key("numerical settings")
    seed: int = key("order, augmentation, attack starts", ge=0)
    keep: Literal["last", "best"] = key("weights of the last epoch, or of the best held-out accuracy")
    measure: bool = key("set batch statistics under the mask first, and take test accuracy before and after", False)
    rewind_iteration: int = key("optimisation steps after which --rewind is taken; 0: the initial weights", 0, ge=0)


class ImportWeights(Part):
    """Weights from outside (stage import_weights)."""

    weights: WeightsSource = key("where they come from")
    model: Model = key("architecture")
    num_classes: int = key("classes of the head in the file", ge=1)


class ExportTicket(Part):
    """A ticket in a released layout (stage export_ticket)."""

    layout: Literal["double_win", "gem_miner", "imp_mask", "imp_model", "robust_bert"] = key(
        "double_win: .pth.tar with weight_mask and weight_orig; gem_miner: weight, flag and scores; imp_mask, imp_model: the "
        "round_<k>_mask.npy and round_<k>_model.pth of the rare-gems IMP program; robust_bert: pytorch_model.bin with scores of "
        "20 and -20", "double_win",
    )  # fmt: skip


class ImportTicket(Part):
    """A ticket from a file of another layout (stage import_ticket)."""

    remaining_percent: float | None = key(
        "for files with scores: keep this percentage, as the program that wrote them would", None, gt=0, le=100
    )
    rule: Literal["auto", "flags", "flags_and_scores", "ep", "global_ep", "weights"] = key(
        "masks of a Gem-Miner checkpoint: flags (what was not hard-pruned), flags_and_scores (of that, what rounds to 1), ep or "
        "global_ep (the remaining_percent largest scores), weights (what is not zero: IMP rounds); auto: flags_and_scores, or "
        "weights where all flags are 1 and weights are zero", "auto",
    )  # fmt: skip
    head: Literal["auto", "keep", "drop"] = key(
        "masks of the classification head, which a transfer replaces; auto: kept in the rare-gems layouts, which prune it, else "
        "dropped", "auto",
    )  # fmt: skip
