"""The score search as the training loop's parts: L0 gradient after clipping, scores of the epochs that are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from winnow.config.parts import Compute, Train
from winnow.config.text import FreeLB, HardConcrete
from winnow.run import Run
from winnow.text.batches import Encoded, TextBatches
from winnow.text.evaluate import accuracy
from winnow.text.freelb import AdversarialStep
from winnow.text.hard_concrete import add_l0_gradient, attach, l0_term, l0_weight
from winnow.train.device import autocast
from winnow.train.loop import Batches, Fit, fit
from winnow.train.optim import make_optimizer
from winnow.train.snapshots import Snapshots


class L0Schedule:
    """`before_update` for `fit`: adds the weighted L0 gradient (after clipping) and counts optimisation steps."""

    def __init__(self, scores: Mapping[str, nn.Parameter], config: HardConcrete, total_steps: int):
        self.scores, self.config, self.total_steps, self.step = scores, config, total_steps, 0

    def __call__(self) -> None:
        """One optimisation step's share."""
        self.step += 1
        weight = l0_weight(self.step, self.total_steps, self.config)
        if weight:
            add_l0_gradient(self.scores, weight, self.config)

    def state_dict(self) -> dict[str, Any]:
        """The step count."""
        return {"step": self.step}

    def load_state_dict(self, state: Any) -> None:
        """Take the step count back."""
        self.step = state["step"]


class Accumulated:
    """The gradients of parameters that are never stepped: they go on from step to step, so a checkpoint must hold
    them.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]):
        self.parameters = parameters

    def state_dict(self) -> dict[str, Any]:
        """The gradients that there are."""
        return {name: p.grad for name, p in self.parameters.items() if p.grad is not None}

    def load_state_dict(self, state: Any) -> None:
        """Take the gradients back."""
        for name, gradient in state.items():
            self.parameters[name].grad = gradient.to(self.parameters[name].device)


def search(
    model: nn.Module,
    names: list[str],
    data: Mapping[str, Encoded],
    *,
    train: Train,
    masks: HardConcrete,
    adversary: FreeLB,
    keep_epochs: list[int],
    compute: Compute,
    seed: int,
    frozen: bool = True,
    run: Run | None = None,
) -> tuple[list[dict[str, Any]], dict[int, dict[str, Tensor]]]:
    """Learn the scores of `names` on the frozen `model`; returns (one record an epoch, scores by kept epoch, from 1).

    The weights never move. With `frozen` false, as in the released code, their gradients are taken all the same and
    never set to zero: what has added up since the first step counts in the norm that `clip_norm` bounds, and is clipped
    with the scores'.

    Records hold the noiseless masks' accuracy (%) on data["val"] and the expected remaining percentage (L0 term x 100).
    """
    run = run or Run()
    batches = TextBatches(data["train"], train.batch_size, seed, run.device)
    return learn(
        model, names, batches, train=train, masks=masks, adversary=adversary, keep_epochs=keep_epochs, compute=compute,
        seed=seed,
        frozen=frozen, run=run, measure=lambda: {"val_accuracy": accuracy(model, data["val"], compute, run.device)},
    )  # fmt: skip


def learn(
    model: nn.Module,
    names: list[str],
    batches: Batches,
    *,
    train: Train,
    masks: HardConcrete,
    adversary: FreeLB,
    keep_epochs: list[int],
    compute: Compute,
    seed: int,
    frozen: bool = True,
    run: Run | None = None,
    measure: Callable[[], Mapping[str, Any]] = dict,
) -> tuple[list[dict[str, Any]], dict[int, dict[str, Tensor]]]:
    """`search` over any batches (keyword arguments of the model, labels among them); `measure()` adds to each epoch's
    record.
    """
    run = run or Run()
    device = run.device
    model.to(device)
    weights = {} if frozen else dict(model.named_parameters())
    scores = attach(model, names, masks, frozen)
    schedule = L0Schedule(scores, masks, train.epochs * batches.steps_per_epoch)
    snapshots = Snapshots(scores, keep_epochs)

    def after_epoch(epoch: int) -> dict[str, Any]:
        snapshots.after_epoch(epoch + 1)
        with torch.no_grad():
            expected = 100.0 * l0_term(scores, masks).item()
        return {**measure(), "expected_remaining_percent": expected}

    history = fit(
        Fit(
            model=model,
            optimizer=make_optimizer(train, list(scores.values())),
            train=train,
            batches=batches,
            step=AdversarialStep(model, adversary, autocast(compute, device), train.label_smoothing),
            seed=seed,
            before_update=schedule,
            after_epoch=after_epoch,
            extras={
                "schedule": schedule,
                "snapshots": snapshots,
                **({} if frozen else {"weights": Accumulated(weights)}),
            },
            accumulating=list(weights.values()),
        ),
        run,
    )
    return history, snapshots.taken
