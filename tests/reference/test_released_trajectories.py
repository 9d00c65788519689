"""Searches and adversarial training step by step, in float64, against what the papers' released code did on the same
problems.

Everything runs through the functions that the stages call. Tolerances are those that the references state for
themselves.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from winnow.artifacts import read_tensors  # noqa: E402
from winnow.config.gems import Search  # noqa: E402
from winnow.config.parts import Compute, Model, Train  # noqa: E402
from winnow.gems.search import GemSearch, search  # noqa: E402
from winnow.run import Run  # noqa: E402
from winnow.train.device import configure  # noqa: E402
from winnow.vision import models  # noqa: E402

GEMS = ("rg_ep", "rg_gep5", "rg_gep50", "rg_gepi", "rg_hc", "rg_hc_soft")


class Ordered:
    """The reference's batches: 64 images at a time in the recorded order."""

    steps_per_epoch = 8

    def __init__(self, x, y, order):
        self.x, self.y, self.order = x, y, order

    def sizes(self, epoch):
        return [64] * self.steps_per_epoch

    def epoch(self, epoch, first=0, share=slice):
        for part in self.order[epoch].split(64)[first:]:
            yield self.x[part], self.y[part]


def remaining_percent(log) -> float:
    """What the file's algorithm leaves: `prune_rate` is the fraction kept for ep, the fraction removed for the global
    forms.
    """
    config = log["config"]
    if "target_sparsity" in config:
        return config["target_sparsity"]
    return 100 * (config["prune_rate"] if config["algo"] == "ep" else 1 - config["prune_rate"])


@pytest.fixture(scope="module", params=GEMS)
def gem(request, shared):
    """One replayed search: the reference, and what winnow's search did in every step and epoch."""
    folder, name = shared / "golden/released/golden", request.param
    log, expected = json.loads((folder / f"{name}.json").read_text()), read_tensors(folder / f"{name}.safetensors")
    data, config = read_tensors(shared / "golden/rg_A.safetensors"), log["config"]
    configure(Compute(), torch.device("cpu"))
    model = models.build(
        Model(arch="resnet20", classifier="conv1x1", bn="non_affine", mean=[0.0] * 3, std=[1.0] * 3), 10
    )
    model.double()
    weights = {k.removeprefix("init."): v for k, v in data.items() if k.startswith("init.") and k.endswith(".weight")}
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    started = read_tensors(folder / "ep_start.safetensors") if "ep" in config["algo"] else data
    scores = {
        k.split(".", 1)[1].replace(".scores", ".weight"): v.double()
        for k, v in started.items()
        if k.endswith(".scores")
    }
    scale = torch.tensor(config.get("input_scale_per_channel", [1.0] * 3), dtype=torch.float64).view(3, 1, 1)
    train_x, test_x = (data[k].double() * scale for k in ("train_x", "test_x"))
    seen = SimpleNamespace(log=log, expected=expected, losses=[], masks=[], model=model, test_x=test_x, name=name)

    def evaluate():
        model.eval()
        with torch.no_grad():
            logits = model(test_x)
        return {
            "test_loss": float(F.cross_entropy(logits, data["test_y"])),
            "test_acc": _percent(logits, data["test_y"]),
        }

    with pytest.MonkeyPatch.context() as patch:
        step, end_of_epoch = GemSearch.step, GemSearch.end_of_epoch

        def logged_step(self, *arguments):
            seen.losses.append(float(loss := step(self, *arguments)))
            return loss

        def logged_end(self, epoch):
            seen.masks.append(self.rounded())
            return end_of_epoch(self, epoch)

        patch.setattr(GemSearch, "step", logged_step)
        patch.setattr(GemSearch, "end_of_epoch", logged_end)
        seen.gem, seen.history = search(
            model, Ordered(train_x, data["train_y"], data["order"]),
            config=Search(
                algo=config["algo"], target_sparsity=remaining_percent(log), iter_period=config["iter_period"],
                regularization=config["regularization"], lmbda=config["lmbda"], hc_quantized=config["hc_quantized"],
            ),
            train=Train(
                epochs=config["epochs"], batch_size=64, optimizer=config["optimizer"], lr=config["lr"],
                momentum=config["momentum"], weight_decay=config["wd"], schedule="cosine",
            ),
            compute=Compute(), seed=0, evaluate=evaluate, scores=scores, run=Run("cpu"),
        )  # fmt: skip
    return seen


def _percent(logits, labels) -> float:
    return 100 * float((logits.argmax(1) == labels).double().mean())


def bits(gem, name):
    return torch.from_numpy(np.unpackbits(gem.expected[name].numpy())[: gem.log["total"]]).bool()


def test_losses_of_every_step(gem):
    theirs = [loss for epoch in gem.log["log"] for loss in epoch["batch_losses"]]
    assert gem.losses == pytest.approx(theirs, rel=1e-9)


def test_what_each_epoch_reports(gem):
    for mine, theirs, mask in zip(gem.history, gem.log["log"], gem.masks, strict=True):
        assert abs(int(mask.sum()) - theirs["kept"]) <= 10
        assert mine["remaining_percent"] == pytest.approx(theirs["remaining_percent"], abs=100 * 10 / gem.log["total"])
        if theirs["prune_threshold"] is not None:
            assert mine["prune_threshold"] == pytest.approx(theirs["prune_threshold"], rel=1e-3)
        if gem.log["config"]["hc_quantized"]:
            assert mine["test_loss"] == pytest.approx(theirs["test_loss"], rel=1e-8)
            assert mine["test_acc"] == pytest.approx(theirs.get("test_acc", theirs.get("rounded_test_acc")), abs=1e-9)


def test_masks_of_the_epochs_and_of_the_end(gem):
    names = [k for k in gem.expected if k.startswith("mask_bits.epoch")]
    assert names
    for name in names:
        epoch = int(name.removeprefix("mask_bits.epoch"))
        assert int((gem.masks[epoch] != bits(gem, name)).sum()) <= 10
    assert int((gem.gem.scored.alive != bits(gem, "final_mask_bits")).sum()) <= 10
    kept = {n.removesuffix(".weight"): int(v.sum()) for n, v in gem.gem.ticket().items()}
    for name, theirs in gem.log["final_kept_by_layer"].items():
        assert abs(kept[name] - theirs) <= 10, name


def test_final_scores_and_logits(gem):
    for name, scores in gem.gem.scored.views(gem.gem.scored.scores.detach()).items():
        theirs = gem.expected[f"final_scores_every32.{name.removesuffix('.weight')}"]
        torch.testing.assert_close(scores.flatten()[::32], theirs, rtol=0, atol=1e-3)
    gem.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(gem.model(gem.test_x), gem.expected["final_test_logits"], rtol=0, atol=1e-8)


class Given:
    """The reference's batches of adversarial training: one epoch of them."""

    def __init__(self, tensors, steps):
        self.tensors, self.steps_per_epoch = tensors, steps

    def sizes(self, epoch):
        return [16] * self.steps_per_epoch

    def epoch(self, epoch, first=0, share=slice):
        for i in range(first, self.steps_per_epoch):
            grey = self.tensors[f"images.step{i}"].double()
            yield (
                grey.expand(-1, 3, -1, -1).repeat_interleave(2, 2).repeat_interleave(2, 3),
                self.tensors[f"labels.step{i}"],
            )


def small_resnet():
    """The usual ResNet of basic blocks, a sixteenth as wide, one block a stage."""
    from winnow.compat import torchvision

    resnet = torchvision().models.resnet

    class Narrow(resnet.ResNet):
        def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
            self.inplanes = 4 if planes == 64 else self.inplanes
            return super()._make_layer(block, planes // 16, blocks, stride, dilate)

    model = Narrow(resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)
    model.conv1, model.bn1 = torch.nn.Conv2d(3, 4, 7, 2, 3, bias=False), torch.nn.BatchNorm2d(4)
    model.fc = torch.nn.Linear(32, 10)
    models.normalise_input(model.double(), [0.0] * 3, [1.0] * 3)
    model.input_mean, model.input_std = (  # in float64 from the start
        torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1)
        for v in ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])
    )
    return model


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_adversarial_training(shared, monkeypatch, mode):
    """PGD training with the attack on batch statistics, as released, and with the attack in evaluation mode."""
    from winnow.config.parts import Attack
    from winnow.train import ranks
    from winnow.train.loop import Fit, fit
    from winnow.train.optim import make_optimizer
    from winnow.vision import training

    folder = shared / "golden/released/golden"
    log, tensors = json.loads((folder / "dw_A.json").read_text()), read_tensors(folder / "dw_A.safetensors")
    settings, expected = log["settings"], log["modes"][mode]
    model = small_resnet()
    start = {k.removeprefix("start."): v for k, v in tensors.items() if k.startswith("start.")}
    assert not model.load_state_dict({k: v.double() for k, v in start.items()}, strict=False).unexpected_keys
    train = Train(
        epochs=1, batch_size=16, lr=settings["lr"], momentum=settings["momentum"], weight_decay=settings["weight_decay"]
    )
    attack = Attack(
        eps=settings["eps"],
        step_size=settings["step_size"],
        steps=settings["attack_steps"],
        batch_statistics=mode == "train",
    )
    uniform = iter(tensors[f"delta_uniform.step{i}"].double() for i in range(settings["steps"]))
    monkeypatch.setattr(ranks, "noise", lambda like, draw: attack.eps * next(uniform))
    seen = SimpleNamespace(losses=[], images=[], states=[])
    perturb = training.perturb

    def logged_perturb(*arguments):
        seen.images.append(perturb(*arguments))
        return seen.images[-1]

    monkeypatch.setattr(training, "perturb", logged_perturb)
    step = training.make_step(model, train, Compute(), torch.device("cpu"), attack)

    def logged_step(batch):
        seen.losses.append(float(loss := step(batch)))
        return loss

    def keep_state():
        seen.states.append({k: v.clone() for k, v in model.state_dict().items()})

    batches = Given(tensors, settings["steps"])
    fit(
        Fit(
            model=model, optimizer=make_optimizer(train, model.parameters()), train=train, batches=batches,
            step=logged_step,
            seed=0, after_update=keep_state,
        )
    )  # fmt: skip
    assert seen.losses == pytest.approx(expected["losses"], rel=1e-10)
    assert [int(s["bn1.num_batches_tracked"]) for s in seen.states] == expected["num_batches_tracked"]
    compared = 0
    for i, state in enumerate(seen.states):
        image = seen.images[i]
        assert [float(image.sum()), float(image.abs().sum())] == pytest.approx(
            expected["adversarial_checksums"][i][:2], rel=1e-10
        )
        for name, value in state.items():
            if (theirs := tensors.get(f"{mode}.step{i}.{name}")) is not None:
                torch.testing.assert_close(value, theirs, rtol=1e-9, atol=1e-9)
                compared += 1
            if name in expected["state_checksums"][i]:
                sums = [float(value.sum()), float(value.abs().sum())]
                assert sums == pytest.approx(expected["state_checksums"][i][name][:2], rel=1e-9, abs=1e-9)
    assert compared > 50
