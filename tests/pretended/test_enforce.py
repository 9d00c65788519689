"""`winnow.enforce` where the model moves to a device, and back: the pretended one, which lets no tensors of two meet."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT

SCRIPT = """
import copy, sys
import torch
from torch import nn
sys.path.insert(0, sys.argv[1])
import device
import winnow

torch.set_num_threads(1)
device.register()


def train(model, kind):
    optimizer = {"sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-2),
                 "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)}[kind](model.parameters())
    like = next(model.parameters())
    for k in range(3):
        optimizer.zero_grad()
        torch.manual_seed(k)
        x, y = torch.rand(8, 3, 8, 8).to(like.device, like.dtype), (torch.arange(8) % 4).to(like.device)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
state = copy.deepcopy(model.state_dict())
handle = winnow.enforce(model, winnow.prune(model, "magnitude", 30))
with device.counting():
    for where, dtype in (("gpu", torch.float32), ("gpu", torch.float64), ("cpu", torch.float32), ("gpu", torch.float32)):
        model.to(where, dtype)
        assert model[0].weight.device.type == where
        for kind in ("sgd", "adamw"):
            train(model, kind)
            handle.check()
        twin = copy.deepcopy(model)
        train(twin, "adamw")
        alive = int((twin[0].weight.detach() != 0).sum())
        assert 0 < alive == int((model[0].weight.detach() != 0).sum()) < 216, alive
    model.load_state_dict(state)  # of the CPU
    assert model[0].weight.device.type == "gpu"
    handle.check()
print("held")
"""


def test_a_model_that_moves_to_a_device_and_back_is_held():
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "tests/pretended")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "src")})
    assert done.stdout == "held\n", done.stderr[-3000:]
