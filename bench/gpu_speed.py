"""What a GPU gets out of the stages that take a grid's hours: examples a second, and what stands in their way.

Each case runs a stage for two epochs, by the command that the workflow runs, on images (texts) made here, and the plain
loop that the stage stands for: the same network in channels_last, the same precision and optimiser, one batch that lies
on the device (for a gem's search: training of the weights). Printed are

    examples/s      of the second epoch, and the ratio to the plain loop
    waiting %       of that epoch spent waiting for data
    of peak %       multiply-accumulates of the training (winnow.pipelines.cost) over those of one large matrix product
    in that precision first epoch s   beyond the second's: allocation, choice of kernels, compiling
    peak MiB        largest allocation

    python -m bench.gpu_speed [--device cuda] [--tiny] [--json FILE]      exits with 0 and "skipped" where there is no
    GPU
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from winnow.config.parts import Model
from winnow.pipelines.cost import NETWORKS

COMPUTE = {"float32": {"precision": "float32"}, "tf32": {"precision": "tf32"}, "bf16": {"precision": "bf16"}}
COMPILED = {"bf16 compiled": {"precision": "bf16", "compile": True}}
PGD3 = {"eps": 8 / 255, "step_size": 16 / 765, "steps": 3}
FULL = {"arch": "resnet50", "side": 224, "images": 4096, "batch": 256}
TINY = {"arch": "resnet8", "side": 16, "images": 96, "batch": 16}


def image_set(folder: Path, scale: dict[str, Any]) -> dict[str, Any]:
    """Noise in ten classes, as arrays that lie on the device."""
    import numpy as np

    generator = np.random.default_rng(0)
    made = {}
    for split, count in (("train", scale["images"] + 64), ("test", 64)):
        made[f"{split}_images"] = generator.integers(0, 256, (count, scale["side"], scale["side"], 3), dtype=np.uint8)
        made[f"{split}_labels"] = np.arange(count) % 10
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "noise.npz", **made)
    return {"dataset": "npz", "path": "noise.npz", "val_images": 64, "train_crop": "resized", "flip": True}


def stage(name: str, config: dict[str, Any], folder: Path, device: str, **files: str) -> dict[str, Any]:
    """The metrics of a stage that runs in this process."""
    words = [w for key, path in files.items() for w in (f"--{key}", str(folder / path))]
    arguments = [
        "--config",
        json.dumps(config),
        "--device",
        device,
        "--log-level",
        "warning",
        "--scratch",
        str(folder / "scratch"),
    ]
    code = importlib.import_module(f"winnow.stages.{name}").stage.run([*arguments, "--data-root", str(folder), *words])
    if code:
        sys.exit(code)
    return json.loads((folder / files["metrics"]).read_text())


def plain_rate(scale: dict[str, Any], compute: dict[str, Any], attack: dict[str, Any] | None, device: str) -> float:
    """Examples a second of the loop that one would write by hand."""
    import torch
    from torch.nn import functional as F

    from winnow.vision.models import build

    model = build(Model(arch=scale["arch"]), 10).to(device=device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x = torch.rand(scale["batch"], 3, scale["side"], scale["side"], device=device).contiguous(
        memory_format=torch.channels_last
    )
    y = torch.arange(scale["batch"], device=device) % 10
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = compute["precision"] == "tf32"

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=compute["precision"] == "bf16"):
            seen = x
            if attack:
                model.eval()
                delta = torch.zeros_like(x)
                for _ in range(attack["steps"]):
                    delta.requires_grad_(True)
                    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x + delta), y), delta)
                    moved = (delta.detach() + attack["step_size"] * gradient.sign()).clamp(
                        -attack["eps"], attack["eps"]
                    )
                    delta = (x + moved).clamp(0, 1) - x
                model.train()
                seen = x + delta
            loss = F.cross_entropy(model(seen), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return scale["batch"] / seconds_of(step, device, repeats=max(3, scale["images"] // scale["batch"]))


def seconds_of(work: Callable[[], Any], device: str, repeats: int) -> float:
    """Mean wall time, the first three left out."""
    import torch

    for _ in range(3):
        work()
    synchronize = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    synchronize()
    begun = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize()
    return (time.perf_counter() - begun) / repeats


def peak(compute: dict[str, Any], device: str, side: int) -> float:
    """TMAC a second of one large matrix product."""
    import torch

    dtype = torch.bfloat16 if compute["precision"] == "bf16" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = compute["precision"] == "tf32"
    a = torch.ones(side, side, dtype=dtype, device=device)
    return side**3 * 1e-12 / seconds_of(lambda: a @ a, device, 10)


def measure(case: str, scale: dict[str, Any], compute: dict[str, Any], folder: Path, device: str) -> dict[str, Any]:
    import torch

    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    attack = PGD3 if case == "pgd3" else None
    train = {"epochs": 2, "batch_size": scale["batch"], "lr": 0.01}
    config = {
        "data": image_set(folder, scale),
        "train": train,
        "compute": {**compute, "deterministic": False},
        "seed": 0,
    }
    model = {"arch": scale["arch"]}
    if case == "gem":
        init = {"model": model, "init": {"init": "signed_constant"}, "data": config["data"], "seed": 0}
        arguments = [
            "--config",
            json.dumps(init),
            "--data-root",
            str(folder),
            "--device",
            "cpu",
            "--log-level",
            "warning",
        ]
        if code := importlib.import_module("winnow.stages.gem_init").stage.run(
            [*arguments, "--out", str(folder / "init")]
        ):
            sys.exit(code)
        search = {"algo": "hc_iter", "target_sparsity": 20, "iter_period": 1, "lmbda": 1e-6, "regularization": "L2"}
        found = stage(
            "gem_search", {**config, "search": search}, folder, device, init="init", out="t", order="o", metrics="m"
        )
    else:
        method = {"method": "adv" if attack else "std", "attack": attack, "model": model}
        found = stage("pretrain", {**config, **method}, folder, device, out="w", metrics="m")
    first, second = found["run"]["epochs"][:2]
    macs, side, _ = NETWORKS[scale["arch"]]
    passes = 3 + 2 * (attack or {"steps": 0})["steps"]
    rate = second["examples_per_second"]
    done = rate * passes * macs * 1e-6 * (scale["side"] / side) ** 2
    return {
        "examples_per_second": rate,
        "plain_examples_per_second": round(plain_rate(scale, compute, attack, device), 1),
        "waiting_percent": second["waiting_percent"],
        "of_peak_percent": round(100 * done / peak(compute, device, 8192 if cuda else 256), 1),
        "first_epoch_extra_seconds": round(scale["images"] / first["examples_per_second"] - scale["images"] / rate, 2),
        "peak_mib": round(torch.cuda.max_memory_allocated() / 2**20) if cuda else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try this script itself")
    parser.add_argument("--tiny", action="store_true", help="sizes of a test; its rates mean nothing")
    parser.add_argument("--json", type=Path, help="write the report here")
    args = parser.parse_args()
    import torch

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: no GPU")
        return 0
    scale = TINY if args.tiny else FULL
    variants = {"float32": COMPUTE["float32"]} if args.tiny else COMPUTE | COMPILED
    report: dict[str, Any] = {}
    for case, sized in {
        "std": scale,
        "pgd3": scale,
        "gem": scale if args.tiny else {**FULL, "arch": "resnet20", "side": 32},
    }.items():
        for name, compute in variants.items():
            if case == "gem" and "compile" in compute:
                continue  # a search is not compiled
            with tempfile.TemporaryDirectory(prefix="winnow-gpu-") as folder:
                found = report[f"{case} {name}"] = measure(case, sized, compute, Path(folder), args.device)
            ratio = found["examples_per_second"] / found["plain_examples_per_second"]
            print(
                f"{case:5} {sized['arch']}/{sized['side']} {name:14} {found['examples_per_second']:9.1f} examples/s "
                f"({ratio:.2f} x plain)  "
                f"waiting {found['waiting_percent']} %  {found['of_peak_percent']} % of peak  first epoch "
                f"{found['first_epoch_extra_seconds']:+.2f} s  {found['peak_mib'] or '-'} MiB", flush=True,
            )  # fmt: skip
    if args.json:
        device = torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu"
        args.json.write_text(
            json.dumps({"device": device, "torch": torch.__version__, "cases": report}, indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
