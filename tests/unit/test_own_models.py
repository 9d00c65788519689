"""Networks of one's own, timm's and Hugging Face's; which layers are pruned; what is said where few weights are."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from winnow import Ticket, WinnowError
from winnow.artifacts import read_metadata
from winnow.config.architectures import unknown
from winnow.config.notices import few_pruned
from winnow.config.parts import Model
from winnow.vision import models

NET = """
import torch
from torch import nn


class MyNet(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.body = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.body(self.stem(x).mean((2, 3))))
"""
DATA = {"dataset": "digits", "classes": [0, 1, 2, 3], "val_images": 20, "train_images": 40, "test_images": 20}
TRAIN = {"epochs": 1, "batch_size": 20, "lr": 0.05}


def through_imp_and_transfer(folder, model, run_stage) -> Ticket:
    """Pre-training, a cut, a round of IMP, a transfer: the ticket."""
    job = {"data": DATA, "train": TRAIN, "compute": {}, "seed": 0}
    f = {
        n: folder / n
        for n in ("dense.safetensors", "one.mask.safetensors", "trained.safetensors", "best.safetensors", "m.json")
    }
    dense, ticket, trained, best, metrics = f.values()
    assert run_stage("pretrain", {**job, "method": "std", "model": model}, out=dense, metrics=metrics)[0] == 0
    cut = {"method": "magnitude", "remaining_percent": 50.0}
    assert run_stage("prune", cut, weights=dense, out=ticket)[0] == 0
    assert run_stage("train", {**job, "keep": "last"}, init=dense, mask=ticket, out=trained, metrics=metrics)[0] == 0
    down = {**job, "data": {**DATA, "classes": [4, 5, 6]}}
    assert run_stage("transfer", down, init=trained, mask=ticket, best_sa=best, metrics=metrics)[0] == 0
    return Ticket.load(ticket)


def test_a_class_in_a_file_goes_through_imp_and_transfer(tmp_path, run_stage):
    (tmp_path / "nets.py").write_text(NET)
    model = {"arch": f"python:{tmp_path}/nets.py:MyNet", "layers": {"kinds": ["conv", "linear"]}}
    ticket = through_imp_and_transfer(tmp_path, model, run_stage)
    assert set(ticket.arrays) == {"stem.weight", "body.0.weight", "body.2.weight"}
    assert ticket.remaining_percent == pytest.approx(50, abs=0.2)
    before = read_metadata(tmp_path / "dense.safetensors")["model"]["code"]
    (tmp_path / "nets.py").write_text(NET.replace("GELU", "ReLU"))
    assert Model(arch=model["arch"]).code != before  # other code, other configuration: its jobs are stale
    with pytest.raises(WinnowError, match="has changed since this job was planned"):
        models.build(Model(arch=model["arch"], code=before), 4)


def test_hugging_face_s_convnext_by_its_config(tmp_path, run_stage):
    config = {"model_type": "convnext", "architectures": ["ConvNextForImageClassification"], "num_channels": 3, "patch_size": 2,
              "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 8}  # fmt: skip
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/config.json").write_text(json.dumps(config))
    model = {"arch": f"hf:{tmp_path}/hf", "layers": {"kinds": ["conv", "linear"], "exclude": ["*embeddings*"]}}
    ticket = through_imp_and_transfer(tmp_path, model, run_stage)
    assert any("pwconv" in n for n in ticket.arrays) and not any("embeddings" in n or "classifier" in n for n in ticket.arrays)


@pytest.mark.skipif(unknown("timm:x") is not None, reason="timm is not installed")
def test_timm_s_vit(tmp_path, run_stage):
    model = {"arch": "timm:vit_tiny_patch16_224", "layers": {"kinds": ["conv", "linear"]}}
    assert through_imp_and_transfer(tmp_path, model, run_stage).total > 5e6


@pytest.mark.parametrize(
    ("arch", "said"),
    [("python:nets.py:MyNett", "did you mean 'MyNet'"), ("python:gone.py:MyNet", "No such file"), ("timm:vit", "pip install timm"),
     ("hf:here", "folder without config.json"), ("resnet5", "did you mean 'resnet50'|did you mean 'resnet56'")],
)  # fmt: skip
def test_what_nobody_knows_is_said_before_any_job(tmp_path, monkeypatch, arch, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NET)
    (tmp_path / "here").mkdir()
    if arch.startswith("timm") and unknown(arch) is None:
        pytest.skip("timm is installed")
    import re

    assert re.search(said, unknown(arch) or "")


def test_code_that_fails_is_one_line(tmp_path):
    (tmp_path / "nets.py").write_text("def MyNet(num_classes):\n    return 1 / 0\n")
    with pytest.raises(WinnowError, match=r"MyNet: ZeroDivisionError: division by zero"):
        models.build(Model(arch=f"python:{tmp_path}/nets.py:MyNet"), 3)
    (tmp_path / "nets.py").write_text("MyNet = lambda n: 5\n")
    with pytest.raises(WinnowError, match="gives a int, not a torch module"):
        models.build(Model(arch=f"python:{tmp_path}/nets.py:MyNet"), 3)


def test_a_vit_pruned_at_its_convolution_alone_is_said_before_any_job_and_in_the_job(tmp_path, capsys):
    text = few_pruned(Model(arch="vit_b_16"))
    assert text is not None and "1 weights to prune hold 0.6" in text
    assert few_pruned(Model(arch="vit_b_16", layers={"kinds": ["conv", "linear"]})) is None
    code = "import sys; from winnow.config.notices import few_pruned; from winnow.config.parts import Model; few_pruned(Model(arch='resnet50')); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_layers_are_what_was_pruned_before_by_default():
    for arch in ("resnet8", "resnet18", "conv4"):
        network = models.build(Model(arch=arch), 4)
        convolutions = [f"{n}.weight" for n, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)]
        assert models.prunable(network) == convolutions
