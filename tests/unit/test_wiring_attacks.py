"""Restarts and random starts, on models of which it is known how many starts fool them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from winnow.config.parts import Attack, Compute, Data, Train
from winnow.run import Run
from winnow.train import ranks
from winnow.vision.attack import perturb, pgd, random_start
from winnow.vision.batches import Loader
from winnow.vision.evaluate import Tally, robust_accuracy
from winnow.vision.sources import Split
from winnow.vision.training import make_step, train_classifier

CPU = torch.device("cpu")
DATA = Data(dataset="digits", val_images=1)
GREY = 128  # as a pixel 0.502


class Plateau(nn.Module):
    """Class 1 only where one pixel lies above 0.55: flat everywhere, so that an attack has nothing but its starts."""

    def forward(self, x):
        high = (x[:, 0, 0, 0] > 0.55).float() + 0.0 * x.square().sum((1, 2, 3))
        return torch.stack([1.0 - high, high], 1)


def flat_split(n: int, value: int = GREY) -> Split:
    return Split(np.full((n, 3, 4, 4), value, dtype=np.uint8), np.zeros(n, dtype=np.int64))


def survivors(restarts: int, random_start: bool = True, seed: int = 0, n: int = 4000, batch: int = 100) -> Tally:
    attack = Attack(eps=0.1, step_size=0.01, steps=1, restarts=restarts, random_start=random_start)
    tally = Tally([], lambda: None)
    robust_accuracy(Plateau(), Loader(flat_split(n), DATA, batch, CPU), attack, Compute(), seed, tally)
    return tally


# of one start a share of (0.502 + 0.1 - 0.55) / 0.2 fools; an image withstands n restarts when each of n draws misses
# it
FOOLS = (GREY / 255 + 0.1 - 0.55) / 0.2


@pytest.mark.parametrize("restarts", [1, 2, 4])
def test_an_image_must_withstand_every_restart_and_restarts_are_independent(restarts):
    assert sum(survivors(restarts).right) / 4000 == pytest.approx((1 - FOOLS) ** restarts, abs=0.03)
    # alone in its batch an image cannot get another start from its neighbours having left
    assert sum(survivors(restarts, n=500, batch=1).right) / 500 == pytest.approx((1 - FOOLS) ** restarts, abs=0.07)


def test_batches_and_seeds_start_elsewhere_and_a_run_repeats():
    counts = survivors(1).right
    assert np.std(counts) == pytest.approx((100 * FOOLS * (1 - FOOLS)) ** 0.5, rel=0.5)  # of 40 batches of 100 images
    assert counts == survivors(1).right and counts != survivors(1, seed=1).right


def test_without_a_random_start_nothing_moves_here():
    assert sum(survivors(2, random_start=False).right) == 4000


class Recorder(nn.Module):
    """A linear classifier that keeps what it is trained on."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(48, 2), []

    def forward(self, x):
        if self.training:
            self.seen.append(x.detach().clone())
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("value", [0, GREY, 255])
def test_training_starts_anew_at_every_step_and_stays_among_pixels(norm, value):
    torch.manual_seed(0)
    model, eps = Recorder(), 0.1 if norm == "linf" else 0.5
    attack = Attack(norm=norm, eps=eps, step_size=1e-4, steps=1)
    train = Train(epochs=3, batch_size=8, lr=0.01)
    loader = Loader(flat_split(16, value), DATA, 8, CPU)
    train_classifier(model, loader, loader, run=Run("cpu"), train=train, compute=Compute(), seed=0, attack=attack)
    seen = torch.cat(model.seen)
    assert len(seen) == 48 and seen.min() >= 0 and seen.max() <= 1
    starts = (seen - value / 255).flatten(1)
    size = starts.abs().amax(1) if norm == "linf" else starts.norm(dim=1)
    assert size.max() <= eps + 1e-6 and size.min() > 0.3 * eps  # 48 pixels: no start lies near the middle
    assert len({tuple(s.tolist()) for s in starts}) == 48, "two images of the run had one start"
    if value == GREY:
        # a step is 1e-4 long, the rest is the start: steps do not repeat each other's starts
        steps = starts.reshape(6, 8 * 48)
        correlation = np.corrcoef(steps.numpy())[np.triu_indices(6, 1)]
        assert np.abs(correlation).max() < 0.25


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.03])
def test_a_start_is_clipped_to_the_pixel_range(norm, value):
    x = torch.full((50, 3, 4, 4), value)
    attack = Attack(norm=norm, eps=0.1 if norm == "linf" else 1.0, step_size=0.1, steps=1)
    moved = x + random_start(x, attack)
    assert moved.min() >= 0 and moved.max() <= 1 and moved.std() > 0


def test_l2_projection_shrinks_what_is_outside_and_leaves_what_is_inside():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    x, y = torch.full((5, 3, 4, 4), 0.5), torch.zeros(5, dtype=torch.long)
    zero = torch.zeros_like(x)

    def length(eps: float, step: float, steps: int) -> torch.Tensor:
        attack = Attack(norm="l2", eps=eps, step_size=step, steps=steps)
        return (pgd(model, x, y, attack, zero.clone()) - x).flatten(1).norm(dim=1)

    assert torch.allclose(length(1.0, 0.1, 1), torch.full((5,), 0.1), atol=1e-6)
    assert torch.allclose(length(1.0, 0.1, 3), torch.full((5,), 0.3), atol=1e-4)  # straight on: the model is linear
    assert torch.allclose(length(0.25, 0.1, 3), torch.full((5,), 0.25), atol=1e-5)


def test_a_training_step_is_on_attacked_images_only_when_there_is_an_attack():
    torch.manual_seed(0)
    model, x, y = Recorder(), torch.full((4, 3, 4, 4), 0.5), torch.zeros(4, dtype=torch.long)
    for attack in (None, Attack(eps=0.1, step_size=0.1, steps=2)):
        model.seen.clear()
        with ranks.step(0, 0, 4):
            make_step(model, Train(epochs=1, batch_size=4, lr=0.1), Compute(), CPU, attack)((x, y))
        (seen,) = model.seen
        assert torch.equal(seen, x) == (attack is None)
    model.eval()
    assert not torch.equal(perturb(model, x, y, attack), x)
