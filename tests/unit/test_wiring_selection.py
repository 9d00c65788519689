"""What is kept is chosen by the held-out split alone, the earliest best of it; what is reported is of the network that
was kept.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ATTACK, MODEL
from torch import nn

from winnow.artifacts import read_arrays, read_json
from winnow.config.parts import Compute, Data, Train
from winnow.gems.finetune import Task, early_weights, finetune, recalibrate
from winnow.run import Run
from winnow.vision import models
from winnow.vision.batches import Loader
from winnow.vision.evaluate import accuracy
from winnow.vision.sources import load
from winnow.vision.training import Best, train_classifier

CPU = torch.device("cpu")
NPZ = {"dataset": "npz", "path": "set.npz", "val_images": 23, "train_images": 60}
ROUGH = {"epochs": 5, "batch_size": 12, "lr": 0.6, "momentum": 0.5}


@pytest.fixture(scope="module")
def digits():
    """Real digits of three classes as arrays, so that the test split alone can be exchanged."""
    sets = load(Data(dataset="digits", classes=[0, 1, 2], val_images=1), None)
    images = {
        "train": sets.train.images[:110].transpose(0, 2, 3, 1),
        "test": sets.test.images[:31].transpose(0, 2, 3, 1),
    }
    return images, {"train": sets.train.labels[:110], "test": sets.test.labels[:31]}


def write_set(folder, digits, garbage: bool, unlearnable: bool = False):
    """The task below `folder`; with another test split, or with training labels that say nothing of the images."""
    images, labels = digits
    rng = np.random.default_rng(0)
    test = rng.integers(0, 256, images["test"].shape, dtype=np.uint8) if garbage else images["test"]
    wrong = rng.integers(0, 3, len(test)) if garbage else labels["test"]
    folder.mkdir(exist_ok=True)
    learnt = rng.permutation(labels["train"]) if unlearnable else labels["train"]
    np.savez(folder / "set.npz", train_images=images["train"], train_labels=learnt, test_images=test, test_labels=wrong)


@pytest.fixture
def start(run_stage, tmp_path, digits):
    """Pre-trained weights of another task, initial weights, a ticket for each; and the task with its test split and
    with garbage.
    """
    for name in ("good", "garbage"):
        write_set(tmp_path / name, digits, name == "garbage")
    train = {"epochs": 1, "batch_size": 16, "lr": 0.05}
    config = {"method": "std", "data": NPZ, "model": MODEL, "train": train, "compute": {}, "seed": 0}
    root = ("--data-root", str(tmp_path / "good"))
    files = {name: tmp_path / f"{name}.safetensors" for name in ("dense", "init", "gem.mask")}
    assert run_stage("pretrain", config, *root, out=files["dense"], metrics=tmp_path / "d.json")[0] == 0
    frozen = {**MODEL, "classifier": "conv1x1", "bn": "non_affine"}
    config = {"data": NPZ, "model": frozen, "init": {"init": "kaiming_normal"}, "seed": 0}
    assert run_stage("gem_init", config, *root, out=files["init"])[0] == 0
    ticket = {"method": "random", "remaining_percent": 50, "seed": 0}
    assert run_stage("prune", ticket, weights=files["init"], out=files["gem.mask"])[0] == 0
    return files


def job(**extra):
    return {"data": NPZ, "train": ROUGH, "compute": {}, "seed": 0, **extra}


SEARCH = {"algo": "hc_iter", "target_sparsity": 30, "iter_period": 2}
BEST = {"keep": "best", "measure": True}
STAGES = {
    "pretrain": ({"method": "std", "model": MODEL}, {}, ["out"]),
    "transfer": ({}, {"init": "dense"}, ["best_sa"]),
    "transfer under attack": ({"attack": ATTACK}, {"init": "dense"}, ["best_sa", "best_ra"]),
    "train a ticket": (BEST, {"init": "init", "mask": "gem.mask"}, ["out"]),
    "train a ticket under attack": ({**BEST, "attack": ATTACK}, {"init": "init", "mask": "gem.mask"}, ["out"]),
    "train dense, to the last epoch": ({"keep": "last", "rewind_iteration": 2}, {"init": "init"}, ["out", "rewind"]),
    "gem_search": ({"search": SEARCH}, {"init": "init"}, ["out", "order"]),
}


@pytest.mark.parametrize("kind", list(STAGES))
def test_another_test_split_changes_no_weight_and_no_choice(start, run_stage, tmp_path, kind):
    extra, inputs, outputs = STAGES[kind]
    made = []
    for name in ("good", "garbage"):
        files = {o: tmp_path / f"{name}-{o}.{'mask.' * (o == 'ticket')}safetensors" for o in outputs}
        read = {k: start[v] for k, v in inputs.items()}
        metrics, root = tmp_path / f"{name}.json", ("--data-root", str(tmp_path / name))
        assert run_stage(kind.split()[0], job(**extra), *root, **read, **files, metrics=metrics)[0] == 0
        made.append(({o: read_arrays(f) for o, f in files.items()}, read_json(metrics)))
    (one, first), (other, second) = made
    for output, arrays in one.items():
        assert all((arrays[n] == other[output][n]).all() for n in arrays), output
    assert first["epochs"] == second["epochs"] and first.get("best") == second.get("best")
    for figure in ("acc_after", "test_sa"):  # of the split that was exchanged
        assert figure not in first or first[figure] != second[figure]


def test_best_is_the_highest_and_of_equals_the_earliest():
    model, best = nn.Linear(1, 1, bias=False), Best(("val_sa", "val_ra"))
    for epoch, (sa, ra) in enumerate([(10, 5), (30, 5), (20, 9), (30, 9), (25, 1)]):
        model.weight.data.fill_(epoch)
        best.offer({"val_sa": float(sa), "val_ra": float(ra)}, model)
    assert best.values == {"val_sa": 30.0, "val_ra": 9.0}
    assert {k: int(v["weight"]) for k, v in best.states.items()} == {"val_sa": 1, "val_ra": 2}


def unlearnable_task(digits, folder) -> Task:
    """A task whose held-out accuracy goes up and down: there is nothing to learn."""
    write_set(folder, digits, garbage=False, unlearnable=True)
    return Task(
        data=Data(**NPZ),
        train=Train(epochs=6, batch_size=12, lr=0.1),
        compute=Compute(),
        seed=1,
        run=Run("cpu", data_root=folder),
    )


def small_model(task: Task) -> nn.Module:
    torch.manual_seed(0)
    from winnow.config.parts import Model

    return models.build(Model(**MODEL), task.num_classes)


def test_the_states_that_are_kept_are_those_of_their_epoch(digits, tmp_path):
    task = unlearnable_task(digits, tmp_path)
    model = small_model(task)
    history, best = train_classifier(
        model,
        task.train_loader,
        task.val,
        run=task.run,
        train=task.train,
        compute=task.compute,
        seed=1,
        watch=("val_sa",),
    )
    course = [epoch["val_sa"] for epoch in history]
    assert max(course) > course[-1], "the test needs a best epoch before the last"
    assert best.values["val_sa"] == max(course)
    assert accuracy(model, task.val, task.compute) == pytest.approx(course[-1])
    model.load_state_dict(best.states["val_sa"])
    assert accuracy(model, task.val, task.compute) == pytest.approx(max(course))


def test_after_is_of_the_kept_network_last_is_of_the_last_before_is_before(digits, tmp_path):
    task = unlearnable_task(digits, tmp_path)
    model = small_model(task)
    recalibrate(model, task.train_loader)
    before = task.measure(model)["acc"]
    found = finetune(model, None, task)
    assert found["acc_before"] == pytest.approx(before)
    assert found["acc_after"] == pytest.approx(accuracy(model, task.test, task.compute))
    course = [epoch["val_sa"] for epoch in found["epochs"]]
    assert (
        found["val_best"] == max(course) == pytest.approx(task.held_out(model)["val_sa"]) and max(course) > course[-1]
    )
    assert found["acc_last"] != found["acc_after"] != found["acc_before"]


def test_before_does_not_depend_on_the_statistics_that_came_with_the_weights(digits, tmp_path):
    write_set(tmp_path, digits, garbage=False)
    keys = {"data": Data(**NPZ), "compute": Compute(), "seed": 1, "run": Run("cpu", data_root=tmp_path)}
    learnt = Task(train=Train(epochs=3, batch_size=12, lr=0.1), **keys)
    trained = small_model(learnt)
    train_classifier(
        trained, learnt.train_loader, learnt.val, train=learnt.train, compute=learnt.compute, seed=1, run=learnt.run
    )
    nothing = Task(train=Train(epochs=0, batch_size=12, lr=0.1), **keys)
    found = []
    for shift in (0.0, 5.0):
        model = small_model(nothing)
        model.load_state_dict(trained.state_dict())
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.add_(shift)
        raw = nothing.measure(model)["acc"]
        found.append((raw, finetune(model, None, nothing)["acc_before"]))
    assert found[0][1] == found[1][1] > 60 and found[1][0] < 50, found


def test_a_rewinding_point_begins_with_the_statistics_with_which_the_training_begins(digits, tmp_path):
    """As in the training itself, where an attack sees them; before any step nothing is touched."""
    task = unlearnable_task(digits, tmp_path)
    for iteration, away in ((0, True), (1, False)):
        model = small_model(task)
        layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for layer in layers:
            layer.running_mean.fill_(100.0)
        state = early_weights(model, iteration, task)
        means = [v for n, v in state.items() if n.endswith("running_mean")]
        assert len(means) == len(layers) and all(bool((m > 50).all()) == away for m in means)


def test_statistics_are_the_mean_over_the_training_images(digits, tmp_path):
    task = unlearnable_task(digits, tmp_path)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.LazyLinear(3))
    model(next(task.train_loader.once())[0])
    momentum = model[0].momentum
    recalibrate(model, task.train_loader)
    batches = [x for x, _ in task.train_loader.epoch(0)]
    expected = torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0)
    assert torch.allclose(model[0].running_mean, expected, atol=1e-6) and model[0].momentum == momentum
    assert len(batches) == 5 and isinstance(task.test, Loader)
