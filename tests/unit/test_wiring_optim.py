"""Optimisers against torch's own, who gets weight decay, and that label smoothing reaches every loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from winnow.config.gems import Search
from winnow.config.parts import Compute, Train
from winnow.gems.search import GemSearch
from winnow.train import ranks
from winnow.train.optim import decay_groups, make_optimizer
from winnow.vision.training import make_step

CPU = torch.device("cpu")
REFERENCES = {
    "sgd": (
        {"optimizer": "sgd", "momentum": 0.9},
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.2),
    ),
    "plain sgd": ({"optimizer": "sgd", "momentum": 0.0}, lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.2)),
    "nesterov": (
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.2),
    ),
    "adam": ({"optimizer": "adam"}, lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.2)),
    "adamw": ({"optimizer": "adamw"}, lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.2)),
}


def course(make) -> list[torch.Tensor]:
    """Six steps on a slope that changes."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3))
    optimizer, slopes, found = make([weight]), torch.randn(6, 4, 3), []
    for slope in slopes:
        weight.grad = slope + 0.1 * weight.detach()
        optimizer.step()
        found.append(weight.detach().clone())
    return found


@pytest.mark.parametrize("name", list(REFERENCES))
def test_the_optimisers_are_torch_s(name):
    keys, reference = REFERENCES[name]
    config = Train(epochs=1, batch_size=1, lr=0.1, weight_decay=0.2, **keys)
    ours, theirs = course(lambda p: make_optimizer(config, p)), course(reference)
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.allclose(a, b, atol=1e-7), step
    others = [course(r) for n, (_, r) in REFERENCES.items() if n != name]
    assert all((ours[-1] - o[-1]).abs().max() > 1e-3 for o in others), "two of the references are alike"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.dense, self.LayerNorm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def test_biases_and_layer_norms_do_not_decay():
    model = Block()
    decayed, free = decay_groups(model, 0.3)
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {"embed.weight", "dense.weight"} and decayed[
        "weight_decay"
    ] == 0.3
    assert {names[id(p)] for p in free["params"]} == {"dense.bias", "LayerNorm.weight", "LayerNorm.bias"}
    assert free["weight_decay"] == 0.0


def test_text_fine_tuning_takes_these_groups():
    """One step of fine-tuning without a slope: what moves is what decays."""
    import numpy as np

    from winnow.run import Run
    from winnow.text import compat, training
    from winnow.text.batches import Encoded

    transformers = compat.transformers()
    size = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 30,
    }
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**size))
    for parameter in model.parameters():
        parameter.data.add_(0.1)  # no bias is zero
    before = {n: p.detach().clone() for n, p in model.named_parameters()}

    def without_slope(optimizer, *_):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)

    hook = register_optimizer_step_pre_hook(without_slope)
    ids = [np.array([2, 7, 3])] * 4
    data = Encoded(ids, [np.zeros_like(i) for i in ids], np.array([0, 1, 0, 1]), 0)
    train = Train(epochs=1, batch_size=4, optimizer="adamw", lr=0.1, weight_decay=0.5)
    training.finetune(model, {"train": data, "val": data}, run=Run("cpu"), train=train, compute=Compute(), seed=0)
    hook.remove()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    free = {n for n in before if n.endswith("bias") or "LayerNorm" in n}
    assert moved == set(before) - free and len(free) > 5


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 3, bias=False)

    def forward(self, x):
        return self.fc(x.flatten(1))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_label_smoothing_is_in_the_loss_of_training_and_of_searches(smoothing):
    torch.manual_seed(0)
    x, y, train = (
        torch.rand(5, 3, 2, 2),
        torch.arange(5) % 3,
        Train(epochs=1, batch_size=5, lr=0.1, label_smoothing=smoothing),
    )
    model = Net()
    expected = F.cross_entropy(model(x), y, label_smoothing=smoothing)
    (slope,) = torch.autograd.grad(expected, [model.fc.weight])
    with ranks.step(0, 0, 5):
        loss = make_step(model, train, Compute(), CPU, None)((x, y))
    assert torch.allclose(loss, expected, atol=1e-6) and torch.allclose(model.fc.weight.grad, slope, atol=1e-6)
    scores = {"fc.weight": torch.ones(3, 12)}
    gem = GemSearch(model, scores, Search(algo="hc", target_sparsity=50.0), 1)
    assert torch.allclose(gem.step(x, y, Compute(), None, smoothing), expected, atol=1e-6)


def test_label_smoothing_reaches_text_fine_tuning():
    from types import SimpleNamespace

    from winnow.text.training import plain_step

    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return SimpleNamespace(logits=self.fc(x))

    model, x, y = Text(), torch.rand(5, 4), torch.arange(5) % 3
    losses = [
        plain_step(model, Train(epochs=1, batch_size=5, lr=0.1, label_smoothing=s), Compute(), CPU)(
            {"x": x, "labels": y}
        )
        for s in (0.0, 0.3)
    ]
    expected = [F.cross_entropy(model.fc(x), y, label_smoothing=s) for s in (0.0, 0.3)]
    assert torch.allclose(torch.stack(losses), torch.stack(expected), atol=1e-6) and losses[0] != losses[1]
