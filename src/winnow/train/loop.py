"""The one training loop: every stage that trains anything (weights, scores, text or images) runs through `fit`.

All randomness of a step is seeded from (seed, step), so a resumed run needs only the model, the optimiser and the position,
and ends with the bytes of an uninterrupted one. With several processes each works on its part of the same global batches.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from winnow.compat import optimizer_step
from winnow.config.parts import Train
from winnow.errors import WinnowError
from winnow.launch import Stopped
from winnow.stage import Job
from winnow.train import ranks
from winnow.train.checkpoint import Checkpoints
from winnow.train.device import explained
from winnow.train.optim import lr_factor

log = logging.getLogger("winnow")
WAITING_PERCENT = 10.0  # share of an epoch spent waiting for data above which the log warns
CHECK_STEPS = 100  # on a GPU the loss is read this often: reading it waits for all work that is queued


class Batches(Protocol):
    """Training data: a fixed number of batches an epoch, in an order that (epoch) alone decides."""

    steps_per_epoch: int

    def sizes(self, epoch: int) -> Sequence[int]:
        """Examples in each batch of the epoch."""
        ...

    def epoch(self, epoch: int, first: int = 0, share: Callable[[int], slice] = ...) -> Iterator[Any]:
        """Batches first, first+1, ... of the epoch; of n examples those in `share(n)`."""
        ...


class Stateful(Protocol):
    """Anything that lives through a run and must survive a restart."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        ...

    def load_state_dict(self, state: Any) -> Any:
        """Take a state back."""
        ...


@dataclass
class Fit:
    """What `fit` runs.

    step(batch) does the forward and backward passes and returns the loss (a scalar tensor, detached by the loop);
    before_update() may change gradients (masks, regularisers), after_update() parameters (clamps);
    after_epoch(epoch) -> metrics of that epoch (0-based), e.g. validation accuracies. finished() ends the run before the next
    epoch; it must follow from checkpointed state. max_steps ends it after that many steps. `extras` are checkpointed too.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    train: Train
    batches: Batches
    step: Callable[[Any], Tensor]
    seed: int
    before_update: Callable[[], None] | None = None
    after_update: Callable[[], None] | None = None
    after_epoch: Callable[[int], Mapping[str, Any]] | None = None
    finished: Callable[[], bool] | None = None
    max_steps: int | None = None
    extras: Mapping[str, Stateful] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    global_step: int = 0
    epoch_loss: float | Tensor = 0.0  # sum over the epoch's steps so far; stays on the device


def fit(run: Fit, job: Job[Any]) -> list[dict[str, Any]]:
    """Train to the end, from the job's checkpoint if it has one; returns one record an epoch.

    Raises WinnowError on a loss that is not finite, Stopped after SIGTERM (the state is saved first).
    """
    checkpoints, job.checkpoints = Checkpoints(job.checkpoint_folder, job.writes), True
    _restore(run, job, checkpoints.load())
    per_epoch = run.batches.steps_per_epoch
    base_rates = [group["lr"] for group in run.optimizer.param_groups] if run.global_step == 0 else _base_rates(run)
    for group, rate in zip(run.optimizer.param_groups, base_rates, strict=True):
        group["base_lr"] = rate
    job.took_part(ranks.size())
    trainable = [p for group in run.optimizer.param_groups for p in group["params"]]
    for epoch in range(len(run.history), run.train.epochs):
        first, sizes = run.global_step - epoch * per_epoch, run.batches.sizes(epoch)
        if first == 0 and run.finished is not None and run.finished():
            break
        ranks.check_batches(sizes)
        run.model.train()
        begun, waited, examples_done = time.monotonic(), waiting(run.batches), 0
        bar = tqdm(
            run.batches.epoch(epoch, first, ranks.share), total=per_epoch, initial=first, unit="step", leave=False,
            desc=f"epoch {epoch + 1}/{run.train.epochs}", disable=not (sys.stderr.isatty() and job.writes),
        )  # fmt: skip
        for examples, batch in zip(sizes[first:], bar, strict=True):
            if run.global_step == run.max_steps:
                break
            _one_step(run, batch, examples, trainable)
            examples_done += examples
            stop = ranks.any_of(job.stop_requested)
            wait = 1 if run.global_step % per_epoch == 0 else 10  # what comes after an epoch may take long
            if stop or checkpoints.due(job.checkpoint_seconds * wait):
                _save(run, job, checkpoints)
            if stop:
                raise Stopped
        _check_finite(run)
        _record_speed(run, job, epoch, examples_done, time.monotonic() - begun, waiting(run.batches) - waited)
        ranks.check_agreement([*trainable, *ranks.statistics(run.model)], run.global_step)
        if run.global_step == run.max_steps:
            break
        record = {"epoch": epoch + 1, "loss": float(run.epoch_loss) / per_epoch}
        run.epoch_loss = 0.0
        if run.after_epoch is not None:
            record.update(run.after_epoch(epoch))
        run.history.append(record)
        shown = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items() if k != "epoch")
        rate = (per_epoch - first) / max(1e-9, time.monotonic() - begun)
        log.info("epoch %d/%d  %s  (%.1f steps/s)", epoch + 1, run.train.epochs, shown, rate)
        stop = ranks.any_of(job.stop_requested)
        if stop or checkpoints.due(job.checkpoint_seconds):
            _save(run, job, checkpoints)
        if stop and epoch + 1 < run.train.epochs:
            raise Stopped
    job.checkpoints = False
    return run.history


def waiting(batches: Any) -> float:
    """Seconds for which a batch of these was waited for so far; 0 for data that lies on the device."""
    return float(getattr(batches, "waited", 0.0))


def _record_speed(run: Fit, job: Job[Any], epoch: int, examples: int, seconds: float, waited: float) -> None:
    """With the job's run times, since they differ from run to run; a warning when the device stood idle for want of data."""
    rate, percent = examples / max(1e-9, seconds), 100.0 * waited / max(1e-9, seconds)
    speed = {"epoch": epoch + 1, "examples_per_second": round(rate, 1), "waiting_percent": round(percent, 1)}
    job.speeds.append(speed | ({"phase": job.phase} if job.phase else {}))
    log.debug("epoch %d/%d: %.1f examples/s, %.1f %% of the time waiting for data", epoch + 1, run.train.epochs, rate, percent)
    if percent > WAITING_PERCENT:
        log.warning(
            "epoch %d/%d waited for data for %.0f %% of its time (%.0f examples/s); raise workers, or pack the images "
            "(python -m winnow.stages.pack_images)", epoch + 1, run.train.epochs, percent, rate,
        )  # fmt: skip


def _one_step(run: Fit, batch: Any, examples: int, trainable: list[Tensor]) -> None:
    factor = lr_factor(run.train, run.global_step, run.batches.steps_per_epoch)
    for group in run.optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    run.optimizer.zero_grad(set_to_none=True)
    with ranks.step(run.seed, run.global_step, examples), explained():
        loss = run.step(batch).detach()
    if ranks.size() > 1:
        gradients = [p.grad for p in trainable if p.grad is not None]
        ranks.average([loss, *ranks.statistics(run.model), *gradients], examples)
    run.epoch_loss = run.epoch_loss + loss.double()
    run.global_step += 1
    if loss.device.type == "cpu" or run.global_step % CHECK_STEPS == 0:
        _check_finite(run)
    if run.train.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(trainable, run.train.clip_norm)
    if run.before_update is not None:
        run.before_update()
    optimizer_step(run.optimizer)
    if run.after_update is not None:
        run.after_update()


def _check_finite(run: Fit) -> None:
    if not math.isfinite(loss := float(run.epoch_loss)):
        raise WinnowError(
            f"training diverged: the loss is {loss} by step {run.global_step} "
            f"(epoch {1 + (run.global_step - 1) // run.batches.steps_per_epoch}); lower lr ({run.train.lr:g}) or set clip_norm"
        )


def _base_rates(run: Fit) -> list[float]:
    return [group["base_lr"] for group in run.optimizer.param_groups]


def _save(run: Fit, job: Job[Any], checkpoints: Checkpoints) -> None:
    """Process 0 writes; all are at the same step and hold the same state."""
    _check_finite(run)
    state = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "extras": {name: extra.state_dict() for name, extra in run.extras.items()},
        "history": run.history,
        "global_step": run.global_step,
        "epoch_loss": float(run.epoch_loss),
        "processes": job.processes,
    }
    checkpoints.save(state)


def _restore(run: Fit, job: Job[Any], state: dict[str, Any] | None) -> None:
    if state is None:
        return
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    for name, extra in run.extras.items():
        extra.load_state_dict(state["extras"][name])
    run.history[:] = state["history"]
    run.global_step, run.epoch_loss = state["global_step"], state["epoch_loss"]
    for count in state["processes"]:
        job.took_part(count)
    log.info("resumed at step %d", run.global_step)
