"""How tickets and trained networks relate: overlap against drawn masks, paths against networks whose path is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import DIGITS, TRAIN
from torch import nn

from winnow.errors import WinnowError
from winnow.relations.overlap import overlap
from winnow.relations.path import barrier, instability, path, sharpness
from winnow.ticket import Ticket


def drawn(rng, kept):
    """Masks with exact counts in layers of 40 and 300 weights."""
    arrays = {}
    for name, (size, count) in {"a": (40, kept), "b": (300, 3 * kept)}.items():
        mask = np.zeros(size, bool)
        mask[rng.choice(size, count, replace=False)] = True
        arrays[name] = mask
    return Ticket(arrays)


def test_chance_is_what_random_masks_show():
    rng = np.random.default_rng(0)
    seen = [overlap(drawn(rng, 8), drawn(rng, 12)) for _ in range(2000)]
    for i, row in enumerate(seen[0]):
        both = np.array([rows[i]["kept_by_both"] for rows in seen])
        mean = 2 * row["jaccard_by_chance"] / (1 + row["jaccard_by_chance"]) * (row["kept"] + row["kept_other"]) / 2
        assert both.mean() == pytest.approx(mean, rel=0.03)
        deviations = np.array([rows[i]["deviations"] for rows in seen])
        assert abs(deviations.mean()) < 0.1 and deviations.std() == pytest.approx(1.0, abs=0.06)


def test_equal_and_disjoint_masks():
    one = Ticket({"a": np.arange(10) < 4, "b": np.arange(6) < 3})
    rows = overlap(one, Ticket({"a": np.arange(10) < 4, "b": np.arange(6) >= 3}))
    assert [r["jaccard"] for r in rows] == [1.0, 0.0, 4 / 10]
    assert rows[0]["deviations"] == pytest.approx(2.4 / np.sqrt(1.6 * 36 / 90)) and rows[1]["deviations"] < -1.5
    spreads, by_chance = [1.6 * 36 / 90, 1.5 * 9 / 30], [1.6, 1.5]  # hypergeometric, layer by layer
    assert rows[2]["deviations"] == pytest.approx((4 - sum(by_chance)) / np.sqrt(sum(spreads)))
    assert rows[2]["jaccard_by_chance"] == pytest.approx(3.1 / (14 - 3.1))
    single = overlap(Ticket({"a": np.array([True])}), Ticket({"a": np.array([True])}))
    assert all(np.isnan(r["deviations"]) and r["jaccard"] == r["jaccard_by_chance"] == 1.0 for r in single)
    nothing = overlap(Ticket({"a": np.zeros(3, bool)}), Ticket({"a": np.zeros(3, bool)}))
    assert all(np.isnan(r["jaccard"]) for r in nothing)
    with pytest.raises(WinnowError, match="c is not the same weight in both"):
        overlap(one, Ticket({"a": one.arrays["a"], "b": one.arrays["b"], "c": np.ones(2, bool)}))
    with pytest.raises(WinnowError, match="b is not the same weight in both"):
        overlap(one, Ticket({"a": one.arrays["a"], "b": np.ones(5, bool)}))


class Number(nn.Module):
    def __init__(self, *values):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(values))


def hill(network):
    """Loss 1 - w^2, accuracy 100 w^2: worst in the middle between -1 and 1."""
    square = float((network.weight**2).mean())
    return {"loss": 1 - square, "acc": 100 * square}


def test_the_barrier_of_a_known_hill():
    rows = path(Number(-1.0), Number(1.0), 5, hill)
    assert [r["at"] for r in rows] == [0, 0.25, 0.5, 0.75, 1]
    assert [r["loss"] for r in rows] == pytest.approx([0, 0.75, 1, 0.75, 0])
    assert barrier(rows, "loss") == pytest.approx(1.0) and instability(rows, "acc") == pytest.approx(100.0)
    assert barrier(rows, "acc", higher_is_worse=False) == pytest.approx(100.0) and barrier(rows, "acc") == 0.0
    counted = []
    path(Number(-1.0), Number(1.0), 3, lambda m: counted.append(1) or hill(m), sampled=True, draws=4)
    assert len(counted) == 1 + 4 + 1  # both ends are known without drawing
    rows = path(Number(-0.5), Number(1.0), 4, hill)  # errors 75, 100, 75 and 0
    assert instability(rows, "acc") == pytest.approx(100.0 - 37.5)
    down = path(Number(0.0), Number(1.0), 5, lambda m: {"loss": float(m.weight), "acc": 0.0})
    assert barrier(down, "loss") == pytest.approx(0.0)  # a slope is no barrier
    with pytest.raises(WinnowError, match="not the same parameters in both"):
        path(Number(0.0), Number(0.0, 1.0), 3, hill)


def test_a_sampled_path_takes_whole_weights():
    one, other = Number(*[-1.0] * 1000), Number(*[1.0] * 1000)
    rows = path(one, other, 5, lambda m: {"mean": float(m.weight.mean()), **hill(m)}, sampled=True, draws=3, seed=1)
    assert [r["loss"] for r in rows] == pytest.approx([0.0] * 5)  # every weight is at an end
    assert [r["mean"] for r in rows] == pytest.approx([-1, -0.5, 0, 0.5, 1], abs=0.1)


def test_flips_remove_what_is_kept_and_bring_back_what_was_there():
    model, initial = Number(*[2.0] * 500, *[0.0] * 500), Number(*[5.0] * 1000)
    ticket = Ticket({"weight": np.arange(1000) < 500})

    def measure(network):
        w = network.weight
        return {"gone": float((w[:500] == 0).float().mean()), "back": float((w[500:] == 5).float().mean())}

    rows = sharpness(model, ticket, [10.0, 100.0], 20, measure, 0, initial)
    assert (rows[0]["gone_mean"], rows[0]["back_mean"]) == (0.0, 0.0)
    assert rows[1]["gone_mean"] == pytest.approx(0.1, abs=0.02) and rows[1]["back_mean"] == pytest.approx(0.1, abs=0.02)
    assert 0.005 < rows[1]["gone_std"] < 0.03
    assert (rows[2]["gone_mean"], rows[2]["back_mean"]) == (1.0, 1.0)
    assert sharpness(model, ticket, [100.0], 1, measure, 0)[1]["back_mean"] == 0.0
    assert float(model.weight.sum()) == 1000.0  # stays as it was


def test_the_stage(run_stage, dense, tmp_path):
    for i in (1, 2):
        prune = {"method": "random", "remaining_percent": 30, "seed": i}
        assert run_stage("prune", prune, weights=dense, out=f"{i}.mask.safetensors")[0] == 0
        train = {"data": DIGITS, "train": TRAIN, "compute": {}, "seed": i, "keep": "last"}
        files = {"init": dense, "mask": f"{i}.mask.safetensors", "out": f"{i}.safetensors", "metrics": f"{i}.json"}
        code, error = run_stage("train", train, **files)
        assert code == 0, error
    config = {"data": DIGITS, "compute": {}, "points": 3, "draws": 2, "flipped_percent": [20]}
    files = {"weights": "1.safetensors", "mask": "1.mask.safetensors", "other_weights": "2.safetensors",
             "other_mask": "2.mask.safetensors"}  # fmt: skip
    code, error = run_stage("compare_tickets", config, **files, init=dense, metrics="r.json")
    assert code == 0, error
    found = json.loads((tmp_path / "r.json").read_text())
    middle = found["path"][1]["train_loss"] - (found["path"][0]["train_loss"] + found["path"][2]["train_loss"]) / 2
    assert found["loss_barrier"]["train"] == pytest.approx(max(0.0, middle))
    assert abs(found["overlap"][-1]["deviations"]) < 5  # two random tickets
    assert found["sharpness"][0][1]["train_loss_mean"] > 0 and len(found["sharpness"]) == 2
    drawn = {"svg": "r.svg", "png": "r.png", "metrics": "d.json"}
    assert run_stage("compare_tickets_plots", {}, measured="r.json", **drawn)[0] == 0
    assert "<svg" in (tmp_path / "r.svg").read_text()
    assert run_stage("compare_tickets", config, **files, init=dense, metrics="again.json")[0] == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert all(again[k] == found[k] for k in ("overlap", "path", "sharpness", "loss_barrier", "instability"))
    code, error = run_stage("compare_tickets", {**config, "flipped_percent": [120]}, **files, metrics="r.json")
    assert code == 2 and "flipped_percent: 120 is more than all of the mask" in error
