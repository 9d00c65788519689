"""Training classifiers, standard or adversarial, dense or under a ticket: one function for every vision stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.config.parts import Attack, Compute, Data, Train
from winnow.config.pruning import Moving
from winnow.errors import WinnowError
from winnow.language.corpus import Windows
from winnow.prune.methods import class_of
from winnow.run import Run
from winnow.ticket import Ticket
from winnow.train.compiling import compile_if_asked
from winnow.train.device import autocast, start
from winnow.train.loop import Fit, fit
from winnow.train.masking import enforce
from winnow.train.optim import make_optimizer
from winnow.train.sync_norm import synchronise
from winnow.vision import models, sources
from winnow.vision.attack import perturb
from winnow.vision.batches import Batch, Loader
from winnow.vision.evaluate import accuracy, loss_and_accuracy, robust_accuracy


def make_step(
    model: nn.Module, train: Train, compute: Compute, device: torch.device, attack: Attack | None
) -> Callable[[Batch], Tensor]:
    """Forward and backward of one batch: the cross-entropy of clean images, or of adversarial ones when `attack` is
    given.
    """

    def step(batch: Batch) -> Tensor:
        x, y = batch
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with autocast(compute, device):
            if attack is not None:
                x = perturb(model, x, y, attack)
            loss = F.cross_entropy(model(x), y, label_smoothing=train.label_smoothing)
        loss.backward()
        return loss.detach()

    return step


def place(model: nn.Module, compute: Compute, device: torch.device) -> nn.Module:
    """Move to the device in channels_last; compile when configured (in place, the state dict's names stay)."""
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compute.sync_batchnorm:
        synchronise(model)
    compile_if_asked(model, compute)
    return model


def training_loaders(
    splits: tuple[sources.Split, ...], data: Data, train: Train, seed: int, run: Run
) -> tuple[Loader, ...]:
    """Loaders of the training split, and of those that are evaluated: in pieces of at most `micro_batch` images, for
    memory.
    """
    sizes = [train.batch_size, *[min(train.batch_size, train.micro_batch or train.batch_size)] * (len(splits) - 1)]
    return tuple(Loader(s, data, n, run.device, seed, run.workers) for s, n in zip(splits, sizes, strict=True))


def held_out(model: nn.Module, loader: Loader | Windows, compute: Compute) -> dict[str, Any]:
    """val_sa, the accuracy (percent); over words val_perplexity as well."""
    if not isinstance(loader, Windows):
        return {"val_sa": accuracy(model, loader, compute)}
    loss, right = loss_and_accuracy(model, loader, compute)
    return {"val_sa": right, "val_perplexity": perplexity(loss)}


def perplexity(loss: float) -> float:
    """exp of the mean cross-entropy (natural logarithm), at most e^100: a number that files and figures can hold."""
    return math.exp(min(loss, 100.0))


@dataclass
class Best:
    """Keeps the state with the best value of each watched metric: the highest, of a perplexity the lowest (the earliest
    on ties).
    """

    metrics: tuple[str, ...]
    values: dict[str, float] = field(default_factory=dict)
    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def offer(self, record: Mapping[str, Any], model: nn.Module) -> None:
        """Take the model's state for every metric that improved."""
        for name in self.metrics:
            sign = -1.0 if name.endswith("perplexity") else 1.0
            if name not in self.values or sign * record[name] > sign * self.values[name]:
                self.values[name] = float(record[name])
                self.states[name] = {k: v.detach().to("cpu", copy=True) for k, v in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"values": self.values, "states": self.states}

    def load_state_dict(self, state: Any) -> None:
        """From the checkpoint."""
        self.values, self.states = dict(state["values"]), dict(state["states"])


def train_classifier(
    model: nn.Module,
    train_loader: Loader | Windows,
    val_loader: Loader | Windows,
    *,
    train: Train,
    compute: Compute,
    seed: int,
    attack: Attack | None = None,
    ticket: Ticket | None = None,
    watch: tuple[str, ...] = (),
    selection_attack: Attack | None = None,
    moving: Moving | None = None,
    run: Run | None = None,
) -> tuple[list[dict[str, Any]], Best]:
    """Train `model` in place (on the loaders' device, by `place`), the ticket's mask enforced throughout; `moving`: it is
    where masks start that move.

    Every epoch records loss, val_sa and, under an `attack`, val_ra (percentages, held-out split; by `selection_attack`
    if there is one); over words val_sa and val_perplexity. Returns the history and the best states for the metrics in
    `watch`. Raises WinnowError when training diverges.
    """
    optimizer, best = make_optimizer(train, model.parameters()), Best(watch)
    masks = None
    if moving is None:
        enforce(model, ticket, every_forward=False)
    else:
        if ticket is None:
            raise WinnowError("moving: needs --mask, where the masks start")
        steps = train.epochs * train_loader.steps_per_epoch
        how = {"every": moving.every, "fraction": moving.fraction, "stop": moving.stop}
        masks = class_of(moving.method)(model, optimizer, ticket, steps=steps, **how)

    def after_epoch(epoch: int) -> dict[str, Any]:
        record = held_out(model, val_loader, compute)
        if attack is not None:
            assert not isinstance(val_loader, Windows)
            record["val_ra"] = robust_accuracy(model, val_loader, selection_attack or attack, compute, seed)
        best.offer(record, model)
        return record

    plan = Fit(
        model=model,
        optimizer=optimizer,
        train=train,
        batches=train_loader,
        step=make_step(model, train, compute, train_loader.device, attack),
        seed=seed,
        before_update=None if masks is None else masks.before_update,
        after_epoch=after_epoch,
        extras={"best": best} | ({} if masks is None else {"masks": masks}),
    )
    return fit(plan, run), best


def calibration(
    weights: Path, data: Data, images: int, seed: int, compute: Compute, run: Run
) -> tuple[nn.Module, list[Batch]]:
    """The model of a weights artifact on the run's device, and one batch: the first images of the shuffled training
    split.
    """
    start(compute, run.device, seed)
    sets = sources.load(data, run.data_root, run.download)
    model = place(models.load_pretrained(weights)[0], compute, run.device)
    return model, [next(iter(Loader(sets.train, data, images, run.device, seed, run.workers).epoch(0)))]
