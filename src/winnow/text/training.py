"""Fine-tuning classifiers, plain or against FreeLB, dense or under a ticket: one function for every text stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from winnow.config.parts import Compute, Train
from winnow.config.text import FreeLB, TextData
from winnow.run import Run
from winnow.text.batches import Encoded, TextBatches, encode
from winnow.text.data import load_text
from winnow.text.evaluate import accuracy
from winnow.text.freelb import AdversarialStep
from winnow.text.models import check_classes, load_classifier, token_types
from winnow.ticket import Ticket
from winnow.train.compiling import compile_if_asked
from winnow.train.device import autocast, start
from winnow.train.loop import Fit, fit
from winnow.train.masking import enforce
from winnow.train.optim import decay_groups, make_optimizer
from winnow.train.snapshots import Snapshots


def load(path: Path, data: TextData, data_root: Path, download: bool) -> tuple[Any, Any, dict[str, Encoded]]:
    """Model and tokenizer of a folder (or its model.safetensors), and the training and validation split of `data`
    encoded.

    Raises WinnowError when the model and the task have different numbers of classes, or something is missing.
    """
    model, tokenizer = load_classifier(path)
    check_classes(model, data.classes, str(path))
    splits, types = load_text(data, data_root, download, ("train",)), token_types(model)
    return model, tokenizer, {name: encode(tokenizer, split, data.max_length, types) for name, split in splits.items()}


def plain_step(
    model: nn.Module, train: Train, compute: Compute, device: torch.device
) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """`step` for `fit`: cross-entropy of a batch."""

    def step(batch: Mapping[str, Tensor]) -> Tensor:
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        with autocast(compute, device):
            logits = model(**inputs).logits
        loss = cross_entropy(logits.float(), batch["labels"], label_smoothing=train.label_smoothing)
        loss.backward()
        return loss.detach()

    return step


def finetune(
    model: nn.Module,
    data: Mapping[str, Encoded],
    *,
    train: Train,
    compute: Compute,
    seed: int,
    adversary: FreeLB | None = None,
    ticket: Ticket | None = None,
    keep_epochs: Sequence[int] = (),
    run: Run | None = None,
) -> tuple[list[dict[str, Any]], dict[int, dict[str, Tensor]]]:
    """Train on data["train"] to the end; returns one record an epoch with the accuracy (%) on data["val"], and the
    state dict after each of `keep_epochs`, from 1.
    """
    run = run or Run()
    device = run.device
    model.to(device)
    compile_if_asked(model, compute)
    enforce(model, ticket, every_forward=False)
    step: Callable[..., Tensor] = plain_step(model, train, compute, device)
    if adversary is not None:
        step = AdversarialStep(model, adversary, autocast(compute, device), train.label_smoothing)
    snapshots = Snapshots(model.state_dict(), keep_epochs)

    def after_epoch(epoch: int) -> dict[str, Any]:
        snapshots.after_epoch(epoch + 1)
        return {"val_accuracy": accuracy(model, data["val"], compute, device)}

    history = fit(
        Fit(
            model=model,
            optimizer=make_optimizer(train, decay_groups(model, train.weight_decay)),
            train=train,
            batches=TextBatches(data["train"], train.batch_size, seed, device),
            step=step,
            seed=seed,
            after_epoch=after_epoch,
            extras={"snapshots": snapshots} if keep_epochs else {},
        ),
        run,
    )
    return history, snapshots.taken


def calibration(
    weights: Path, data: TextData, examples: int, seed: int, compute: Compute, run: Run
) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """The model of a folder on the run's device, and its first batch of the shuffled training split."""
    start(compute, run.device, seed)
    model, _, encoded = load(weights, data, run.data_root, run.download)
    batches = TextBatches(encoded["train"], min(examples, len(encoded["train"].ids)), seed, run.device)
    return model.to(run.device), [next(iter(batches.epoch(0)))]
