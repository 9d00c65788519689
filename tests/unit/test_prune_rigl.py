"""RigL: against algorithm 1 written out by hand, resumed to the same bytes, and driven by the training loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from winnow import Ticket, WinnowError
from winnow.config.parts import Train
from winnow.prune import erk
from winnow.prune.layers import Layers
from winnow.prune.rigl import RigL
from winnow.run import Run, Stopped
from winnow.schema import parse
from winnow.train.loop import Fit, fit
from winnow.train.optim import make_optimizer

STEPS, EVERY, FRACTION, STOP = 40, 6, 0.3, 0.75
LR, MOMENTUM, DECAY = 0.05, 0.9, 0.01


def net():
    torch.manual_seed(0)
    features = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU()
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(8 * 16, 4)).double().to(memory_format=torch.channels_last)


def start(model):
    names = Layers(head=True).names(model)
    weights = {n: model.get_parameter(n).detach().numpy() for n in names}
    return Ticket(erk.masks(weights, sum(w.size for w in weights.values()) // 5))


class Data:
    """Ten batches an epoch, the same in every epoch."""

    steps_per_epoch = 10

    def sizes(self, epoch):
        return [12] * self.steps_per_epoch

    def epoch(self, epoch, first=0, share=slice):
        rng = torch.Generator().manual_seed(1)
        x, y = torch.randn(120, 3, 8, 8, generator=rng, dtype=torch.float64), torch.randint(0, 4, (120,), generator=rng)
        return iter([(x[i : i + 12], y[i : i + 12]) for i in range(12 * first, 120, 12)])


def train(folder, stop_at=None, optimizer="sgd", watch=None):
    """One run through `fit`, from its checkpoint if there is one; `watch` sees the state after every step."""
    config = parse(
        Train,
        {
            "epochs": STEPS // 10,
            "batch_size": 12,
            "lr": LR,
            "weight_decay": DECAY,
            "momentum": MOMENTUM,
            "optimizer": optimizer,
        },
    )
    model = net()
    solver = make_optimizer(config, model.parameters())
    rigl = RigL(model, solver, start(model), steps=STEPS, every=EVERY, fraction=FRACTION, stop=STOP)
    run = Run("cpu", checkpoints=folder, checkpoint_seconds=1e9)

    def step(batch):
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        return loss.detach()

    def after():
        run.stop_requested = rigl.done == stop_at
        if watch:
            watch(rigl, solver)

    fit(
        Fit(
            model=model, optimizer=solver, train=config, batches=Data(), step=step, seed=0,
            before_update=rigl.before_update, after_update=after, extras={"masks": rigl},
        ),
        run,
    )  # fmt: skip
    return model, rigl


def by_hand():
    """Evci et al., algorithm 1, with SGD: lists and loops, no optimiser."""
    model, moved = net(), 0
    masks = {n: torch.from_numpy(m.copy()) for n, m in start(model).arrays.items()}
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].mul_(mask)
    momentum = {n: torch.zeros_like(p) for n, p in parameters.items()}
    end = STOP * STEPS
    for t in range(STEPS):
        x, y = list(Data().epoch(0))[t % 10]
        gradients = dict(
            zip(parameters, torch.autograd.grad(F.cross_entropy(model(x), y), list(parameters.values())), strict=True)
        )
        with torch.no_grad():
            if t > 0 and t % EVERY == 0 and t < end:
                for name, mask in masks.items():
                    places = list(np.ndindex(*mask.shape))
                    active = [i for i in places if mask[i]]
                    k = int(FRACTION / 2 * (1 + math.cos(math.pi * t / end)) * len(active))
                    drop = sorted(active, key=lambda i: abs(float(parameters[name][i])))[:k]
                    free = [i for i in places if not mask[i] or i in drop]
                    grow = sorted(free, key=lambda i: -abs(float(gradients[name][i])))[:k]
                    for i in set(drop) - set(grow):
                        mask[i], parameters[name][i], momentum[name][i] = False, 0.0, 0.0
                    for i in set(grow) - set(drop):
                        mask[i], parameters[name][i], momentum[name][i] = True, 0.0, 0.0
                        moved += 1
                continue
            for name, parameter in parameters.items():
                g = gradients[name] * masks[name] if name in masks else gradients[name]
                momentum[name] = MOMENTUM * momentum[name] + g + DECAY * parameter
                parameter -= LR * momentum[name]
    assert moved > 100
    return model, masks


def test_rigl_is_algorithm_1(tmp_path):
    model, rigl = train(tmp_path)
    expected, masks = by_hand()
    for name, mask in masks.items():
        assert torch.equal(rigl.masks[name], mask), name
    for (name, ours), theirs in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_counts_hold_and_what_is_removed_is_zero_at_every_step(tmp_path, optimizer):
    seen, steps = [], []

    def watch(rigl, solver):
        for name, mask in rigl.masks.items():
            assert not rigl.weights[name][~mask].any(), (rigl.done, name)
            for value in solver.state[rigl.weights[name]].values():
                assert value.dim() == 0 or not value[~mask].any(), (rigl.done, name)
        now = rigl.ticket()
        if seen and not all(np.array_equal(m, seen[-1].arrays[n]) for n, m in now.arrays.items()):
            steps.append(rigl.done - 1)
        seen.append(now)

    _, rigl = train(tmp_path, optimizer=optimizer, watch=watch)
    counts = [{n: int(m.sum()) for n, m in t.arrays.items()} for t in (start(net()), *seen)]
    assert all(c == counts[0] for c in counts) and len(seen) == STEPS
    assert steps == [6, 12, 18, 24] and rigl.end == 30  # after 75 % of the steps the masks stand


@pytest.mark.parametrize("stop_at", [5, 6, 7, 20, 33])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path, stop_at):
    model, rigl = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tmp_path / "cut", stop_at)
    again, resumed = train(tmp_path / "cut")
    assert resumed.done == rigl.done == STEPS
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert all(torch.equal(m, resumed.masks[n]) for n, m in rigl.masks.items())


def test_a_step_that_moves_masks_moves_no_other_weight(tmp_path):
    states = []
    train(tmp_path, watch=lambda rigl, _: states.append(rigl.weights["0.weight"].detach().clone()))
    before, after = states[EVERY - 1], states[EVERY]
    kept = (before != 0) & (after != 0)
    assert torch.equal(before[kept], after[kept]) and not torch.equal(before, after)
    assert not torch.equal(states[0], states[1])


def test_a_broken_gradient_is_told():
    model = net()
    rigl = RigL(model, torch.optim.SGD(model.parameters(), 0.1), start(model), steps=10, every=1)
    rigl.done = 1
    with pytest.raises(WinnowError, match=r"the gradient of 0\.weight is missing"):
        rigl.before_update()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    with pytest.raises(WinnowError, match="is not finite; lower lr"):
        rigl.before_update()


def test_weights_that_grew_and_are_zero_still_count_as_active():
    model = net()
    rigl = RigL(model, torch.optim.SGD(model.parameters(), 0.1), start(model), steps=100, every=1)
    rigl.done = 1
    before = {n: m.clone() for n, m in rigl.masks.items()}
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.zero_()
        parameter.grad = torch.arange(parameter.numel(), dtype=torch.float64).view(parameter.shape)
    rigl.before_update()
    for name, mask in rigl.masks.items():
        kept = int(before[name].sum())
        dropped = int(0.15 * (1 + math.cos(math.pi / 75)) * kept)
        assert int(mask.sum()) == kept
        active = before[name].reshape(-1).nonzero().squeeze(1)
        assert mask.reshape(-1)[active[: kept - dropped]].all(), name  # of equal weights the earlier stay
        assert dropped and mask.reshape(-1)[-dropped:].all(), name  # the steepest grow
