"""torch.compile in the stages that train: what the first step costs, in the first job and in one that finds its work.

Pre-training of a ResNet-8, standard and against PGD-2, two epochs with a smaller last batch and held-out accuracy, as
processes of their own: compiled in an empty scratch folder, compiled again in another folder's job with the same
scratch, uncompiled, and uncompiled without folded normalisations in its attacks. Tells first steps, the median of the
second epoch's steps, and how often was compiled. On a CPU about five minutes; needs a C++ compiler.

    python -m bench.compiling [--device cpu] [--threads 1] [--arch resnet8] [--size 8]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.common import Run, arguments, measured
from bench.workflow import seconds
from winnow.train.compiling import LIMIT

PROBE = """
import contextlib, json, sys, time
import winnow.train.loop as loop, winnow.vision.attack as attack
if "--unfolded" in sys.argv:
    sys.argv.remove("--unfolded")
    attack.folded = lambda model: contextlib.nullcontext()
step, times = loop._one_step, []
def timed(*args):
    begun = time.perf_counter()
    step(*args)
    if args[0].epoch_loss.device.type == "cuda":
        __import__("torch").cuda.synchronize()
    times.append(time.perf_counter() - begun)
loop._one_step = timed
from winnow.stages.pretrain import stage
code = stage.run()
from winnow.train.compiling import counts
print(json.dumps({"steps": times, "frames": counts()[0], "again": counts()[1], "seconds": counts()[2]}))
sys.exit(code)
"""
WAYS = ("compiled first", "compiled again", "folded", "unfolded")


def configuration(method: str, compiled: bool, args: Any) -> dict[str, Any]:
    """Batches of 32 and a last one of 8."""
    steps = {"attack": {"eps": 0.1, "step_size": 0.05, "steps": 2}} if method == "adv" else {}
    return {
        "method": method, "seed": 0, "model": {"arch": args.arch},
        "data": {"dataset": "digits", "val_images": 32, "train_images": 200, "image_size": args.size},
        "train": {"epochs": 2, "batch_size": 32, "lr": 0.05},
        "compute": {"threads": args.threads, "compile": compiled}, **steps,
    }  # fmt: skip


def job(folder: Path, way: str, method: str, args: Any) -> dict[str, Any]:
    """One stage in a process of its own; what its probe tells."""
    own = folder / way.replace(" ", "_")
    own.mkdir()
    config = json.dumps(configuration(method, way.startswith("compiled"), args))
    files = [
        "--out",
        str(own / "a.safetensors"),
        "--metrics",
        str(own / "a.json"),
        "--scratch",
        str(folder / "scratch"),
    ]
    words = ["--config", config, "--device", args.device, *files, *(["--unfolded"] if way == "unfolded" else [])]
    return json.loads(seconds([sys.executable, "-c", PROBE, *words], cwd=own)[1].splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    args = arguments(__doc__, argv, arch={"default": "resnet8"}, size={"type": int, "default": 8})
    run = Run("compiling", args)
    for method in ("std", "adv"):
        with tempfile.TemporaryDirectory() as name:
            found = {way: job(Path(name), way, method, args) for way in (WAYS[2:] if args.tiny else WAYS)}
        steps = {way: statistics.median(one["steps"][-6:-1]) for way, one in found.items()}
        case = f"{'PGD-2' if method == 'adv' else 'standard'} training step, {args.arch}, {args.size} pixels"
        for way, value in steps.items():
            run.add(measured(case, way, 1000 * value, "ms"))
        if not args.tiny:
            first, again = (found[way]["steps"][0] for way in WAYS[:2])
            run.add(
                measured(case, "first step of the first job", first, "s"),
                measured(case, "first step of a second job, share of the first's", again / first, "", 0.25),
                measured(
                    case, f"recompilations of {found[WAYS[0]]['frames']} frames", found[WAYS[0]]["again"], "", LIMIT
                ),
            )
    run.write()


if __name__ == "__main__":
    main()
