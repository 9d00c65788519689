"""The one training loop: every stage that trains anything (weights, scores, text or images) runs through `fit`.

All randomness of a step is seeded from (seed, step), so a resumed run needs only the model, the optimiser and the
position, and ends with the bytes of an uninterrupted one. With several processes each works on its part of the same
global batches.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from winnow.config.parts import Train
from winnow.errors import WinnowError
from winnow.guard import beat
from winnow.progress import Position, rate
from winnow.run import Run, Stopped
from winnow.train import compiling, ranks
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
    after_epoch(epoch) -> metrics of that epoch (0-based), e.g. validation accuracies. finished() ends the run before
    the next epoch; it must follow from checkpointed state. max_steps ends it after that many steps. `extras` are
    checkpointed too. `accumulating`: parameters that are not stepped; their gradients are never set to zero and count
    in the norm that is clipped.
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
    accumulating: Sequence[Tensor] = ()
    history: list[dict[str, Any]] = field(default_factory=list)
    global_step: int = 0
    epoch_loss: float | Tensor = 0.0  # sum over the epoch's steps so far; stays on the device


def fit(plan: Fit, run: Run | None = None) -> list[dict[str, Any]]:
    """Train to the end, from the run's checkpoint if it has one; returns one record an epoch.

    Raises WinnowError on a loss that is not finite, Stopped when the run is asked to stop (the state is saved first).
    """
    run = run or Run()
    with run.stopping_safely():
        return _fit(plan, run)


def _fit(plan: Fit, run: Run) -> list[dict[str, Any]]:
    checkpoints = Checkpoints.of(run)
    _restore(plan, run, checkpoints.load())
    per_epoch = plan.batches.steps_per_epoch
    base_rates = [group["lr"] for group in plan.optimizer.param_groups] if plan.global_step == 0 else _base_rates(plan)
    for group, base_rate in zip(plan.optimizer.param_groups, base_rates, strict=True):
        group["base_lr"] = base_rate
    run.record_processes(ranks.size())
    trainable = [p for group in plan.optimizer.param_groups for p in group["params"]]
    trainable += plan.accumulating
    steps = (
        per_epoch * plan.train.epochs if plan.max_steps is None else min(plan.max_steps, per_epoch * plan.train.epochs)
    )
    with run.doing("training", steps, "step", plan.global_step) as position:
        _epochs(plan, run, checkpoints, trainable, position)
    return plan.history


def _epochs(plan: Fit, run: Run, checkpoints: Checkpoints, trainable: list[Tensor], position: Position) -> None:
    per_epoch = plan.batches.steps_per_epoch
    for epoch in range(len(plan.history), plan.train.epochs):
        first, sizes = plan.global_step - epoch * per_epoch, plan.batches.sizes(epoch)
        if first == 0 and plan.finished is not None and plan.finished():
            break
        ranks.check_batches(sizes)
        position.what = f"epoch {epoch + 1}/{plan.train.epochs}"
        plan.model.train()
        begun, waited, examples_done = time.monotonic(), waiting(plan.batches), 0
        bar = tqdm(
            plan.batches.epoch(epoch, first, ranks.share), total=per_epoch, initial=first, unit="step", leave=False,
            desc=f"epoch {epoch + 1}/{plan.train.epochs}", disable=not run.shows_progress or ranks.rank() > 0,
        )  # fmt: skip
        for examples, batch in zip(sizes[first:], bar, strict=True):
            if plan.global_step == plan.max_steps:
                break
            _one_step(plan, batch, examples, trainable)
            beat()
            examples_done += examples
            position.done = plan.global_step
            if _loss_is_known(plan):
                position.figures["loss"] = float(plan.epoch_loss) / (plan.global_step - epoch * per_epoch)
            stop = ranks.any_of(run.stop_requested)
            wait = 1 if plan.global_step % per_epoch == 0 else 10  # what comes after an epoch may take long
            if stop or checkpoints.due(run.checkpoint_seconds * wait):
                _save(plan, run, checkpoints)
            if stop:
                raise Stopped
        _check_finite(plan)
        _record_speed(
            run, epoch, plan.train.epochs, examples_done, time.monotonic() - begun, waiting(plan.batches) - waited
        )
        ranks.check_agreement([*trainable, *ranks.statistics(plan.model)], plan.global_step)
        if plan.global_step == plan.max_steps:
            break
        record = {"epoch": epoch + 1, "loss": float(plan.epoch_loss) / per_epoch}
        plan.epoch_loss = 0.0
        if plan.after_epoch is not None:
            record.update(plan.after_epoch(epoch))
        plan.history.append(record)
        run.tell(record, plan.global_step)
        shown = "  ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items() if k != "epoch"
        )
        pace = filter(None, [rate(per_epoch - first, time.monotonic() - begun, "step"), position.left()])
        log.info("epoch %d/%d  %s  (%s)", epoch + 1, plan.train.epochs, shown, ", ".join(pace))
        compiling.report(plan.model)
        stop = ranks.any_of(run.stop_requested)
        if stop or checkpoints.due(run.checkpoint_seconds):
            _save(plan, run, checkpoints)
        if stop and epoch + 1 < plan.train.epochs:
            raise Stopped


def _loss_is_known(plan: Fit) -> bool:
    """Whether the loss was just read: on a GPU that waits for all work that is queued, so it is not read to be
    shown.
    """
    return (
        not isinstance(plan.epoch_loss, Tensor)
        or plan.epoch_loss.device.type == "cpu"
        or plan.global_step % CHECK_STEPS == 0
    )


def waiting(batches: Any) -> float:
    """Seconds for which a batch of these was waited for so far; 0 for data that lies on the device."""
    return float(getattr(batches, "waited", 0.0))


def _record_speed(run: Run, epoch: int, epochs: int, examples: int, seconds: float, waited: float) -> None:
    """With the run's times, since they differ from run to run; a warning when the device stood idle for want of
    data.
    """
    speed, percent = examples / max(1e-9, seconds), 100.0 * waited / max(1e-9, seconds)
    run.record_speed(epoch=epoch + 1, examples_per_second=round(speed, 1), waiting_percent=round(percent, 1))
    log.debug("epoch %d/%d: %.1f examples/s, %.1f %% of the time waiting for data", epoch + 1, epochs, speed, percent)
    if percent > WAITING_PERCENT:
        log.warning(
            "epoch %d/%d waited for data for %.0f %% of its time (%.0f examples/s); raise workers, or pack the images "
            "(python -m winnow.stages.pack_images)", epoch + 1, epochs, percent, speed,
        )  # fmt: skip


def _one_step(plan: Fit, batch: Any, examples: int, trainable: list[Tensor]) -> None:
    factor = lr_factor(plan.train, plan.global_step, plan.batches.steps_per_epoch)
    for group in plan.optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    plan.optimizer.zero_grad(set_to_none=True)
    with ranks.step(plan.seed, plan.global_step, examples), explained(_smaller(plan.train, examples)):
        loss = _passes(plan, batch, examples, trainable)
    if ranks.size() > 1:
        gradients = [p.grad for p in trainable if p.grad is not None]
        ranks.average([loss, *ranks.statistics(plan.model), *gradients], examples)
    plan.epoch_loss = plan.epoch_loss + loss.double()
    plan.global_step += 1
    if loss.device.type == "cpu" or plan.global_step % CHECK_STEPS == 0:
        _check_finite(plan)
    if plan.train.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(trainable, plan.train.clip_norm)
    if plan.before_update is not None:
        plan.before_update()
    plan.optimizer.step()
    if plan.after_update is not None:
        plan.after_update()


def _passes(plan: Fit, batch: Any, examples: int, trainable: list[Tensor]) -> Tensor:
    """The loss and gradients of a batch: in one pass, or as the mean over its micro-batches, each counting by its
    examples.
    """
    count = ranks.pieces(examples, plan.train.micro_batch)
    if count == 1:
        return plan.step(batch).detach()
    whole = ranks.share(examples)
    losses, sums, moved = [], list[Tensor](), list[Tensor]()
    for number in range(count):
        with ranks.micro_batch(examples, number, count) as part:
            weight = (part.stop - part.start) / (whole.stop - whole.start)
            losses.append(plan.step(_part(batch, part)).detach() * weight)
        moved = moved or [p for p in trainable if p.grad is not None]
        gradients = [p.grad for p in moved if p.grad is not None]
        if sums:
            torch._foreach_add_(sums, gradients, alpha=weight)
        else:
            sums = list(torch._foreach_mul(gradients, weight))
        plan.optimizer.zero_grad(set_to_none=True)
    for parameter, total in zip(moved, sums, strict=True):
        parameter.grad = total
    return torch.stack(losses).sum()


def _part(batch: Any, part: slice) -> Any:
    return {k: v[part] for k, v in batch.items()} if isinstance(batch, Mapping) else tuple(t[part] for t in batch)


def _smaller(train: Train, examples: int) -> str:
    """What to do when a step does not fit into memory."""
    now = min(train.micro_batch or examples, examples)
    return f"set train.micro_batch ({now} examples at once did not fit) to {max(2, now // 2)} or less"


def _check_finite(plan: Fit) -> None:
    if not math.isfinite(loss := float(plan.epoch_loss)):
        raise WinnowError(
            f"training diverged: the loss is {loss} by step {plan.global_step} "
            f"(epoch {1 + (plan.global_step - 1) // plan.batches.steps_per_epoch}); lower lr ({plan.train.lr:g}) or "
            f"set clip_norm"
        )


def _base_rates(plan: Fit) -> list[float]:
    return [group["base_lr"] for group in plan.optimizer.param_groups]


def _save(plan: Fit, run: Run, checkpoints: Checkpoints) -> None:
    """Process 0 writes; all are at the same step and hold the same state."""
    _check_finite(plan)
    state = {
        "model": plan.model.state_dict(),
        "optimizer": plan.optimizer.state_dict(),
        "extras": {name: extra.state_dict() for name, extra in plan.extras.items()},
        "history": plan.history,
        "global_step": plan.global_step,
        "epoch_loss": float(plan.epoch_loss),
        "processes": run.processes,
    }
    checkpoints.save(state)


def _restore(plan: Fit, run: Run, state: dict[str, Any] | None) -> None:
    if state is None:
        return
    plan.model.load_state_dict(state["model"])
    plan.optimizer.load_state_dict(state["optimizer"])
    for name, extra in plan.extras.items():
        extra.load_state_dict(state["extras"][name])
    plan.history[:] = state["history"]
    plan.global_step, plan.epoch_loss = state["global_step"], state["epoch_loss"]
    for count in state["processes"]:
        run.record_processes(count)
    log.info("resumed at step %d", plan.global_step)
