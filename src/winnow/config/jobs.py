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
    """A ticket in a released format (stage export_ticket); nothing to configure."""


class ImportTicket(Part):
    """A ticket from a file of another format (stage import_ticket); nothing to configure."""
