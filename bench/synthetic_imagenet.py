"""A synthetic ImageNet through the workflow: 1,000 classes, 20,000 training images packed at 256 pixels.

FOLDER holds the photographs: imagenet_sample_1000_64px.npz (one of each class) and
tiny_imagenet_subset_jpegbytes_8k_2k.npz (8,000 others, which the ticket is transferred to as well). An image is a cut
of its class's photograph, laid over a cut of another photograph or of scikit-learn's two.

ResNet-18 at 64-pixel crops: pre-training, two rounds of IMP with `micro_batch`, one transfer and its evaluation. Then
pre-training and the second round again, each killed (SIGKILL, with snakemake and all) after its first checkpoint and
run again: they must end with the same bytes. Prints the share of each epoch that waited for data, and CPU seconds and
peak memory of every step. At most 20 minutes of one core, 5 GB of disk.

    python -m bench.synthetic_imagenet FOLDER [--work FOLDER] [--images 20] [--classes 1000]
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from bench.workflow import ROOT
from winnow.artifacts import read_json, sha256_file
from winnow.launch import JOB_ENVIRONMENT

CHAIN = "results/double_win/synthetic/std/s0"
DENSE, SECOND = f"{CHAIN}/dense.safetensors", f"{CHAIN}/trained/imp-std-2.safetensors"
EVALUATION = f"{CHAIN}/transfer/tiny/100/imp-std-2/std/s0/evaluation.json"
TINY, SAMPLE = "tiny_imagenet_subset_jpegbytes_8k_2k.npz", "imagenet_sample_1000_64px.npz"


def photographs(given: Path, out: Path, classes: int, images: int) -> None:
    """`images` training images and one test image of each class, JPEG files of 320x280 in ImageNet's layout."""
    with np.load(given / SAMPLE) as stored:
        own, names = stored["x"][:classes], stored["wnid"][:classes]
    with np.load(given / TINY) as stored:
        data, offsets = stored["train_jpeg"], stored["train_offsets"]
    spec = importlib.util.find_spec("sklearn")
    large = [
        Image.open(Path(spec.submodule_search_locations[0]) / "datasets/images" / n).convert("RGB")
        for n in ("china.jpg", "flower.jpg")
    ]
    rng = np.random.default_rng(0)
    for pixels, name in zip(own, names, strict=True):
        photograph = Image.fromarray(pixels)
        for number in range(images + 1):
            split = "train" if number < images else "val"
            which = int(rng.integers(len(offsets) + 99))  # one background in a hundred is a large photograph
            if which < len(offsets) - 1:
                behind = Image.open(io.BytesIO(data[offsets[which] : offsets[which + 1]].tobytes())).convert("RGB")
            else:
                behind = large[which % 2]
            made = Image.blend(_cut(photograph, rng, 48), _cut(behind, rng, 48), 0.4)
            path = out / split / str(name) / f"{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            made.save(path, quality=85)


def _cut(image: Image.Image, rng: np.random.Generator, least: int) -> Image.Image:
    """A random cut of an image, 320x280 in size."""
    width = int(rng.integers(least, image.width + 1))
    height = int(rng.integers(least * 7 // 8, image.height + 1))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.resize((320, 280), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))


def configuration(classes: int, precision: str) -> dict[str, object]:
    """Pre-training, two rounds with accumulation, one transfer; epochs as few as can be."""
    batch = {"batch_size": 256, "weight_decay": 1e-4}
    pgd = {"eps": "4/255", "step_size": "2/255", "steps": 2}
    common = {"image_size": 64, "train_crop": "resized", "flip": True, "test_resize": 72}
    return {
        "workers": 0, "device": "cpu", "checkpoint_seconds": 5,
        "double_win": {
            "seeds": [0],
            "compute": {"threads": 1, "precision": precision},
            "source": {
                "name": "synthetic",
                "data": {"dataset": "packed", "path": "synthetic", **common, "val_images": classes},
                "model": {"arch": "resnet18", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
            },
            "pretrainings": [
                {"name": "std", "method": "std", "train": {"epochs": 1, "lr": 0.1, **batch}, "imp_regimes": ["std"]}
            ],
            "imp": {"rounds": 2, "train": {"epochs": 1, "lr": 0.01, "micro_batch": 64, **batch}},
            "transfer": {"methods": ["dense", "imp"], "rounds": [2]},
            "downstreams": [
                {
                    "name": "tiny",
                    "data": {"dataset": "packed", "path": "tiny", **common, "val_images": 400, "test_images": 200},
                    "std": {"epochs": 1, "lr": 0.05, **batch}, "adv": {"epochs": 1, "lr": 0.05, **batch},
                    "attack": pgd, "evaluation": {"attack": pgd},
                }
            ],
            "tolerance": 1.0,
        },
    }  # fmt: skip


class Measured:
    """Runs commands, and tells what each took."""

    def __init__(self) -> None:
        self.environment = os.environ | JOB_ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}

    def run(self, what: str, *words: str, cwd: Path) -> None:
        """To its end; RuntimeError with its own words when it fails."""
        begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, *words], cwd=cwd, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{what}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{what}: {time.perf_counter() - begun:.0f} s, {cpu:.0f} s of CPU", flush=True)

    def kill(self, what: str, folder: Path, stage: str, *words: str) -> None:
        """Start it, and kill it and all that it started two seconds after the stage's first checkpoint."""
        command = [sys.executable, *words]
        run = subprocess.Popen(
            command, cwd=folder, env=self.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not list(folder.glob(f".winnow/scratch/{stage}-*/current.ckpt")):
            if run.poll() is not None:
                raise RuntimeError(f"{what}: ended before its first checkpoint")
            time.sleep(0.1)
        time.sleep(2)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        print(f"{what}: killed", flush=True)


def snakemake(*words: str) -> list[str]:
    return [
        "-m",
        "snakemake",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--configfile",
        "my.yaml",
        "--cores",
        "1",
        *words,
    ]


def speeds(folder: Path) -> None:
    """What each training and evaluation says of its speed and memory."""
    for path in sorted((folder / CHAIN).rglob("*.json")):
        for epoch in read_json(path).get("run", {}).get("epochs", []):
            speed, waited = epoch["examples_per_second"], epoch["waiting_percent"]
            print(f"  {path.relative_to(folder / CHAIN)}: {speed} images/s, {waited} % of the epoch waiting for data")
    for path in sorted((folder / CHAIN).rglob("*.tsv")):
        names, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
        row = dict(zip(names, values, strict=True))
        print(f"  {path.relative_to(folder / CHAIN)}: {float(row['s']):.0f} s, {row['max_rss']} MB at most")


def again(measured: Measured, calm: Path, folder: Path, stage: str, target: str) -> None:
    """Make `target` again in a copy, killed once; the same bytes, or AssertionError."""
    shutil.copytree(calm, folder, symlinks=True)
    for path in (folder / target, (folder / target).with_suffix(".json")):
        path.unlink()
    only = snakemake("--allowed-rules", "imp_train" if stage == "train" else stage, "--", target)
    measured.kill(f"{stage} again", folder, stage, *only)
    measured.run("unlock", *snakemake("--unlock"), cwd=folder)
    measured.run(f"{stage} gone on with", *only, cwd=folder)
    (log,) = folder.glob(f"{CHAIN}/logs/{'imp_train-std-2' if stage == 'train' else stage}.log")
    resumed = [line for line in log.read_text().splitlines() if "resumed at step" in line]
    assert resumed, f"{log}: did not go on from its checkpoint"
    assert sha256_file(folder / target) == sha256_file(calm / target), f"{target}: other bytes"
    print(f"  {resumed[0]}; {target}: the same bytes, sha256 {sha256_file(folder / target)[:16]}", flush=True)
    shutil.rmtree(folder)


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path, help="where the photographs lie")
    p.add_argument("--work", type=Path, help="an empty folder to work in, kept (a temporary one)")
    p.add_argument("--classes", type=int, default=1000)
    p.add_argument("--images", type=int, default=20, help="training images of a class")
    p.add_argument("--precision", default="bf16", help="of a CPU without bf16 instructions: float32")
    args = p.parse_args(argv)
    work, begun = args.work or Path(tempfile.mkdtemp(prefix="winnow-imagenet-")), time.time()
    work.mkdir(exist_ok=True)
    try:
        measured, given, pack = Measured(), args.folder.resolve(), ("-m", "winnow.stages.pack_images", "--config")
        photographs(given, work / "photographs", args.classes, args.images)
        print(f"{args.classes * (args.images + 1)} JPEG files made: {time.time() - begun:.0f} s", flush=True)
        names = ("--source", "photographs", "--out", "data/synthetic")
        (work / "data").mkdir()
        measured.run("packed at 256 pixels", *pack, '{"image_size": 256}', *names, cwd=work)
        shutil.rmtree(work / "photographs")
        measured.run("tiny packed", *pack, "{}", "--source", str(given / TINY), "--out", "data/tiny", cwd=work)
        calm = work / "calm"
        calm.mkdir()
        (calm / "my.yaml").write_text(yaml.safe_dump(configuration(args.classes, args.precision)))
        (calm / "data").symlink_to("../data")
        measured.run("the workflow", *snakemake(EVALUATION, SECOND), cwd=calm)
        speeds(calm)
        found = read_json(calm / EVALUATION)
        print("  evaluation of the transferred ticket:", {k: v for k, v in found.items() if isinstance(v, float)})
        again(measured, calm, work / "killed", "pretrain", DENSE)
        again(measured, calm, work / "killed", "train", SECOND)
        size = sum(f.stat().st_size for f in (work / "data/synthetic").iterdir()) / 1e9
        print(f"{time.time() - begun:.0f} s in all; the packed set is {size:.1f} GB")
    finally:
        if args.work is None:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
