"""Folded normalisation: the same function and input gradient, nothing left behind, and where it must keep away."""

from __future__ import annotations

import pytest
import torch
import torch.nn.utils.parametrize
import torch.nn.utils.prune
from torch import nn

from winnow.config.parts import Model
from winnow.schema import parse
from winnow.vision.folding import _pairs, folded
from winnow.vision.models import build


def trained(arch, **keys):
    """Weights, scales and running statistics that are not those of a fresh model."""
    torch.manual_seed(0)
    model = build(parse(Model, {"arch": arch, **keys}), 5).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                for parameter in module.parameters():
                    parameter.normal_(1, 0.2)
    return model.eval()


CASES = [
    ("resnet8", {"width": 4}, 7),
    ("resnet8", {"width": 4, "classifier": "conv1x1", "bn": "non_affine"}, 7),
    ("resnet18", {"imagenet_stem": False}, 20),
    ("mobilenet_v2_cifar", {}, 52),
    ("MobileNetV2", {}, 57),
    ("wideresnet-10-1", {}, 3),  # pre-activation: only the first normalisation of a block follows a lone convolution
]


@pytest.mark.parametrize(("arch", "keys", "pairs"), CASES)
def test_same_logits_and_image_gradient(arch, keys, pairs):
    model = trained(arch, **keys)
    x = torch.rand(2, 3, 16, 16, requires_grad=True)

    def answer():
        logits = model(x)
        return logits.detach(), torch.autograd.grad(nn.functional.cross_entropy(logits, torch.tensor([0, 1])), x)[0]

    before = answer()
    with folded(model):
        within = answer()
    for plain, fast in zip(before, within, strict=True):
        assert (fast - plain).norm() < 1e-4 * plain.norm()
    assert len(_pairs(model)) == pairs
    assert all(torch.equal(a, b) for a, b in zip(before, answer(), strict=True))


def test_leaves_parameters_hooks_and_modules_as_they_were():
    model = trained("resnet8", width=4)
    parameters, state = dict(model.named_parameters()), {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="in the middle"), folded(model), folded(model):
        raise RuntimeError("in the middle")
    assert dict(model.named_parameters()).keys() == parameters.keys()
    assert all(p is parameters[n] for n, p in model.named_parameters())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any("forward" in vars(m) for m in model.modules())


def test_follows_weights_that_change_between_attacks():
    model, x = trained("resnet8", width=4), torch.rand(2, 3, 16, 16)
    with folded(model):
        model(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
        expected = model(x)
        with folded(model):
            assert (model(x) - expected).norm() < 1e-4 * expected.norm()


def test_follows_layers_that_are_replaced_or_computed_by_a_hook():
    model, x = trained("resnet8", width=4), torch.rand(2, 3, 16, 16)
    with folded(model):
        model(x)
    model.conv1 = nn.Conv2d(3, 4, 3, 1, 1)
    pruned = model.layer1[0].conv1
    nn.utils.prune.custom_from_mask(pruned, "weight", torch.rand_like(pruned.weight) < 0.5)
    nn.utils.parametrize.register_parametrization(model.layer1[0].conv2, "weight", nn.Tanh())
    with torch.no_grad():
        expected = model(x)
        with folded(model):
            assert (model(x) - expected).norm() < 1e-4 * expected.norm()
    assert len(_pairs(model)) == 5


def test_under_autocast_the_weights_are_cast_once():
    model = trained("resnet8", width=4)
    with torch.autocast("cpu", dtype=torch.bfloat16), folded(model):
        assert model.conv1.weight.dtype == torch.bfloat16
    assert model.conv1.weight.dtype == torch.float32


class Shared(nn.Module):
    """A convolution that is used twice, one whose output is used twice, and a branch that tracing cannot follow."""

    def __init__(self, branches):
        super().__init__()
        self.conv, self.bn1, self.bn2 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.branches = branches

    def forward(self, x):
        if self.branches and x.sum() > 0:
            return x
        y = self.bn1(self.conv(x))
        z = self.conv(y)
        return self.bn2(z) + z


@pytest.mark.parametrize("branches", [False, True])
def test_keeps_away_from_what_it_cannot_fold(branches):
    assert _pairs(Shared(branches).eval()) == []
