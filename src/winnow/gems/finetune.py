"""What a ticket is worth: its accuracy with the weights it was found for, and after training them under its mask.

Normalisation statistics before training are those of the training images under the mask: no weight moves for them, and
the same is done for gems, random tickets and sanity checks. Selection is on the held-out split; both figures are of the
test split.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from winnow.config.parts import Attack, Compute, Data, Train
from winnow.errors import WinnowError
from winnow.run import Run
from winnow.ticket import Ticket
from winnow.train.compiling import eager
from winnow.train.device import explained, start
from winnow.train.loop import Fit, fit
from winnow.train.optim import make_optimizer
from winnow.vision import models, sources
from winnow.vision.batches import Loader
from winnow.vision.evaluate import accuracy, robust_accuracy
from winnow.vision.training import make_step, place, train_classifier, training_loaders


@dataclass
class Task:
    """Data on the device and how to train on it."""

    data: Data
    train: Train
    compute: Compute
    seed: int
    attack: Attack | None = None
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        self.device = start(self.compute, self.run.device, self.seed)
        self.sets = sources.load(self.data, self.run.data_root, self.run.download)
        self.train_loader, self.val, self.test = training_loaders(
            (self.sets.train, self.sets.val, self.sets.test), self.data, self.train, self.seed, self.run
        )

    def model(self, weights: Path) -> tuple[nn.Module, dict[str, Any]]:
        """The model of a weights artifact and its spec; WinnowError when it was made for another number of classes."""
        model, spec = models.load_pretrained(weights)
        if spec["num_classes"] != self.sets.num_classes:
            raise WinnowError(
                f"{weights}: has {spec['num_classes']} classes, the task {self.sets.num_classes}; pass it through "
                f"gem_init first"
            )
        return place(model, self.compute, self.device), spec

    def held_out(self, model: nn.Module) -> float:
        """Accuracy on the held-out split (percent)."""
        return accuracy(model, self.val, self.compute)

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Test accuracy (percent), and under the attack when there is one."""
        found = {"acc": accuracy(model, self.test, self.compute)}
        if self.attack is not None:
            found["robust_acc"] = robust_accuracy(model, self.test, self.attack, self.compute, self.seed)
        return found


@torch.no_grad()
def recalibrate(model: nn.Module, loader: Loader) -> None:
    """Set the running statistics of batch normalisation to their mean over one pass of the training split; weights
    stay.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [m.momentum for m in layers]
    for layer in layers:
        layer.reset_running_stats()
    model.train()
    with eager(model), explained("set train.batch_size lower"):
        for number, (x, _) in enumerate(loader.epoch(0), 1):
            for layer in layers:
                # the cumulative mean; None would have each layer ask the device for its count
                layer.momentum = 1.0 / number
            model(x)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def finetune(
    model: nn.Module, ticket: Ticket | None, task: Task, *, keep: Literal["last", "best"] = "best", measure: bool = True
) -> dict[str, Any]:
    """Train `model` under `ticket`; it ends with the weights of the last epoch, or of the best held-out accuracy.

    With `measure` batch statistics are first set under the mask, and the result holds acc_before, acc_after (test
    accuracy of the kept weights) and acc_last, and the same with `robust_` in front under an attack. The epochs are in
    it always. Raises WinnowError when the ticket does not fit or training diverges.
    """
    if ticket is not None:
        ticket.apply(model)
    found: dict[str, Any] = {}
    if measure:
        recalibrate(model, task.train_loader)
        found |= {f"{k}_before": v for k, v in task.measure(model).items()}
    watch = "val_ra" if task.attack else "val_sa"
    history, best = train_classifier(
        model, task.train_loader, task.val,
        train=task.train, compute=task.compute, seed=task.seed, attack=task.attack, ticket=ticket,
        watch=(watch,) if keep == "best" else (), run=task.run,
    )  # fmt: skip
    if measure:
        found |= {f"{k}_last": v for k, v in task.measure(model).items()}
    if best.states:
        model.load_state_dict(best.states[watch])
    if measure:
        found |= {f"{k}_after": v for k, v in task.measure(model).items()}
    return {**found, "val_best": best.values.get(watch), "num_classes": task.sets.num_classes, "epochs": history}


def early_weights(model: nn.Module, iteration: int, task: Task) -> dict[str, torch.Tensor]:
    """The state dict of `model` after the first `iteration` optimisation steps of its training: IMP's rewinding point.

    WinnowError when the training is shorter than that.
    """
    steps = task.train.epochs * task.train_loader.steps_per_epoch
    if iteration > steps:
        raise WinnowError(f"config.rewind_iteration: {iteration} is beyond the {steps} steps of the training; lower it")
    if iteration:
        recalibrate(model, task.train_loader)  # as the training itself does: attacks see the running statistics
    plan = Fit(
        model=model,
        optimizer=make_optimizer(task.train, model.parameters()),
        train=task.train,
        batches=task.train_loader,
        step=make_step(model, task.train, task.compute, task.device, task.attack),
        seed=task.seed,
        max_steps=iteration,
    )
    with task.run.part("rewind"):
        fit(plan, task.run)
    return model.state_dict()
