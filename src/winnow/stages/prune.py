"""Prune by one method: which of the weights stay, how many of them exactly.

Methods are files of winnow.prune. Most rank the --weights alone, under the ticket of the last round (--mask) if there
is one; random can take the counts of another ticket (--like); snip, grasp, synflow and wanda run the model on training
examples.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from winnow.config.pruning import Prune, loader_of, module_of, modules_of
from winnow.errors import WinnowError
from winnow.prune import methods
from winnow.prune.layers import coverage_warning
from winnow.stage import Job, Stage, log
from winnow.ticket import Ticket
from winnow.weights import prunable_arrays, shapes_of

stage = Stage(
    "prune",
    Prune,
    inputs={
        "weights?": "weights to prune: a safetensors file or a model folder",
        "mask?": "ticket of the last round: only what it keeps is ranked",
        "like?": "ticket whose per-layer counts a random one takes",
    },
    outputs={"out": "the ticket"},
    also=modules_of,
)


@stage
def main(job: Job[Prune]) -> None:
    """Choose, write."""
    cfg = job.config
    name = module_of(cfg)
    entry, module = methods.find(name), methods.load(name)
    if (cfg.remaining_percent is None) != (job.inputs["like"] is not None):
        raise WinnowError(
            "config.remaining_percent: goes with --weights; --like takes the other ticket's counts instead"
        )
    if entry.takes == "training":
        raise WinnowError(f"config.method: {cfg.method} moves its masks in training; the stage train takes it")
    seeds = {"seed": cfg.seed} if entry.draws else {}
    about = {"method": cfg.label or cfg.method, **({"round": cfg.round} if cfg.round else {}), **seeds}
    if entry.takes == "ticket":
        masks = module.masks(Ticket.load(job["like"]), cfg.seed)
    elif job.inputs["weights"] is None:
        raise WinnowError(f"--weights: {cfg.method} needs the weights to prune")
    elif entry.takes == "model":
        masks = _by_model(job, module)
    else:
        weights = prunable_arrays(job["weights"])
        if warning := coverage_warning(list(weights), shapes_of(job["weights"])):
            log.warning("%s", warning)
        last = Ticket.load(job["mask"]) if job.inputs["mask"] else None
        if last is not None:
            last.check_fits({k: v.shape for k, v in weights.items()}, str(job["weights"]))
        alive = {"alive": last.arrays} if last else {}
        masks = module.masks(weights, _count(weights, cfg), **seeds, **cfg.options, **alive)
    job.write_ticket("out", Ticket(masks), **about)


def _count(sized: Any, cfg: Prune) -> float:
    """Weights to keep: round(total * remaining), so that rounding does not add up over rounds."""
    count = sum(w.size for w in sized.values()) * ((cfg.remaining_percent or 0.0) / 100.0)
    return round(count) if methods.find(module_of(cfg)).whole else count


def _by_model(job: Job[Prune], module: Any) -> Any:
    cfg, weights = job.config, job["weights"]
    data = cfg.data if cfg.text is None else cfg.text
    if data is None:
        raise WinnowError(f"config: {cfg.method} runs the model, so it needs the task (data or text)")
    load = import_module(
        str(loader_of(cfg))
    ).calibration  # by name: what prunes without it does not depend on training code
    model, batches = load(weights, data, cfg.images, cfg.seed, cfg.compute, job.run)
    arrays = prunable_arrays(weights)
    explained = import_module("winnow.train.device").explained
    with explained(f"set images to less than {cfg.images}"):
        return module.masks(model, list(arrays), _count(arrays, cfg), batches, **cfg.options)


if __name__ == "__main__":
    sys.exit(stage.run())
