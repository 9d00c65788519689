"""How time grows with epochs, images, rounds and jobs, and memory with the batch: points, a straight line, and its
misfit.

Each point is the median of --repeats runs. The line is fitted with relative weights, so that small and large points
count alike; the misfit is the largest distance of a point from it, in percent of the point. Takes about 15 minutes; not
in `make bench`.

    python -m bench.scaling [--threads 1] [--repeats 3]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from bench import adversarial_step, gem_search_epoch, robust_search_step
from bench.common import Remote, Run, Timed, arguments
from bench.workflow import ROOT, dry_run, stage

DIGITS = {"dataset": "digits", "classes": [0, 1, 2, 3, 4], "train_crop": "pad", "crop_padding": 1, "val_images": 100}
TRAIN = {"epochs": 1, "batch_size": 32, "lr": 0.05}


def line(case, against, unit, points):
    """A row: the points, slope and offset of their line, and the largest relative misfit."""
    x, y = np.array(points, dtype=float).T
    slope, offset = np.polyfit(x, y, 1, w=1 / y)
    misfit = float(np.abs((slope * x + offset) / y - 1).max() * 100)
    print(f"{case} against {against}: {offset:.3g} + {slope:.3g} x {unit}, within {misfit:.0f} %: {points}", flush=True)
    found = {"case": case, "against": against, "unit": unit, "points": points}
    return {**found, "slope": slope, "offset": offset, "misfit": misfit}


def epochs(folder, repeats, tiny):
    """A pre-training job, start included, against its epochs."""
    points = []
    for n in (1, 2) if tiny else (1, 4, 16, 64):
        config = {"method": "std", "data": DIGITS, "model": {"arch": "resnet8", "width": 4 if tiny else 16},
                  "train": {**TRAIN, "epochs": n}, "compute": {}, "seed": 0}  # fmt: skip
        runs = [
            stage(
                "pretrain",
                config,
                folder,
                out=folder / "dense.safetensors",
                metrics=folder / "m.json",
                scratch=folder / f"s{n}{k}",
            )
            for k in range(repeats)
        ]
        points.append((n, statistics.median(runs)))
    return line("pre-training job, ResNet-8, digits", "epochs", "s", points)


def images(repeats, tiny, threads):
    """A gem search epoch against the number of images."""
    points = []
    for n in (128, 256) if tiny else (256, 512, 1024, 2048, 4096):
        path = Timed(gem_search_epoch.Winnow,
         {"count": n, "batch": gem_search_epoch.BATCH, "width": 4 if tiny else 16, "device": "cpu", "threads": threads,
                                               "precision": "float32"})  # fmt: skip
        points.append((n, statistics.median([path.seconds()[0] for _ in range(repeats + 1)][1:])))
    return line("gem search epoch, ResNet-20", "images", "s", points)


def rounds(folder, tiny):
    """A chain of IMP rounds (prune, train), start of each job included, against its length."""
    points, total = [], 0.0
    weights, mask = folder / "dense.safetensors", None
    train = {"data": DIGITS, "train": {**TRAIN, "epochs": 1 if tiny else 4}, "compute": {}, "seed": 0, "keep": "last"}
    for n in range(1, 3 if tiny else 9):
        pruned, trained = folder / f"{n}.mask.safetensors", folder / f"{n}.safetensors"
        total += stage(
            "prune",
            {"method": "magnitude", "remaining_percent": 100 * 0.8**n, "round": n},
            folder,
            out=pruned,
            weights=weights,
            **({"mask": mask} if mask else {}),
        )
        given = {"init": folder / "dense.safetensors", "mask": pruned}
        total += stage("train", train, folder, out=trained, metrics=folder / "m.json", **given)
        weights, mask = trained, pruned
        points.append((n, total))
    return line("IMP, ResNet-8, digits", "rounds", "s", points)


def jobs(folder, repeats, tiny):
    """A dry run of the double-win paper's grid against its jobs (more seeds)."""
    given, points = yaml.safe_load((ROOT / "config/paper/double_win.yaml").read_text()), []
    for count in (1,) if tiny else (1, 2, 3, 6):
        given["double_win"]["seeds"] = list(range(count))
        path = folder / "grid.yaml"
        path.write_text(yaml.safe_dump(given))
        target = ("--directory", str(folder), "results/tables/double_win.csv", "--configfile", str(path))
        runs = [dry_run(*target) for _ in range(repeats)]
        points.append((runs[0][1], statistics.median(t for t, _ in runs)))
    return line("dry run of the double-win grid", "jobs", "s", points)


def memory(case, make, settings, batches, tiny):
    """Peak resident memory of a path, in a process of its own, against the batch."""
    points = []
    for batch in batches[:2] if tiny else batches:
        path = Remote(make, {**settings, "batch": batch})
        try:
            path.seconds(), path.seconds()
            points.append((batch, path.peak_mib()))
        finally:
            path.close()
    return line(case, "batch", "MiB", points)


def main(argv=None):
    args = arguments(__doc__, argv, repeats=3)
    run, begun = Run("scaling", args), time.time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run.add(
            epochs(folder, args.repeats, args.tiny),
            rounds(folder, args.tiny),
            images(args.repeats, args.tiny, args.threads),
        )
        if not args.tiny:
            run.add(jobs(folder, args.repeats, args.tiny))
    common = {"device": "cpu", "threads": args.threads, "precision": "float32"}
    resnet = (
        dict(zip(("model", "size", "batch", "crop"), adversarial_step.CASES["ResNet-18 32x32"], strict=True)) | common
    )
    run.add(
        memory("PGD-10 training step, ResNet-18 32x32", adversarial_step.Winnow, resnet, (8, 16, 32, 64), args.tiny)
    )
    if not args.tiny:
        bert = {"size": robust_search_step.CASES["MiniLM size"][0], "steps": 2, "length": 64, **common}
        run.add(
            memory("robust search step, MiniLM size", robust_search_step.Winnow, bert, (4, 8, 16, 32, 64), args.tiny)
        )
    run.write()
    print(f"{time.time() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
