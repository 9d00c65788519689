"""The released robust-ticket search, from its log: settings, model, batches, and a search() that meets the same batches
and noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from winnow.config.parts import Train
from winnow.config.text import FreeLB, HardConcrete
from winnow.text import compat
from winnow.text import search as search_module
from winnow.text.batches import Encoded, TextBatches
from winnow.train import ranks


def settings(args: dict[str, Any]) -> tuple[HardConcrete, FreeLB, Train]:
    """What the released program was called with, in winnow's words."""
    hard = HardConcrete(
        low=args["hard_concrete"]["l"], high=args["hard_concrete"]["r"], beta=args["hard_concrete"]["beta"],
        init_mask=args["mask_p"], l0_amplitude=args["lambda_amp"], l0_start_fraction=args["lambda_startup_frac"],
        l0_ramp_fraction=args["lambda_warmup_frac"],
    )  # fmt: skip
    adversary = FreeLB(
        steps=args["adv_steps"],
        step_size=args["adv_lr"],
        init_magnitude=args["adv_init_mag"],
        norm=args["adv_norm_type"],
    )
    train = Train(
        epochs=args["epochs"], batch_size=args["batch_size"], optimizer="adamw", lr=args["lr"],
        weight_decay=args["weight_decay"],
        schedule="linear", warmup_fraction=args["warmup_ratio"], clip_norm=args["max_grad_norm"],
    )  # fmt: skip
    return hard, adversary, train


def model_of(log: dict[str, Any], tensors: dict[str, Any]) -> nn.Module:
    """The log's BERT with the weights that it started from."""
    transformers = compat.transformers()
    known = {k: v for k, v in log["bert"].items() if k not in ("transformers_version", "model_type")}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**known))
    state = {k.removeprefix("init."): v for k, v in tensors.items() if k.startswith("init.") and "mask_scores" not in k}
    model.load_state_dict(state, strict=True)
    return model


def encoded(tensors: dict[str, Any]) -> Encoded:
    """The log's examples."""
    lengths = tensors["attention_mask"].sum(1).tolist()
    ids = [row[:n].numpy() for row, n in zip(tensors["ids"], lengths, strict=True)]
    return Encoded(ids, [np.zeros_like(i) for i in ids], tensors["labels"].numpy(), 0)


def make_noiseless(model: nn.Module) -> None:
    """Masks are their expectation, as in the logged runs."""
    for layer in model.modules():
        if hasattr(layer, "sampled"):
            layer.sampled = False


def replay(patch: Any, model: nn.Module, tensors: dict[str, Any], train: Train, seen: Any) -> None:
    """search() on `model` meets the log's batches and adversarial starts, without noise; `seen.scores` are its
    scores.
    """
    attach, starts = search_module.attach, iter(tensors["delta_uniform"])
    order = [[part.numpy() for part in epoch.split(train.batch_size)] for epoch in tensors["order"]]

    def attach_noiseless(*arguments: Any) -> Any:
        seen.scores = attach(*arguments)
        make_noiseless(model)
        return seen.scores

    patch.setattr(search_module, "attach", attach_noiseless)
    patch.setattr(TextBatches, "order", lambda self, epoch: order[epoch])
    patch.setattr(ranks, "noise", lambda like, draw: next(starts)[: like.shape[0], : like.shape[1]])
