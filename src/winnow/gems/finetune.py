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

from winnow.config.parts import AnyData, Attack, Compute, Corpus, Train
from winnow.config.pruning import Moving
from winnow.errors import WinnowError
from winnow.language import corpus
from winnow.language.corpus import Windows
from winnow.run import Run
from winnow.ticket import Ticket
from winnow.train.compiling import eager
from winnow.train.device import explained, start
from winnow.train.loop import Fit, fit
from winnow.train.optim import make_optimizer
from winnow.vision import models, sources
from winnow.vision.batches import Loader
from winnow.vision.evaluate import accuracy, loss_and_accuracy, robust_accuracy
from winnow.vision.training import held_out, make_step, perplexity, place, train_classifier, training_loaders


@dataclass
class Task:
    """Data on the device and how to train on it."""

    data: AnyData
    train: Train
    compute: Compute
    seed: int
    attack: Attack | None = None
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        self.device = start(self.compute, self.run.device, self.seed)
        self.num_classes, self.chance, loaders = task_loaders(self.data, self.train, self.seed, self.run)
        self.train_loader: Any
        self.val: Any
        self.test: Any
        self.train_loader, self.val, self.test = loaders

    def model(self, weights: Path) -> tuple[nn.Module, dict[str, Any]]:
        """The model of a weights artifact and its spec; WinnowError when it was made for another number of classes."""
        model, spec = models.load_pretrained(weights)
        if spec["num_classes"] != self.num_classes:
            raise WinnowError(
                f"{weights}: has {spec['num_classes']} classes, the task {self.num_classes}; pass it through "
                f"gem_init first"
            )
        return place(model, self.compute, self.device), spec

    def held_out(self, model: nn.Module) -> dict[str, Any]:
        """Accuracy on the held-out split (val_sa, percent), and of words the perplexity."""
        return held_out(model, self.val, self.compute)

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Test accuracy (percent), under the attack when there is one, and of words the perplexity."""
        if isinstance(self.test, Windows):
            loss, right = loss_and_accuracy(model, self.test, self.compute)
            return {"acc": right, "perplexity": perplexity(loss)}
        found = {"acc": accuracy(model, self.test, self.compute)}
        if self.attack is not None:
            found["robust_acc"] = robust_accuracy(model, self.test, self.attack, self.compute, self.seed)
        return found


def task_loaders(
    data: AnyData, train: Train, seed: int, run: Run
) -> tuple[int, float, tuple[Loader, Loader, Loader] | tuple[Windows, Windows, Windows]]:
    """Number of classes (of words: the vocabulary), what guessing gets (percent), and loaders of the splits."""
    if isinstance(data, Corpus):
        words = corpus.load(data, run.data_root)
        parts = ((words.train, train.batch_size), *((w, corpus.MEASURED_COLUMNS) for w in (words.val, words.test)))
        made = tuple(Windows(w, columns, data.window, run.device) for w, columns in parts)
        return words.num_classes, words.chance, made  # type: ignore[return-value]
    sets = sources.load(data, run.data_root, run.download)
    loaders = training_loaders((sets.train, sets.val, sets.test), data, train, seed, run)
    return sets.num_classes, 100.0 / sets.num_classes, loaders  # type: ignore[return-value]


@torch.no_grad()
def recalibrate(model: nn.Module, loader: Loader | Windows) -> None:
    """Set the running statistics of batch normalisation to their mean over one pass of the training split; weights
    stay.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not layers:
        return
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
    model: nn.Module, ticket: Ticket | None, task: Task, *, keep: Literal["last", "best"] = "best", measure: bool = True,
    moving: Moving | None = None,
) -> dict[str, Any]:  # fmt: skip
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
    watch = "val_perplexity" if isinstance(task.val, Windows) else "val_ra" if task.attack else "val_sa"
    history, best = train_classifier(
        model, task.train_loader, task.val,
        train=task.train, compute=task.compute, seed=task.seed, attack=task.attack, ticket=ticket,
        watch=(watch,) if keep == "best" else (), moving=moving, run=task.run,
    )  # fmt: skip
    if measure:
        found |= {f"{k}_last": v for k, v in task.measure(model).items()}
    if best.states:
        model.load_state_dict(best.states[watch])
    if measure:
        found |= {f"{k}_after": v for k, v in task.measure(model).items()}
    about = {"val_best": best.values.get(watch), "num_classes": task.num_classes, "chance": task.chance}
    return {**found, **about, "epochs": history}


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
