"""One short stage of each pipeline on a GPU against the CPU, by the commands that the workflow runs.

Claim: the same configuration gives the same result on a GPU, within TOLERANCE of the final loss (relative) and of every
accuracy (points). In float32 what is left is the order of sums and, for the robust search, other random masks; bf16
adds rounding to 8 bits. Runs float32, bf16 (channels_last always) and bf16 with torch.compile, and with two GPUs or
more the first of them as two processes; prints images (sentences) a second of the last epoch, its validation included,
and the peak memory. Exits with 1 when something lies outside, with 0 and "skipped" where there is no GPU.

    python bench/gpu.py [--quick] [--json docs/benchmarks/gpu.json]
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TOLERANCE = {
    "float32": (0.05, 5.0),
    "bf16": (0.1, 8.0),
    "bf16 compiled": (0.1, 8.0),
    "float32, 2 processes": (0.05, 5.0),
}
COMPUTE = {"float32": {}, "bf16": {"precision": "bf16"}, "bf16 compiled": {"precision": "bf16", "compile": True}}

QUICK = {
    "images": 120,
    "arch": {"arch": "resnet8", "width": 8},
    "size": 8,
    "batch": 40,
    "steps": 2,
    "epochs": 2,
    "sentences": 120,
}
FULL = {
    "images": 1024,
    "arch": {"arch": "resnet20"},
    "size": 32,
    "batch": 128,
    "steps": 5,
    "epochs": 3,
    "sentences": 2048,
}


class Rates(logging.Handler):
    """Steps a second of the last epoch, from the log."""

    last = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("epoch"):
            self.last = float(record.args[-1])  # type: ignore[index, arg-type]


def run(stage: str, config: dict[str, Any], device: str, *extra: str, **files: Path) -> None:
    arguments = [
        "--config",
        json.dumps(config),
        "--device",
        device,
        "--log-level",
        "info",
        "--scratch",
        str(SCRATCH),
        *extra,
    ]
    for name, path in files.items():
        arguments += [f"--{name.replace('_', '-')}", str(path)]
    code = importlib.import_module(f"winnow.stages.{stage}").stage.run(arguments)
    if code:
        sys.exit(code)


def imp(scale: dict[str, Any], compute: dict[str, Any], folder: Path, device: str, *extra: str) -> Path:
    """A dense network, one pruning, one adversarial round; attacks start at the image, so that devices see the same
    ones.
    """
    data = images(scale)
    train = {"epochs": scale["epochs"], "batch_size": scale["batch"], "lr": 0.05, "weight_decay": 5e-4}
    attack = {"eps": 8 / 255, "step_size": 2 / 255, "steps": scale["steps"], "random_start": False}
    shared = {"data": data, "train": train, "attack": attack, "compute": compute, "seed": 0}
    files = {"out": folder / "dense.safetensors", "metrics": folder / "dense.json"}
    run("pretrain", {**shared, "method": "adv", "model": scale["arch"]}, device, *extra, **files)
    run("prune", {"method": "magnitude", "remaining_percent": 80}, device, weights=files["out"], out=folder / "1.mask")
    found = {"out": folder / "trained.safetensors", "metrics": folder / "trained.json"}
    run("train", {**shared, "keep": "last"}, device, *extra, init=files["out"], mask=folder / "1.mask", **found)
    return found["metrics"]


def gems(scale: dict[str, Any], compute: dict[str, Any], folder: Path, device: str, *extra: str) -> Path:
    """A search with hard prunes in a random network."""
    dense = folder / "init.safetensors"
    run(
        "gem_init",
        {"model": scale["arch"], "init": {"init": "signed_constant"}, "data": images(scale), "seed": 0},
        "cpu",
        out=dense,
    )
    search = {"algo": "hc_iter", "target_sparsity": 20, "iter_period": 1, "lmbda": 1e-6, "regularization": "L2"}
    train = {"epochs": max(3, scale["epochs"]), "batch_size": scale["batch"], "lr": 0.1}
    config = {"search": search, "data": images(scale), "train": train, "compute": compute, "seed": 0}
    files = {"out": folder / "gem.mask", "order": folder / "order", "metrics": folder / "gem.json"}
    run("gem_search", config, device, *extra, init=dense, **files)
    return files["metrics"]


def robust(scale: dict[str, Any], compute: dict[str, Any], folder: Path, device: str, *extra: str) -> Path:
    """A score search with the FreeLB adversary; masks are drawn on the device, so devices see other ones."""
    data = {"dataset": "embedded", "max_length": 24, "train_examples": scale["sentences"]}
    tiny = {"source": "tiny", "dropout": 0.0}
    start = folder / "start/model.safetensors"
    run("import_text_model", {"data": data, "model": tiny, "seed": 0}, "cpu", out=start)
    train = {"epochs": 2, "batch_size": 32, "optimizer": "adamw", "lr": 1e-3, "clip_norm": 1.0}
    tuned = folder / "tuned/model.safetensors"
    plain = {"data": data, "train": train, "compute": compute, "seed": 0}
    run("finetune_text", plain, device, *extra, model=start, out=tuned, metrics=folder / "tuned.json")
    masks = {"train": {**train, "lr": 0.1}, "masks": {}, "adversary": {"steps": 3}, "keep_epochs": [2]}
    files = {"scores": folder / "scores", "metrics": folder / "search.json"}
    run("search_robust_ticket", {**plain, **masks}, device, *extra, model=tuned, **files)
    return files["metrics"]


def images(scale: dict[str, Any]) -> dict[str, Any]:
    return {"dataset": "digits", "image_size": scale["size"], "val_images": 128, "train_images": scale["images"]}


def measure(pipeline: Any, scale: dict[str, Any], variant: str, folder: Path, device: str) -> dict[str, Any]:
    import torch

    several = "processes" in variant
    compute = {"sync_batchnorm": True} if several else COMPUTE[variant]
    folder.mkdir(parents=True)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    RATES.last, begun = 0.0, time.perf_counter()
    epochs = json.loads(
        pipeline(scale, compute, folder, device, *(("--processes", "2") if several else ())).read_text()
    )["epochs"]
    last = {k: v for k, v in epochs[-1].items() if k == "loss" or k.startswith("val_")}
    batch = 32 if pipeline is robust else scale["batch"]
    found = {"metrics": last, "wall_seconds": round(time.perf_counter() - begun, 2)}
    if not several:  # those of other processes are not seen here
        found["examples_per_second"] = round(RATES.last * batch, 1)
        found["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1) if device != "cpu" else None
    return found


def outside(ours: dict[str, float], reference: dict[str, float], variant: str) -> list[str]:
    """What differs by more than the tolerance."""
    relative, points = TOLERANCE[variant]
    allowed = {k: relative * abs(v) if k == "loss" else points for k, v in reference.items()}
    return [
        f"{k} {ours[k]:.4g}, on the CPU {v:.4g}" for k, v in reference.items() if not abs(ours[k] - v) <= allowed[k]
    ]


def main() -> int:
    global SCRATCH, RATES
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; its rates mean nothing")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try this script itself")
    parser.add_argument("--json", type=Path, help="write the report here")
    args = parser.parse_args()
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no GPU")
        return 0
    RATES = Rates()
    logging.getLogger("winnow").addHandler(RATES)
    scale = QUICK if args.quick else FULL
    several = ["float32, 2 processes"] if args.device == "cuda" and torch.cuda.device_count() > 1 else []
    name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "scale": scale, "tolerance": TOLERANCE}
    failures = []
    with tempfile.TemporaryDirectory(prefix="winnow-gpu-") as temporary:
        SCRATCH = Path(temporary) / "scratch"
        for pipeline in (imp, robust, gems):
            reference = measure(pipeline, scale, "float32", Path(temporary) / pipeline.__name__ / "cpu", "cpu")
            runs = {"cpu float32": reference}
            for variant in [*COMPUTE, *several]:
                found = measure(pipeline, scale, variant, Path(temporary) / pipeline.__name__ / variant, args.device)
                runs[f"{args.device} {variant}"] = found
                failures += [
                    f"{pipeline.__name__}, {variant}: {f}"
                    for f in outside(found["metrics"], reference["metrics"], variant)
                ]
            report[pipeline.__name__] = runs
            for label, found in runs.items():
                shown = "  ".join(f"{k} {v:.4g}" for k, v in found["metrics"].items())
                speed = f"{found.get('examples_per_second', '-')} examples/s, {found.get('peak_mib', '-')} MiB"
                print(f"{pipeline.__name__:7} {label:28} {shown}  {speed}")
    if args.json:
        args.json.write_text(json.dumps({**report, "outside": failures}, indent=1, sort_keys=True) + "\n")
    print("\n".join(f"outside the tolerance: {f}" for f in failures) or "all within the tolerance")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
