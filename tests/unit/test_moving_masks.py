"""Masks that move in the stage train and in rare_gems' grid: RigL's class over the stage's own batches, and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from torch.nn import functional as F

from winnow.artifacts import read_arrays, read_json
from winnow.config.jobs import TrainWeights
from winnow.errors import WinnowError
from winnow.gems.finetune import Task, recalibrate
from winnow.pipelines.rare_gems import grid, inputs
from winnow.pipelines.rare_gems.config import RareGems
from winnow.prune.rigl import RigL
from winnow.schema import parse
from winnow.stages import gem_init, prune, train
from winnow.ticket import Ticket
from winnow.train.optim import make_optimizer

DATA = {"dataset": "digits", "val_images": 100, "train_images": 200, "test_images": 100}
MODEL = {"arch": "resnet8", "width": 4, "classifier": "conv1x1", "bn": "non_affine"}
TRAIN = {"epochs": 3, "batch_size": 50, "lr": 0.05, "momentum": 0.9}
MOVING = {"every": 2, "fraction": 0.4, "stop": 0.75}
CONFIG = {"data": DATA, "train": TRAIN, "compute": {}, "seed": 0, "keep": "last", "measure": True, "moving": MOVING}


def run(module, config, folder, **files):
    words = ["--config", json.dumps(config), "--scratch", str(folder / "scratch"), "--device", "cpu"]
    return module.stage.run([*words, *(w for name, path in files.items() for w in (f"--{name}", str(path)))])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("moving")
    assert run(gem_init, {"data": DATA, "model": MODEL, "init": {}, "seed": 0}, base, out=base / "init") == 0
    start = {"method": "erk", "remaining_percent": 20, "seed": 0}
    assert run(prune, start, base, weights=base / "init", out=base / "erk") == 0
    out = {"out": base / "w.safetensors", "metrics": base / "m.json"}
    assert run(train, CONFIG, base, init=base / "init", mask=base / "erk", **out) == 0
    return base


def test_the_stage_trains_as_rigl_by_hand(made):
    config = parse(TrainWeights, CONFIG)
    task = Task(config.data, config.train, config.compute, config.seed)
    model, _ = task.model(made / "init")
    ticket = Ticket.load(made / "erk")
    ticket.apply(model)
    recalibrate(model, task.train_loader)
    optimizer = make_optimizer(config.train, model.parameters())
    masks = RigL(model, optimizer, ticket, steps=3 * task.train_loader.steps_per_epoch, **MOVING)
    for epoch in range(3):
        for x, y in task.train_loader.epoch(epoch):
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            masks.before_update()
            optimizer.step()
    found = read_arrays(made / "w.safetensors")
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    moved = masks.ticket()
    assert any((moved.arrays[n] != mask).any() for n, mask in ticket.arrays.items())
    for name, mask in moved.arrays.items():
        assert not found[name][~mask].any() and mask.sum() == ticket.arrays[name].sum()


def test_the_metrics_tell_the_share_that_remains(made):
    metrics = read_json(made / "m.json")
    assert metrics["remaining_percent"] == pytest.approx(20, abs=0.1)
    assert {"acc_before", "acc_after"} <= metrics.keys()


def test_moving_masks_are_part_of_the_code_that_decides():
    assert train.stage.also(parse(TrainWeights, CONFIG)) == ["winnow.prune.rigl"]
    assert train.stage.also(parse(TrainWeights, CONFIG | {"moving": None})) == []


def test_masks_that_move_start_somewhere(made, tmp_path, capsys):
    out = {"out": tmp_path / "w.safetensors", "metrics": tmp_path / "m.json"}
    assert run(train, CONFIG, tmp_path, init=made / "init", **out) == 2
    assert "moving: needs --mask, where the masks start" in capsys.readouterr().err


SECTION = {
    "seeds": [3],
    "experiments": [
        {"name": "e", "dataset": "digits", "data": DATA, "model": MODEL, "targets": [20, 5], "finetune": TRAIN,
         "branches": [{"name": "moving", "algo": "rigl", "moving": MOVING}]}
    ],
}  # fmt: skip


def test_a_branch_starts_from_erk_and_moves_while_it_is_fine_tuned():
    section = parse(RareGems, SECTION)
    first, second = grid.grid_of(section).cells()
    assert first.metrics == "results/rare_gems/e/moving/s3/tuned/20.json" and second.target == 5

    class Wildcards:
        experiment, branch, seed, target, method = "e", "moving", "3", "20", "erk"

    assert inputs.ticketed(section, Wildcards)["mask"] == "results/rare_gems/e/moving/s3/erk/20.mask.safetensors"
    cut = grid.prune(section, "e", "moving", "20", "3")
    assert (cut.method, cut.remaining_percent, cut.seed) == ("erk", 20.0, 3)
    trained = grid.finetune(section, "e", "moving", "3")
    assert trained.moving is not None and (trained.moving.every, trained.moving.fraction) == (2, 0.4)
    assert trained.seed == 3 and trained.train.lr == 0.05 and trained.measure


@pytest.mark.parametrize("keys", [{"method": "set"}, {"every": 0}, {"fraction": 1.0}, {"stop": 0}])
def test_bounds(keys):
    with pytest.raises(WinnowError, match=next(iter(keys))):
        parse(TrainWeights, CONFIG | {"moving": MOVING | keys})
