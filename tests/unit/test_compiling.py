"""Compiled stages: once a frame and mode, within the limit, told in the log; what does not compile refuses the
setting.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import ATTACK, DIGITS, MODEL, ROOT, TRAIN

from winnow.config.parts import Compute, Model
from winnow.config.pruning import Prune
from winnow.config.root import load
from winnow.errors import WinnowError
from winnow.gems.finetune import recalibrate
from winnow.pipelines.double_win import grid as dw
from winnow.pipelines.rare_gems import grid as rg
from winnow.schema import parse
from winnow.train.compiling import LIMIT, counts

# Frames are traced and guarded as ever, but run by torch itself: a compiler of kernels would take minutes here
SCRIPT = """
import sys, torch
compile_ = torch.nn.Module.compile
torch.nn.Module.compile = lambda self: compile_(self, backend="eager")
from winnow.stages.{stage} import stage
sys.exit(stage.run())
"""


def run(stage, config, folder, **files):
    words = [w for name, path in files.items() for w in (f"--{name}", str(folder / path))]
    arguments = ["--config", json.dumps(config), "--device", "cpu", "--scratch", str(folder / "scratch"), *words]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(stage=stage), *arguments],
        capture_output=True, text=True, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [
        tuple(map(int, found))
        for found in re.findall(r"torch.compile: (\d+) frames, (\d+) recompilations", done.stderr)
    ]


@pytest.mark.timeout(600)
def test_epochs_after_the_first_compile_nothing_and_the_log_tells(tmp_path):
    """Adversarial training with a smaller last batch: training and evaluation mode, gradients of weights, of images and
    of none.
    """
    config = {
        "data": DIGITS | {"train_images": 56},
        "train": TRAIN | {"epochs": 3},
        "compute": {"compile": True},
        "seed": 0,
    }
    told = run(
        "pretrain", config | {"method": "adv", "attack": ATTACK, "model": MODEL}, tmp_path, out="dense", metrics="m"
    )
    assert len(told) == 3 and told[0][0] >= 1
    assert told[1] == told[2], told
    assert told[2][1] < LIMIT


def test_recalibration_compiles_nothing():
    """Each of its passes has another momentum, for which the model would be compiled anew."""
    from winnow.vision.models import build

    torch.manual_seed(0)
    model = build(Model(**MODEL), 3)
    twin = copy.deepcopy(model)
    model.compile(backend="eager")
    batches = SimpleNamespace(epoch=lambda _: [(torch.rand(4, 3, 8, 8) + k, None) for k in range(5)])
    before = counts()
    for net in (model, twin):
        torch.manual_seed(1)
        recalibrate(net, batches)
    assert counts() == before
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    model(torch.rand(4, 3, 8, 8))
    assert counts()[0] > before[0]  # the counter counts


def test_only_what_trains_is_compiled():
    config = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())
    for section in ("double_win", "rare_gems"):
        config[section]["compute"] = {"compile": True}
    root = load(config)
    double, gems = root.double_win, root.rare_gems
    trained = [
        dw.dense(double, "std", "0"),
        dw.imp_train(double, "std", "0"),
        dw.transfer(double, "down", "100", "adv", "0"),
    ]
    trained += [rg.finetune(gems, "tiny", "gem", "0"), rg.imp_train(gems, "tiny", "imp", "1", "0")]
    assert all(job.compute.compile for job in trained)
    others = [
        dw.evaluate(double, "down", "0"),
        dw.autoattack(double, "down", "0"),
        rg.prune(gems, "tiny", "snip", "10", "0"),
    ]
    others += [rg.search(gems, "tiny", "gem", "10", "search", "0")]
    assert not any(job.compute.compile for job in others)
    for job in others:  # by hand: refused, and not silently left out
        with pytest.raises(WinnowError, match=r"compute.compile: .* runs uncompiled; set it to false"):
            parse(type(job), job.model_dump() | {"compute": Compute(compile=True).model_dump()})


def test_sensitivity_scores_refuse_to_be_compiled():
    with pytest.raises(WinnowError, match=r"compute.compile: pruning runs uncompiled"):
        parse(Prune, {"method": "grasp", "remaining_percent": 10, "compute": {"compile": True}})
