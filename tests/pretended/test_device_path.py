"""Every stage that computes runs on a GPU without mixing devices, gives the CPU's numbers, and hardly waits.

A step's waits are counted as the difference between two runs of which one has more steps and all else equal. What is
left is named where it is allowed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ATTACK, MODEL, ROOT
from PIL import Image

from winnow.artifacts import read_arrays

DIGITS = {
    "dataset": "digits", "classes": [0, 1, 2], "train_crop": "pad", "crop_padding": 1, "flip": True,
    "val_images": 30, "test_images": 32,
}  # fmt: skip
TRAIN = {"epochs": 1, "batch_size": 12, "lr": 0.05, "weight_decay": 5e-4, "clip_norm": 5.0}
TEXTS = {"dataset": "embedded", "max_length": 24, "val_fraction": 0.1, "test_examples": 20}
TUNE = {"epochs": 1, "batch_size": 16, "optimizer": "adamw", "lr": 5e-4, "clip_norm": 1.0}
NUMERICS = {"compute": {}, "seed": 0}
FEW, MANY = 24, 60  # training images: 2 and 5 steps


def job(stage, config, **files):
    words = [w for name, path in files.items() for w in (f"--{name.replace('_', '-')}", path)]
    return [stage, "--config", json.dumps(config), "--scratch", "scratch", *words]


def images(count, attack=None, **more):
    return {"data": DIGITS | {"train_images": count}, "train": TRAIN, "attack": attack, **NUMERICS} | more


def vision_jobs(count, name):
    search = {"algo": "hc_iter", "target_sparsity": 20, "iter_period": 1}
    gem = {"search": search, "data": DIGITS | {"train_images": count}, "train": TRAIN | {"epochs": 2}, **NUMERICS}
    scored = {"remaining_percent": 50, "images": 20, "data": DIGITS, "compute": {}, "seed": 0}
    return {
        f"pretrain{name}": job(
            "pretrain", images(count, ATTACK, method="adv", model=MODEL), out=f"dense{name}.safetensors",
            metrics="1.json"
        ),
        f"prune{name}": job("prune", {"method": "snip", **scored}, weights="dense.safetensors",
         out="snip.mask.safetensors"),
        f"grasp{name}": job("prune", {"method": "grasp", **scored}, weights="dense.safetensors",
         out="grasp.mask.safetensors"),
        f"train{name}": job(
            "train", images(count, keep="last", measure=True, train=TRAIN | {"micro_batch": 5}),
            init="dense.safetensors", mask="snip.mask.safetensors", out="trained.safetensors", metrics="2.json",
        ),
        f"transfer{name}": job(
            "transfer", images(count, ATTACK), init="dense.safetensors", mask="snip.mask.safetensors",
            best_sa="sa.safetensors", best_ra="ra.safetensors", metrics="3.json",
        ),
        f"gem_search{name}": job("gem_search", gem, init="dense.safetensors", out="gem.mask.safetensors", order="o",
         metrics="4.json"),
        f"edge_popup{name}": job(
            "gem_search", gem | {"search": {"algo": "ep", "target_sparsity": 20}},
            init="dense.safetensors", out="ep.mask.safetensors", order="p", metrics="5.json",
        ),
        f"files{name}": job(
            "pretrain",
            {"data": {"dataset": "imagefolder", "path": f"set{name}", "image_size": 8, "train_crop": "resized",
              "val_images": 4},
             "method": "std", "model": MODEL, "train": TRAIN | {"batch_size": 4}, **NUMERICS},
            out="files.safetensors", metrics="6.json",
        ),
    }  # fmt: skip


def evaluation(batch):
    wanted = {"attack": ATTACK | {"restarts": 2}, "l2_attack": ATTACK | {"norm": "l2"}, "batch_size": batch}
    return job(
        "evaluate", {"data": DIGITS, "evaluation": wanted, **NUMERICS},
        best_sa="sa.safetensors", best_ra="ra.safetensors", metrics=f"evaluated-{batch}.json",
    )  # fmt: skip


def text_jobs(count, name):
    config = {"data": TEXTS | {"train_examples": count}, "train": TUNE, **NUMERICS}
    attack = {"data": TEXTS, "attack": {"recipe": "textfooler", "candidates": "embedded"}, "examples": 2, **NUMERICS}
    return {
        f"finetune_text{name}": job(
            "finetune_text", config | {"adversary": {"steps": 2}}, model="start/model.safetensors",
            out="tuned/model.safetensors", metrics="7.json",
        ),
        f"search_robust_ticket{name}": job(
            "search_robust_ticket", config | {"keep_epochs": [1]}, model="tuned/model.safetensors", scores="scores",
            metrics="8.json",
        ),
        f"attack_text{name}": job("attack_text", attack, model="tuned/model.safetensors", out="rows.jsonl",
         metrics="9.json"),
    }  # fmt: skip


def picture_folder(folder: Path, training: int) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", training + 4), ("val", 4)):
        for k in range(count):
            path = folder / split / "ab"[k % 2] / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (12, 10 + k % 3, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """Name of each run -> what was counted; all in one process, for the device is registered for good."""
    folder = tmp_path_factory.mktemp("pretended")
    picture_folder(folder / "data/set", 8)
    picture_folder(folder / "data/set-more", 20)
    start = {
        "data": TEXTS | {"train_examples": 40},
        "model": {"source": "tiny", "layers": 1, "hidden": 16, "heads": 2},
        "seed": 0,
    }
    runs = (
        vision_jobs(FEW, "") | vision_jobs(MANY, "-more") | {"evaluate": evaluation(16), "evaluate-more": evaluation(8)}
    )
    runs |= {"start": job("import_text_model", start, out="start/model.safetensors")}
    runs |= text_jobs(40, "") | text_jobs(88, "-more")
    script = [sys.executable, str(ROOT / "tests/pretended/stages.py")]
    done = subprocess.run(script, input=json.dumps(list(runs.values())), capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, dict(zip(runs, json.loads(done.stdout.splitlines()[-1]), strict=True))


def more_waits(counted, name) -> dict[str, int]:
    """Line -> how much oftener the longer run waited there."""
    few, many = ({f"{line} ({what})": n for what, line, n in counted[1][f"{name}{s}"]["waits"]} for s in ("", "-more"))
    return {line: many.get(line, 0) - few.get(line, 0) for line in few | many if many.get(line, 0) != few.get(line, 0)}


def test_every_stage_ends_well_and_computes_there(counted):
    for name, found in counted[1].items():
        assert found["code"] == 0, name
        assert found["operations"] > 100 or name == "start", name


@pytest.mark.parametrize("name", ["pretrain", "train", "transfer", "gem_search", "edge_popup"])
def test_a_step_on_arrays_never_waits(counted, name):
    assert more_waits(counted, name) == {}


def test_a_step_on_files_waits_once_at_most(counted):
    found = more_waits(counted, "files")
    assert sum(found.values()) <= 3, found  # 2 steps of 4 images against 5


@pytest.mark.parametrize(("name", "passes"), [("finetune_text", 2), ("search_robust_ticket", 5)])
def test_a_step_on_texts_waits_once_a_forward_pass_where_transformers_looks_at_the_mask(counted, name, passes):
    found = more_waits(counted, name)
    where = ("text/freelb.py", "text/models.py")  # of the forward pass under attack
    assert all(line.startswith(where) and "number" in line for line in found) and sum(found.values()) == 3 * passes, (
        found
    )


def test_an_evaluation_waits_for_each_measurement_of_a_batch(counted):
    """2 checkpoints of 32 images in batches of 16, then of 8: four batches more. Clean accuracy is read once; an attack
    looks at the pixels, and after each start at what withstood it, then counts."""
    found = more_waits(counted, "evaluate")
    clean, attacks = 4, 2 * (1 + 2 + 0) + 2 * (1 + 2 + 0) + 2 * (1 + 1 + 0)
    assert sum(found.values()) <= clean + attacks, found


def test_numbers_are_those_of_the_cpu(counted, run_stage, tmp_path):
    """The same kernels under another device's rules: what takes another way there (sorting, moving images) must come
    out the same.
    """
    config = images(FEW, ATTACK, method="adv", model=MODEL)
    assert run_stage("pretrain", config, out=tmp_path / "cpu.safetensors", metrics=tmp_path / "m.json")[0] == 0
    expected = read_arrays(tmp_path / "cpu.safetensors")
    for name, value in read_arrays(counted[0] / "dense.safetensors").items():
        assert np.allclose(value, expected[name], atol=1e-6), name


def test_mixed_devices_are_an_error():
    """The device's own rule, without which the tests above would show nothing."""
    script = (
        "import device, torch; device.register()\nwith device.counting() as ledger:\n    there, here = "
        "torch.ones(3).to('gpu'), torch.ones(3)\n    assert float((there * 2).sum()) == 6 and (there + "
        "torch.tensor(1.0)).device.type == 'gpu'\n"
        "    assert sum(ledger.waits.values()) == 2, ledger.waits\n"  # the copy and the number
        "    here.pin_memory().to('gpu', non_blocking=True)\n    assert sum(ledger.waits.values()) == 2\n    try: "
        "there + here\n    except device.MixedDevicesError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.stdout == "refused\n", done.stderr[-2000:]
