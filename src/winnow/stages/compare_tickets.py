"""How two tickets and the networks trained under them relate: overlap, the path between the networks, sharpness.

With the same ticket and starting weights twice and networks trained from two seeds, the barrier says whether the ticket
is stable to the noise of SGD (Frankle et al., ICML 2020); with two tickets, whether they lead into one basin. Batch
statistics are taken anew at every point from the training images.
"""

from __future__ import annotations

import sys

from winnow.config.jobs import CompareTickets
from winnow.stage import Job, Stage

stage = Stage(
    "compare_tickets",
    CompareTickets,
    inputs={
        "weights": "a trained network",
        "mask?": "its ticket; none for either: dense networks",
        "other_weights": "another one of the same architecture",
        "other_mask?": "its ticket",
        "init?": "weights that removed ones get back when masks are flipped; none: zero",
    },
    outputs={"metrics": "overlap by layer, losses and accuracies on the path, barriers, flipped masks"},
)


@stage
def main(job: Job[CompareTickets]) -> None:
    """Compare masks, walk between the networks, flip masks, write."""
    from winnow.config.parts import Train
    from winnow.errors import WinnowError
    from winnow.gems.finetune import recalibrate, task_loaders
    from winnow.relations.overlap import overlap
    from winnow.relations.path import barrier, instability, path, sharpness
    from winnow.ticket import Ticket
    from winnow.train.device import start
    from winnow.vision import models
    from winnow.vision.evaluate import loss_and_accuracy
    from winnow.vision.training import place

    cfg, run = job.config, job.run
    tickets = [Ticket.load(job[name]) for name in ("mask", "other_mask") if job.inputs[name]]
    if len(tickets) == 1:
        raise WinnowError("--mask, --other-mask: give both, or none for dense networks")
    device = start(cfg.compute, run.device, cfg.seed)
    compute = cfg.compute.having(compile=False)
    reading = Train(epochs=0, batch_size=cfg.batch_size, lr=1.0)  # how many at a time
    train, _, test = task_loaders(cfg.data, reading, cfg.seed, run)[-1]
    names = [n for n in ("weights", "other_weights", "init") if job.inputs[n]]
    networks = [place(models.load_pretrained(job[name])[0], compute, device) for name in names]
    for network, ticket in zip(networks, tickets, strict=False):
        ticket.apply(network)

    def measure(network: object) -> dict[str, float]:
        recalibrate(network, train)  # type: ignore[arg-type]
        found = {}
        for split, loader in (("train", train), ("test", test)):
            found[f"{split}_loss"], found[f"{split}_acc"] = loss_and_accuracy(network, loader, compute)  # type: ignore[arg-type]
        return found

    sampled = cfg.interpolation == "sampled"
    rows = path(networks[0], networks[1], cfg.points, measure, sampled=sampled, draws=cfg.draws, seed=cfg.seed)
    found = {
        "overlap": overlap(*tickets) if tickets else [],
        "path": rows,
        "loss_barrier": {split: barrier(rows, f"{split}_loss") for split in ("train", "test")},
        "instability": {split: instability(rows, f"{split}_acc") for split in ("train", "test")},
        "sharpness": [
            sharpness(network, ticket, cfg.flipped_percent, cfg.draws, measure, cfg.seed, *networks[2:])
            for network, ticket in zip(networks[:2], tickets, strict=False)
            if cfg.flipped_percent
        ],
    }
    job.write_metrics("metrics", found)


if __name__ == "__main__":
    sys.exit(stage.run())
