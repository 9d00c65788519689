"""The comparison on the library's page: the blocks do the same task, and take the lines that the table says."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import ROOT
from torch import nn

import winnow

PAGE = (ROOT / "docs/library.md").read_text(encoding="utf-8")


@pytest.fixture
def names():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 16), nn.Linear(16, 2)
    )
    loader = [(torch.rand(8, 3, 8, 8), torch.arange(8) % 2) for _ in range(3)]

    def train(network, batches):
        optimizer = torch.optim.SGD(network.parameters(), 0.05)
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()

    return {"winnow": winnow, "model": model, "loader": loader, "train": train}


def test_both_give_the_same_network(names):
    section = PAGE[PAGE.index("## Beside other libraries") :]
    ours, theirs = re.findall(r"```python\n(.*?)```", section, flags=re.S)
    exec(ours, names)
    exec(theirs, names)
    names["handle"].check()
    one, two = (names[n].state_dict() for n in ("ours", "theirs"))
    assert set(one) == set(two)
    assert all(torch.equal(one[k] != 0, two[k] != 0) and torch.allclose(one[k], two[k], atol=1e-6) for k in one)
    assert sum(int((one[k] != 0).sum()) for k in ("0.weight", "2.weight", "4.weight")) == round(
        0.1 * (216 + 576 + 2048)
    )


def test_what_the_page_says_of_networks_parses():
    from winnow.config.parts import Model
    from winnow.schema import parse

    yaml = pytest.importorskip("yaml")
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/models.md").read_text(encoding="utf-8"), flags=re.S)
    lines = [*blocks[0].splitlines(), blocks[1]]
    found = [parse(Model, yaml.safe_load(line)["model"]) for line in lines]
    assert [m.arch.partition(":")[0] for m in found] == ["python", "timm", "hf", "vit_b_16"]
    assert found[-1].layers.exclude == ["conv_proj.*"]
