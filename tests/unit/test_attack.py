"""PGD against advertorch from the same start, and what an attack may not do."""

from __future__ import annotations

import pytest
import torch

from winnow.compat import advertorch_attacks
from winnow.config.parts import Attack, Model
from winnow.errors import WinnowError
from winnow.schema import parse
from winnow.vision.attack import check_pixels, perturb, pgd, random_start
from winnow.vision.models import build


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = build(parse(Model, {"arch": "resnet8", "width": 4}), 5).eval()
    return model, torch.rand(6, 3, 8, 8), torch.arange(6) % 5


def attack(**keys):
    return parse(Attack, {"eps": 0.1, "step_size": 0.03, "steps": 7} | keys)


@pytest.mark.parametrize("keys", [{}, {"norm": "l2", "eps": 1.0, "step_size": 0.3}])
def test_equal_to_advertorch_from_the_same_start(problem, keys):
    model, x, y = problem
    settings = attack(**keys)
    start = random_start(x, settings, torch.Generator().manual_seed(3))
    advertorch_attacks()
    from advertorch.attacks.iterative_projected_gradient import perturb_iterative

    theirs = perturb_iterative(
        x, y, model, nb_iter=settings.steps, eps=settings.eps, eps_iter=settings.step_size,
        loss_fn=torch.nn.CrossEntropyLoss(reduction="sum"), delta_init=start.clone(),
        ord=2 if settings.norm == "l2" else float("inf"), clip_min=0.0, clip_max=1.0,
    )  # fmt: skip
    assert (pgd(model, x, y, settings, start) - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("backend", ["winnow", "advertorch"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_stays_in_the_ball_and_in_the_pixel_range_and_raises_the_loss(problem, norm, backend):
    model, x, y = problem
    settings = attack(norm=norm, backend=backend)
    adversarial = perturb(model, x, y, settings)
    delta = (adversarial - x).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert size.max() <= settings.eps + 1e-6
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    loss = torch.nn.functional.cross_entropy
    assert loss(model(adversarial), y) > loss(model(x), y)


def test_touches_no_parameter_gradient_no_statistics_and_no_mode(problem):
    model, x, y = problem
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    perturb(model, x, y, attack())
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball(norm):
    settings = attack(norm=norm, eps=0.2)
    x = torch.full((500, 3, 4, 4), 0.5)
    delta = random_start(x, settings).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert size.max() <= 0.2 + 1e-6
    assert size.mean() > 0.19 * (1 if norm == "linf" else 0.95)
    assert delta.mean().abs() < 0.01


def test_pixels_lie_in_the_unit_interval_and_nothing_is_no_mistake():
    check_pixels(torch.empty(0, 3, 4, 4))
    check_pixels(torch.tensor([0.0, 1.0]))
    for wrong in ([-0.1, 0.5], [0.5, 1.1], [-0.1, 1.1], [float("nan"), 0.5]):
        with pytest.raises(WinnowError, match="images must lie in"):
            check_pixels(torch.tensor(wrong))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_start_is_drawn_from_the_generator_that_is_given(norm):
    attack, x = parse(Attack, {"norm": norm, "eps": 0.2, "step_size": 0.1, "steps": 1}), torch.full((4, 3, 5, 5), 0.5)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(random_start(x, attack, torch.Generator().manual_seed(7)))
    assert torch.equal(*found) and len({tuple(d.flatten().tolist()) for d in found[0]}) == 4
