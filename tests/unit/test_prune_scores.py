"""Scores of the methods that look at a model, against their papers written out for networks that one can count on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from winnow import WinnowError
from winnow.prune import grasp, smart_ratio, snip, synflow
from winnow.prune.counts import keep_largest
from winnow.prune.wanda import keep_in_rows


def network() -> nn.Sequential:
    """With batch normalisation, so that training and evaluation mode differ."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    model[1].running_mean.fill_(0.7)
    return model


def examples() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two batches of different sizes."""
    torch.manual_seed(4)
    return [(torch.randn(n, 6), torch.randint(4, (n,))) for n in (12, 8)]


NAMES = ["0.weight", "3.weight"]


def mean_loss(model: nn.Module, temperature: float = 1.0) -> torch.Tensor:
    """Of all twenty examples, each batch normalised by itself, in training mode."""
    model.train()
    return sum(F.cross_entropy(model(x) / temperature, y, reduction="sum") for x, y in examples()) / 20


def test_snip_is_the_gradient_times_the_weight():
    model = network()
    weights = [model.get_parameter(n) for n in NAMES]
    gradients = torch.autograd.grad(mean_loss(model), weights)
    found = snip.scores(network(), NAMES, examples())
    for name, weight, gradient in zip(NAMES, weights, gradients, strict=True):
        assert torch.allclose(found[name], (weight * gradient).abs(), atol=1e-7) and found[name].min() >= 0


def test_grasp_is_the_weight_times_the_hessian_times_the_gradient_of_softened_logits():
    model = network()
    weights = [model.get_parameter(n) for n in NAMES]
    gradients = torch.autograd.grad(mean_loss(model, 200.0), weights, create_graph=True)
    products = torch.autograd.grad(sum((g * g.detach()).sum() for g in gradients), weights)
    found = grasp.scores(network(), NAMES, examples())
    for name, weight, product in zip(NAMES, weights, products, strict=True):
        assert torch.allclose(found[name], weight * product, rtol=1e-3, atol=1e-10)


def test_synflow_is_the_flow_through_each_weight_round_by_round():
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 6, bias=False), nn.Linear(6, 3, bias=False)
    )
    names = ["0.weight", "2.weight", "3.weight"]
    for weight in model.parameters():
        weight.data *= 1e-3 if weight.shape[0] == 6 else 40.0
    start = [model.get_parameter(n).detach().double().abs().numpy() for n in names]
    total, count = sum(w.size for w in start), 20
    alive = [np.ones(w.shape, dtype=bool) for w in start]
    for k in range(1, 101):
        a, b, c = (w * m for w, m in zip(start, alive, strict=True))
        into = [np.ones(5), a @ np.ones(5), b @ (a @ np.ones(5))]  # flow that arrives at each layer
        out = [np.ones(3) @ c @ b, np.ones(3) @ c, np.ones(3)]  # what leaves it for the outputs
        scores = {n: o[:, None] * w * i for n, w, i, o in zip(names, (a, b, c), into, out, strict=True)}
        kept = keep_largest(
            {n: np.where(m, s, -1.0) for (n, s), m in zip(scores.items(), alive, strict=True)},
            round(total * (count / total) ** (k / 100)), np.float64,
        )  # fmt: skip
        alive = list(kept.values())
    found = synflow.masks(model, names, count, [(torch.randn(2, 5), torch.zeros(2))])
    assert all(np.array_equal(found[n], m) for n, m in zip(names, alive, strict=True))
    assert all(m.dtype == bool for m in found.values()) and sum(m.sum() for m in found.values()) == count


def test_synflow_where_nothing_flows_still_keeps_the_count():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    nn.init.zeros_(model[1].weight)
    found = synflow.masks(model, ["0.weight", "1.weight"], 7, [(torch.randn(1, 4), torch.zeros(1))])
    assert sum(int(m.sum()) for m in found.values()) == 7


def test_rows_keep_their_own_largest_ties_to_the_left():
    scores = np.array([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0], [0.0, -1.0, 7.0, 1.0]])
    assert keep_in_rows(scores, np.array([2, 1, 3])).astype(int).tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 1, 1]]


def test_smart_ratio_by_hand():
    """Of four layers the first three keep in proportion to size * (20, 12, 6), over l^2 with the square; the last 30
    %.
    """
    assert smart_ratio.layer_counts([100, 200, 300, 50], 77) == [20, 24, 18, 15]
    assert smart_ratio.layer_counts([100, 200, 300, 50], 43, divide_by_square=True) == [20, 6, 2, 15]
    # twice too many in the first, a fifth too many in the second: both overflow into the third
    assert smart_ratio.layer_counts([10, 200, 300, 50], 455) == [10, 200, 230, 15]
    with pytest.raises(WinnowError, match="the last layer alone keeps"):
        smart_ratio.layer_counts([100, 200, 300, 50], 15)
    with pytest.raises(WinnowError, match="the last convolution overflows by"):
        smart_ratio.layer_counts([10, 200, 30, 50], 455)
    weights = {n: np.zeros(s) for n, s in (("a", 100), ("b", 200), ("c", 300), ("d", 50))}
    given, default = smart_ratio.masks(weights, 77, seed=0), smart_ratio.masks(weights, 77)
    assert all(np.array_equal(given[n], default[n]) for n in weights)
    assert [int(m.sum()) for m in default.values()] == [20, 24, 18, 15]
