"""The library's page, its script and its notebook run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import torch
from conftest import ROOT
from torch import nn

import winnow


def test_every_block_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    y = torch.arange(32) % 2
    x = torch.rand(32, 3, 8, 8) * 0.4
    x[y == 1] += 0.5
    loader = [(x[:16], y[:16]), (x[16:], y[16:])]
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))  # fmt: skip

    def train(network, batches):
        optimizer = torch.optim.AdamW(network.parameters(), 0.01)
        for images, labels in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()

    names = {"winnow": winnow, "model": model, "loader": loader, "train": train, "x": x, "y": y}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) >= 5
    for block in blocks:
        exec(block, names)
    assert 0 <= names["percent"] <= 100 and [round(t.removed_percent) for t in names["rounds"]] == [20, 36]


def test_the_script_is_short_and_runs(tmp_path):
    script = ROOT / "examples/train_under_a_ticket.py"
    lines = [line for line in script.read_text().splitlines() if line.strip() and not line.startswith('"""')]
    assert len(lines) <= 15
    done = subprocess.run(
        [sys.executable, str(script), "2"], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert re.fullmatch(r"under attack: \d+\.\d %\n", done.stdout), done.stderr[-2000:]


def test_the_notebook_runs():
    names: dict = {}
    notebook = json.loads((ROOT / "examples/ticket.ipynb").read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["ticket"].remaining_percent < 31
