"""Evaluation: what the numbers mean, checked on models whose robustness is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from winnow import WinnowError
from winnow.config.parts import Attack, Compute, Data
from winnow.config.vision import AutoAttack
from winnow.rng import seed_of
from winnow.schema import parse
from winnow.vision.batches import Loader
from winnow.vision.evaluate import Tally, accuracy, autoattack_accuracy, corruption_accuracy, robust_accuracy
from winnow.vision.models import load_pretrained
from winnow.vision.sources import Split, load

CPU, COMPUTE = torch.device("cpu"), parse(Compute, {})
DATA = parse(Data, {"dataset": "digits", "classes": [0, 1, 2], "val_images": 30})


class Brightness(torch.nn.Module):
    """Class 1 where the mean pixel exceeds 0.5: an attack of radius eps flips exactly the images within eps of it."""

    def forward(self, x):
        score = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-score, score], 1) * 50


def brightness_split():
    levels = np.array([0.30, 0.42, 0.47, 0.53, 0.58, 0.70])
    images = np.broadcast_to((levels * 255).astype(np.uint8)[:, None, None, None], (6, 3, 8, 8)).copy()
    return Split(images, (levels > 0.5).astype(np.int64))


@pytest.mark.parametrize(("eps", "robust"), [(0.01, 6), (0.05, 4), (0.1, 2), (0.3, 0)])
@pytest.mark.parametrize("restarts", [1, 3])
def test_robust_accuracy_is_exact_where_it_can_be_known(eps, robust, restarts):
    loader = Loader(brightness_split(), DATA, 4, CPU)
    attack = parse(Attack, {"eps": eps, "step_size": eps / 2, "steps": 5, "restarts": restarts})
    assert accuracy(Brightness(), loader, COMPUTE) == 100.0
    assert robust_accuracy(Brightness(), loader, attack, COMPUTE, 0) == pytest.approx(100 * robust / 6)


def test_more_restarts_never_raise_robust_accuracy_and_runs_repeat(dense):
    model, _ = load_pretrained(dense)
    loader = Loader(load(DATA, None).test, DATA, 64, CPU)
    attack = {"eps": 0.08, "step_size": 0.04, "steps": 2}
    found = [robust_accuracy(model, loader, parse(Attack, attack | {"restarts": r}), COMPUTE, 0) for r in (1, 3, 3)]
    assert found[1] <= found[0] and found[1] == found[2]


def test_autoattack_is_at_least_as_strong_as_pgd_and_needs_enough_classes(dense):
    model, _ = load_pretrained(dense)
    test = load(DATA, None).test
    loader = Loader(test.take(np.arange(0, len(test), 6)), DATA, 64, CPU)
    pgd = robust_accuracy(model, loader, parse(Attack, {"eps": 0.05, "step_size": 0.01, "steps": 10}), COMPUTE, 0)
    ce = autoattack_accuracy(model, loader, parse(AutoAttack, {"eps": 0.05, "attacks": ["apgd-ce"]}), 3, 0)
    assert ce <= pgd + 100 / len(loader.split)
    assert ce == autoattack_accuracy(model, loader, parse(AutoAttack, {"eps": 0.05, "attacks": ["apgd-ce"]}), 3, 0)
    with pytest.raises(WinnowError, match="apgd-t needs at least 4 classes, the task has 3"):
        autoattack_accuracy(model, loader, parse(AutoAttack, {"eps": 0.05}), 3, 0)


class Recorded:
    """What AutoAttack is asked for; its attacks leave every image as it is."""

    made: ClassVar[list[Recorded]] = []

    def __init__(self, model, **keys):
        self.keys, self.apgd_targeted, self.fab = keys, SimpleNamespace(), SimpleNamespace()
        Recorded.made.append(self)

    def run_standard_evaluation(self, x, y, batch_size):
        assert torch.is_grad_enabled() and batch_size == len(x) == len(y)
        return x, y


@pytest.mark.parametrize(("classes", "targets"), [(4, 3), (10, 9), (200, 9)])
def test_autoattack_is_the_standard_one_with_the_configured_attacks(monkeypatch, classes, targets):
    monkeypatch.setattr("pyautoattack.AutoAttack", Recorded)
    loader, config = Loader(brightness_split(), DATA, 4, CPU), parse(AutoAttack, {"eps": 0.07})
    assert autoattack_accuracy(Brightness(), loader, config, classes, 3) == 100.0
    asked = Recorded.made.pop()
    assert asked.keys == {"norm": "Linf", "eps": 0.07, "seed": seed_of(3, "autoattack") % 2**31, "version": "standard",
                          "device": CPU}  # fmt: skip
    assert asked.attacks_to_run == list(config.attacks)
    assert asked.apgd_targeted.n_target_classes == asked.fab.n_target_classes == targets
    few = parse(AutoAttack, {"eps": 0.07, "attacks": ["square"]})
    assert autoattack_accuracy(Brightness(), loader, few, 2, 3) == 100.0  # nothing is aimed at
    assert Recorded.made.pop().attacks_to_run == ["square"]


@pytest.mark.parametrize("which", ["pgd", "autoattack"])
def test_images_that_are_no_pixels_are_refused(monkeypatch, which):
    monkeypatch.setattr("pyautoattack.AutoAttack", Recorded)
    loader = Loader(brightness_split(), DATA, 4, CPU)
    monkeypatch.setattr(loader, "once", lambda turns: iter([(torch.full((4, 3, 8, 8), 1.5), torch.zeros(4).long())]))
    with pytest.raises(WinnowError, match=r"images must lie in \[0,1\]"):
        if which == "pgd":
            robust_accuracy(Brightness(), loader, Attack(eps=0.1, step_size=0.1, steps=1), COMPUTE, 0)
        else:
            autoattack_accuracy(Brightness(), loader, parse(AutoAttack, {"eps": 0.07}), 4, 0)


def test_corruptions_are_read_by_name(tmp_path):
    split = brightness_split()
    np.save(tmp_path / "labels.npy", split.labels)
    np.save(tmp_path / "fog.npy", split.images.transpose(0, 2, 3, 1))
    np.save(tmp_path / "dark.npy", np.zeros_like(split.images.transpose(0, 2, 3, 1)))
    assert corruption_accuracy(Brightness(), tmp_path, DATA, COMPUTE, CPU, 4) == {"dark": 50.0, "fog": 100.0}
    # of two batches; dark was finished before
    kept = {"dark": Tally([3, 1], lambda: None), "fog": Tally([], lambda: None)}
    found = corruption_accuracy(Brightness(), tmp_path, DATA, COMPUTE, CPU, 4, kept.__getitem__)
    assert found == {"dark": pytest.approx(100 * 4 / 6), "fog": 100.0} and kept["fog"].right == [4, 2]
    with pytest.raises(WinnowError, match="expected CIFAR-10-C's"):
        corruption_accuracy(Brightness(), tmp_path / "none", DATA, COMPUTE, CPU, 4)


def test_corruptions_are_those_of_the_tasks_classes_and_the_four_extra_ones_do_not_count(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    pictures = np.where((labels % 2 == 0)[:, None, None, None], 0, 200).astype(np.uint8) + rng.integers(
        0, 20, (40, 8, 8, 3), np.uint8
    )
    np.save(tmp_path / "labels.npy", labels)
    for name in ("fog", "speckle_noise", "gaussian_blur", "spatter", "saturate"):
        np.save(tmp_path / f"{name}.npy", pictures)
    # dark is class 0, bright class 1
    task = parse(Data, {"dataset": "npz", "path": "x", "val_images": 1, "classes": [4, 7]})
    assert corruption_accuracy(Brightness(), tmp_path, task, COMPUTE, CPU, 8) == {"fog": 100.0}
    with pytest.raises(WinnowError, match=r"labels.npy names no image of data.classes \[77\]"):
        corruption_accuracy(
            Brightness(), tmp_path, parse(Data, {"dataset": "npz", "val_images": 1, "classes": [77]}), COMPUTE, CPU, 8
        )
    np.save(tmp_path / "fog.npy", pictures[:30])
    with pytest.raises(WinnowError, match=r"fog.npy: 30 images, labels.npy holds 40 labels"):
        corruption_accuracy(Brightness(), tmp_path, task, COMPUTE, CPU, 8)
