"""Does bf16 autocast change what is found? Each pipeline's training on the embedded data, float32 against bf16, three
seeds.

The jobs and settings are the demo's: adversarial pre-training (SA and RA on held-out digits), the gem search and the
training of its ticket, the robust-ticket search of the tiny BERT. For each accuracy: mean and standard deviation over
the seeds, and the difference of the means in units of the pooled standard deviation (of float32 and bf16). Takes about
10 minutes on two cores; not in `make bench`.

    python -m bench.precision [--jobs 2]
"""

from __future__ import annotations

import json
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from bench.common import Run, arguments
from bench.workflow import ROOT, stage
from winnow.config.root import load
from winnow.pipelines.double_win import grid as double_win
from winnow.pipelines.rare_gems import grid as rare_gems
from winnow.pipelines.robust_bert import grid as robust_bert
from winnow.schema import plain

SEEDS = (0, 1, 2)


def shortened(node):
    """The configuration with two epochs for everything, to see that it runs."""
    if isinstance(node, list):
        return [shortened(v) for v in node]
    if not isinstance(node, dict):
        return node
    short = {"epochs": 2, "search_epochs": [2], "milestones": [1]}
    return {k: short.get(k, shortened(v)) for k, v in node.items()}


def last(path):
    """The last epoch's record of a metrics file."""
    return json.loads(path.read_text())["epochs"][-1]


def adversarial(section, folder, precision, seed):
    """Adversarial pre-training: accuracies after the last epoch."""
    config = plain(double_win.dense(section, "adv", str(seed)))
    config["compute"] = {**config["compute"], "precision": precision}
    stage("pretrain", config, folder, out=folder / "dense.safetensors", metrics=folder / "dense.json")
    record = last(folder / "dense.json")
    return {"adversarial training, digits, SA": record["val_sa"], "adversarial training, digits, RA": record["val_ra"]}


def gems(section, folder, precision, seed):
    """Gem search at 20 % and the training of its ticket: test accuracy before and after it."""
    e = section.experiments[0]
    init, mask = folder / "init.safetensors", folder / "gem.mask.safetensors"
    stage("gem_init", plain(rare_gems.init(section, e.name, e.init.init, str(seed))), folder, out=init)
    search = plain(rare_gems.search(section, e.name, "gem_miner", "20", "search", str(seed)))
    tune = plain(rare_gems.finetune(section, e.name, "gem_miner", str(seed)))
    for config in (search, tune):
        config["compute"] = {**config["compute"], "precision": precision}
    stage(
        "gem_search",
        search,
        folder,
        out=mask,
        order=folder / "order.safetensors",
        metrics=folder / "search.json",
        init=init,
    )
    stage("train", tune, folder, out=folder / "t.safetensors", metrics=folder / "t.json", init=init, mask=mask)
    found = json.loads((folder / "t.json").read_text())
    return {
        "gem at 20 %, digits, before training": found["acc_before"],
        "gem at 20 %, digits, after training": found["acc_after"],
    }


def robust(section, folder, precision, seed):
    """Robust-ticket search on one fine-tuned model a seed: accuracy of the noiseless masks after the last epoch."""
    config = plain(robust_bert.search(section, section.tasks[0].name, str(seed)))
    config["compute"] = {**config["compute"], "precision": precision}
    model = folder.parent / f"model{seed}" / "model.safetensors"
    stage(
        "search_robust_ticket",
        config,
        folder,
        scores=folder / "scores.safetensors",
        metrics=folder / "search.json",
        model=model,
    )
    return {"robust ticket search, embedded sentences": last(folder / "search.json")["val_accuracy"]}


def models(section, folder):
    """The pre-trained tiny BERT, fine-tuned for each seed in float32."""
    name, base = section.tasks[0].name, folder / "base" / "model.safetensors"
    stage("import_text_model", plain(robust_bert.import_model(section, name)), folder, out=base)
    for seed in SEEDS:
        out, metrics = folder / f"model{seed}" / "model.safetensors", folder / f"model{seed}.json"
        stage(
            "finetune_text",
            plain(robust_bert.finetune(section, name, "dense", str(seed))),
            folder,
            out=out,
            metrics=metrics,
            model=base,
        )


def row(case, float32, bf16):
    """Means, deviations, and the difference in pooled standard deviations."""
    spreads = [statistics.stdev(v) for v in (float32, bf16)]
    pooled = (sum(s**2 for s in spreads) / 2) ** 0.5
    difference = statistics.mean(bf16) - statistics.mean(float32)
    found = {"case": case, "float32": float32, "bf16": bf16, "difference": difference, "pooled_std": pooled}
    print(f"{case}: float32 {float32}, bf16 {bf16}: {difference:+.2f} points, pooled std {pooled:.2f}", flush=True)
    return found


def main(argv=None):
    args = arguments(__doc__, argv, jobs={"type": int, "default": 2, "help": "runs at the same time"})
    given = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config = load(shortened(given) if args.tiny else given)
    run = Run("precision", args)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(args.jobs) as pool:
        folder = Path(name)
        models(config.robust_bert, folder / "robust")
        found = {}
        for part, section, measure in (
            ("double_win", config.double_win, adversarial), ("rare_gems", config.rare_gems, gems),
            ("robust", config.robust_bert, robust),
        ):  # fmt: skip
            jobs = {
                (p, s): pool.submit(measure, section, folder / part / f"{p}{s}", p, s)
                for p in ("float32", "bf16")
                for s in SEEDS
            }
            for (precision, _), job in jobs.items():
                for case, value in job.result().items():
                    found.setdefault(case, {}).setdefault(precision, []).append(round(value, 3))
    run.add(*(row(case, **values) for case, values in found.items()))
    run.write()


if __name__ == "__main__":
    main()
