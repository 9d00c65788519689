"""rg_A, smart ratio and prune rates: the released rare-gems code's own numbers, replayed through winnow's search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from winnow.artifacts import read_tensors  # noqa: E402
from winnow.config.gems import Search  # noqa: E402
from winnow.config.parts import Compute, Model, Train  # noqa: E402
from winnow.gems.pruning import prune_fraction  # noqa: E402
from winnow.gems.search import search  # noqa: E402
from winnow.prune.smart_ratio import layer_counts  # noqa: E402
from winnow.run import Run  # noqa: E402
from winnow.train.device import configure  # noqa: E402
from winnow.vision import models  # noqa: E402


class Ordered:
    """The reference's batches: 64 images at a time in the recorded order."""

    steps_per_epoch = 8

    def __init__(self, tensors):
        self.x, self.y, self.order = tensors["train_x"], tensors["train_y"], tensors["order"]

    def sizes(self, epoch):
        return [64] * self.steps_per_epoch

    def epoch(self, epoch, first=0, share=slice):
        for part in self.order[epoch].split(64)[first:]:
            yield self.x[part[share(64)]], self.y[part[share(64)]]


@pytest.fixture(scope="module")
def reference(shared):
    log = json.loads((shared / "golden/rg_A.json").read_text())
    return log, read_tensors(shared / "golden/rg_A.safetensors")


def replay(reference, folder: Path, layout):
    """The search from the reference's start, through the function that the stage calls."""
    log, tensors = reference
    settings = log["config"]
    configure(Compute(), torch.device("cpu"))
    model = models.build(
        Model(arch="resnet20", classifier="conv1x1", bn="non_affine", mean=[0.0] * 3, std=[1.0] * 3), 10
    )
    start = {k.removeprefix("init."): v for k, v in tensors.items() if k.startswith("init.")}
    missing = model.load_state_dict({k: v for k, v in start.items() if k.endswith(".weight")}, strict=False)
    assert not missing.unexpected_keys
    model.to(memory_format=layout)

    def evaluate():
        model.eval()
        with torch.no_grad():
            return {"test": 100 * float((model(tensors["test_x"]).argmax(1) == tensors["test_y"]).float().mean())}

    return search(
        model, Ordered(tensors),
        config=Search(
            algo=settings["algo"], target_sparsity=settings["target_sparsity"], iter_period=settings["iter_period"],
            regularization=settings["regularization"], lmbda=settings["lmbda"],
        ),
        train=Train(epochs=settings["epochs"], batch_size=64, lr=settings["lr"], momentum=settings["momentum"],
         schedule="cosine"),
        compute=Compute(), seed=0, evaluate=evaluate, run=Run("cpu", checkpoints=folder),
        scores={k.replace(".scores", ".weight"): v for k, v in start.items() if k.endswith(".scores")},
    )  # fmt: skip


@pytest.fixture(scope="module")
def replayed(reference, tmp_path_factory):
    return replay(reference, tmp_path_factory.mktemp("golden"), torch.contiguous_format)


def test_thresholds_and_remaining(reference, replayed):
    log, _ = reference
    gem, history = replayed
    for expected, record in zip(log["log"], history, strict=True):
        assert abs(record["remaining_percent"] - expected["remaining_percent"]) / 100 * gem.total <= 3
        if expected["prune_threshold"] is None:
            assert "prune_threshold" not in record
        else:
            assert record["prune_threshold"] == pytest.approx(expected["prune_threshold"], abs=1e-4)
        assert record["test"] == pytest.approx(expected["rounded_test_acc"], abs=100 / 128)


def test_flags_of_every_prune(reference, replayed):
    _, tensors = reference
    gem, _ = replayed
    levels = gem.scored.views(gem.level)
    for number, epoch in enumerate((2, 4, 6), start=1):
        different = sum(
            int((((v == 0) | (v > number)) != tensors[f"flag.epoch{epoch}.{n.removesuffix('.weight')}"].bool()).sum())
            for n, v in levels.items()
        )
        assert different <= 0.001 * gem.total


def test_final_scores(reference, replayed):
    _, tensors = reference
    gem, _ = replayed
    for name, scores in gem.scored.views(gem.scored.scores.detach()).items():
        torch.testing.assert_close(scores, tensors[f"final_scores.{name.removesuffix('.weight')}"], rtol=0, atol=1e-4)


def test_other_memory_format_stays_close(reference, tmp_path):
    """channels_last sums in another order: a few scores near 0.5 round differently, prunes stay where they are."""
    log, tensors = reference
    gem, history = replay(reference, tmp_path, torch.channels_last)
    for expected, record in zip(log["log"], history, strict=True):
        if expected["prune_threshold"] is not None:
            assert record["prune_threshold"] == pytest.approx(expected["prune_threshold"], abs=1e-4)
            assert abs(record["remaining_percent"] - expected["remaining_percent"]) / 100 * gem.total <= 3
    alive = gem.scored.views(gem.scored.alive)
    same = sum(int((v == tensors[f"final_flag.{n.removesuffix('.weight')}"].bool()).sum()) for n, v in alive.items())
    assert same >= 0.998 * gem.total


def test_smart_ratio(shared):
    golden = json.loads((shared / "golden/smart_ratio_and_prune_rate.json").read_text())["smart_ratio"]
    checked = 0
    for arch, cases in golden.items():
        for removed, case in cases.items():
            sizes = case["layer_numel"]
            counts = layer_counts(sizes, sum(sizes) * (1 - float(removed)), divide_by_square=arch == "vgg16")
            assert counts == case["layer_kept"], (arch, removed)
            checked += 1
    assert checked >= 15


def test_prune_rates(shared):
    golden = json.loads((shared / "golden/smart_ratio_and_prune_rate.json").read_text())["prune_rate"]
    for spelled, expected in golden.items():
        values = {k: float(v) for k, v in (item.split("=") for item in spelled.split(","))}
        fraction = prune_fraction(values["remaining_percent"], int(values["epochs"]), int(values["period"]))
        assert fraction == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("arch", ["resnet20", "resnet32", "vgg16"])
def test_layers_are_the_published_ones(shared, arch):
    golden = json.loads((shared / "golden/smart_ratio_and_prune_rate.json").read_text())["smart_ratio"][arch]
    from winnow.gems.scores import scorable

    name = "vgg16_cifar" if arch == "vgg16" else arch
    model = models.build(Model(arch=name, classifier="conv1x1", bn="non_affine"), 10)
    parameters = dict(model.named_parameters())
    assert [parameters[n].numel() for n in scorable(model)] == golden["0.5"]["layer_numel"]
