"""Gems: pruning rules, orders, regularisers, initialisations, scores over a model, baselines at initialisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.config.gems import Search
from winnow.config.parts import Model
from winnow.errors import WinnowError
from winnow.gems import inits, order, pruning, regularizers
from winnow.gems.scores import ScoredWeights, scorable
from winnow.prune import grasp, smart_ratio, snip, synflow
from winnow.vision import models

SMALL = Model(arch="resnet8", width=4, classifier="conv1x1", bn="non_affine")


def small_model(layout=torch.contiguous_format):
    torch.manual_seed(0)
    return models.build(SMALL, 10).to(memory_format=layout)


@given(st.integers(1, 400), st.floats(0.01, 0.99), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_bottom_k_drops_the_rule_s_count(size, fraction, seed):
    scores = torch.from_numpy(np.random.default_rng(seed).permutation(size).astype(np.float32))
    alive = torch.from_numpy(np.random.default_rng(seed + 1).random(size) < 0.7)
    kept, threshold = pruning.bottom_k(scores, alive, fraction)
    living = int(alive.sum())
    assert int(kept.sum()) == living - math.ceil(fraction * living)
    assert not bool((kept & ~alive).any())
    if kept.any():
        assert float(scores[kept].min()) > threshold


def test_bottom_k_drops_ties_of_the_threshold():
    kept, threshold = pruning.bottom_k(torch.tensor([1.0, 1.0, 1.0, 2.0]), torch.ones(4, dtype=torch.bool), 0.25)
    assert threshold == 1.0 and kept.tolist() == [False, False, False, True]


def test_local_bottom_k_prunes_each_layer_alike():
    scores = torch.cat([torch.arange(10.0), torch.arange(100.0, 110.0)])
    kept, _ = pruning.local_bottom_k(scores, torch.ones(20, dtype=torch.bool), 0.5, [10, 10])
    assert kept[:10].sum() == kept[10:].sum() == 5


@given(st.lists(st.integers(0, 5), min_size=1, max_size=50), st.data())
@settings(max_examples=60, deadline=None)
def test_keep_top_is_exact_with_ties(values, data):
    count = data.draw(st.integers(0, len(values)))
    scores = torch.tensor(values, dtype=torch.float32)
    kept = pruning.keep_top(scores, count)
    assert int(kept.sum()) == count
    if 0 < count < len(values):
        assert float(scores[kept].min()) >= float(scores[~kept].max())


def test_prune_fraction_reaches_the_target():
    fraction = pruning.prune_fraction(5.0, 10, 1)
    assert (1 - fraction) ** pruning.prune_count(10, 1) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="never prunes"):
        pruning.prune_fraction(5.0, 5, 5)


@pytest.mark.parametrize("name", sorted(regularizers.TERMS))
def test_regulariser_gradients_are_those_of_autograd(name):
    generator = torch.Generator().manual_seed(1)
    scores = (torch.rand(200, generator=generator, dtype=torch.float64) * 0.98 + 0.01).requires_grad_()
    weights = torch.randn(200, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(0.3 * regularizers.penalty(name, scores, weights), scores)
    gradient = torch.ones(200, dtype=torch.float64)
    regularizers.add_gradient(name, scores.detach(), weights, 0.3, gradient)
    torch.testing.assert_close(gradient - 1, expected)


@pytest.mark.parametrize(
    "init", ["signed_constant", "kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_constant", "standard"]
)
def test_weight_inits_have_their_spread(init):
    drawn = inits.draw_weight((64, 32, 3, 3), init, 1.0, inits.generator(0))
    fan_in, fan_out = 32 * 9, 64 * 9
    spread = {
        "xavier_normal": 2 / math.sqrt(fan_in + fan_out),
        "xavier_constant": 2 / math.sqrt(fan_in + fan_out),
        "standard": 1 / math.sqrt(3 * fan_in),
    }.get(init, math.sqrt(2 / fan_in))
    assert float(drawn.pow(2).mean().sqrt()) == pytest.approx(spread, rel=0.02)
    assert abs(float(drawn.mean())) < 0.05 * spread
    scaled = inits.draw_weight((64, 32, 3, 3), init, 0.25, inits.generator(0))
    torch.testing.assert_close(scaled, drawn * 2)


def test_unsigned_constant_is_positive():
    drawn = inits.draw_weight((8, 4), "unsigned_constant", 1.0, inits.generator(0))
    assert drawn.unique().tolist() == pytest.approx([math.sqrt(2 / 4)])


@pytest.mark.parametrize(
    ("score_init", "mean"), [("unif", 0.5), ("half", 0.5), ("bern", 0.5), ("bimodal", 0.5), ("skew", 1 / 6)]
)
def test_score_inits(score_init, mean):
    drawn = inits.draw_scores((100, 200), score_init, inits.generator(3))
    assert drawn.shape == (100, 200) and drawn.dtype == torch.float32
    assert float(drawn.min()) >= 0 and float(drawn.max()) <= 1
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.01)
    if score_init == "bimodal":  # Beta(0.1, 0.1): variance 1 / (4 * 1.2)
        assert float(drawn.var()) == pytest.approx(1 / 4.8, rel=0.03)
    torch.testing.assert_close(drawn, inits.draw_scores((100, 200), score_init, inits.generator(3)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_scores_get_the_straight_through_gradient(layout):
    model, plain = small_model(layout), small_model()
    names = scorable(model)
    start = {
        n: torch.rand(p.shape, generator=torch.Generator().manual_seed(i))
        for i, (n, p) in enumerate(plain.named_parameters())
    }
    scored = ScoredWeights(model, start)
    scored.set_alive(torch.arange(scored.scores.numel()) % 7 != 0)
    alive = {n: v.clone() for n, v in scored.views(scored.alive).items()}
    x, y = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(9)), torch.arange(6)
    scored.mask_weights(scored.scores.detach() > 0.5)
    scored.backward(torch.nn.functional.cross_entropy(model(x), y))
    masked = {n: (p * (start[n] > 0.5) * alive[n]).detach().requires_grad_() for n, p in plain.named_parameters()}
    loss = torch.nn.functional.cross_entropy(torch.func.functional_call(plain, masked, (x,)), y)
    gradients = torch.autograd.grad(loss, list(masked.values()))
    found = scored.views(scored.scores.grad)
    for (name, parameter), gradient in zip(plain.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(found[name], gradient * parameter.detach() * alive[name], rtol=1e-4, atol=1e-6)
    assert names == list(masked)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_scored_weights_lie_as_the_model_s_and_all_else_is_frozen(layout):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(6, 2))
    model.to(memory_format=layout)
    weight = model[0].weight.detach().clone(memory_format=torch.preserve_format)
    scored = ScoredWeights(model, {n: torch.zeros(model.get_parameter(n).shape) for n in scorable(model)})
    assert scored.layout == layout and model[0].weight.is_contiguous(memory_format=layout)
    other = ({torch.contiguous_format, torch.channels_last} - {layout}).pop()
    assert not model[0].weight.is_contiguous(memory_format=other)
    scored.mask_weights(torch.ones(scored.scores.numel()))
    assert torch.equal(model[0].weight, weight) and scored.views(scored.weights)["0.weight"].stride() == weight.stride()
    scored_names = set(scorable(model))
    assert all(p.requires_grad == (n in scored_names) for n, p in model.named_parameters())


def search_with_exempt_layer(**keys):
    from winnow.gems.search import GemSearch, start_scores

    model, exempt = small_model(), "layer2.0.conv1.weight"
    model.never_hard_pruned = frozenset({exempt})
    config = Search(algo="hc_iter", target_sparsity=25, iter_period=1, **keys)
    return GemSearch(model, start_scores(model, "unif", 0), config, epochs=3), exempt


@pytest.mark.parametrize("prune_type", ["BottomK", "LocalBottomK", "FixThresholding"])
def test_layers_exempt_from_hard_pruning_stay_and_count_nowhere(prune_type):
    gem, exempt = search_with_exempt_layer(prune_type=prune_type)
    counted = [n for n in gem.scored.names if n != exempt]
    total = sum(math.prod(gem.scored.shapes[n]) for n in counted)
    start = gem.end_of_epoch(0)
    assert start["alive_percent"] == 100.0
    rounded = gem.scored.views(gem.rounded())
    assert start["remaining_percent"] == pytest.approx(100 * sum(int(rounded[n].sum()) for n in counted) / total)
    assert int((~rounded[exempt]).sum()) > 0  # its scores round like all others
    gem.end_of_epoch(1), gem.end_of_epoch(2)
    gem.close()
    alive = gem.scored.views(gem.scored.alive)
    assert bool(alive[exempt].all()) and set(gem.ticket()) == set(counted)
    kept = sum(int(m.sum()) for m in gem.ticket().values())
    fixed = sum(int(rounded[n].sum()) for n in counted)
    assert kept == fixed if prune_type == "FixThresholding" else kept == pytest.approx(0.25 * total, rel=0.02)
    assert {n.rpartition(".")[0] for n in gem.order()} == set(counted)


def test_the_last_rounding_takes_weights_of_exempt_layers_too():
    gem, exempt = search_with_exempt_layer(unflag_before_finetune=False)
    for epoch in range(3):
        gem.end_of_epoch(epoch)
    expected = (gem.scored.views(gem.scored.scores.detach())[exempt] > 0.5).numpy()
    gem.close()
    assert (gem.ticket()[exempt] == expected).all() and set(gem.ticket()) == set(gem.scored.names)


def test_model_without_layers_is_refused():
    with pytest.raises(WinnowError, match="no convolution or linear"):
        ScoredWeights(torch.nn.Sequential(torch.nn.ReLU()), {})


def test_order_draws_every_sparsity_nested():
    rng = np.random.default_rng(0)
    levels = {"a": rng.integers(1, 4, (20, 10)).astype(np.int16), "b": rng.integers(1, 4, 50).astype(np.int16)}
    scores = {n: rng.random(v.shape).astype(np.float32) for n, v in levels.items()}
    total, last = 250, None
    for percent in (90, 70, 50, 40):
        masks = order.draw(levels, scores, percent / 100)
        assert sum(int(m.sum()) for m in masks.values()) == total - math.ceil((1 - percent / 100) * total)
        assert last is None or all(not np.any(masks[n] & ~last[n]) for n in masks)
        last = masks
    with pytest.raises(WinnowError, match="search with a lower target"):
        order.draw(levels, scores, 0.05)


def test_order_draw_at_a_level_is_that_level():
    levels = {"a": np.repeat([1, 2, 3], [50, 25, 25]).astype(np.int16)}
    scores = {"a": np.zeros(100, dtype=np.float32)}
    np.testing.assert_array_equal(order.draw(levels, scores, 0.5)["a"], order.level_masks(levels, 1)["a"])


def test_smart_ratio_masks_have_exact_counts():
    shapes = {"a": (16, 3, 3, 3), "b": (32, 16, 3, 3), "c": (10, 32)}
    weights = {name: np.empty(shape) for name, shape in shapes.items()}
    total = sum(w.size for w in weights.values())
    masks = smart_ratio.masks(weights, total * 0.2)
    counts = smart_ratio.layer_counts([w.size for w in weights.values()], total * 0.2)
    assert [int(m.sum()) for m in masks.values()] == counts
    assert [m.shape for m in masks.values()] == list(shapes.values())


@pytest.mark.parametrize(
    ("sizes", "remaining", "message"),
    [([10], 0.5, "two layers"), ([10, 1000], 0.1, "last layer alone"), ([100, 100, 10], 0.99, "overflows")],
)
def test_smart_ratio_refuses(sizes, remaining, message):
    with pytest.raises(WinnowError, match=message):
        smart_ratio.layer_counts(sizes, sum(sizes) * remaining)


def test_snip_and_grasp_scores_are_directional_derivatives():
    model, names = small_model().double(), scorable(small_model())
    x, y = torch.rand(8, 3, 8, 8, dtype=torch.float64), torch.arange(8)
    sensitivity = snip.scores(model, names, [(x, y)])
    flow = grasp.scores(model, names, [(x, y)])
    parameters = dict(model.named_parameters())

    def gradient_norm():
        loss = torch.nn.functional.cross_entropy(model(x) / grasp.TEMPERATURE, y)
        return sum(g.pow(2).sum() for g in torch.autograd.grad(loss, list(parameters.values()))).detach()

    name, step = names[2], 1e-6
    weight = parameters[name]
    start = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1 + step)
    more = gradient_norm()
    with torch.no_grad():
        weight.copy_(start).mul_(1 - step)
    less = gradient_norm()
    # d |g|^2 / d scale = 2 w.Hg over the layer
    assert float(2 * flow[name].sum()) == pytest.approx(float((more - less) / (2 * step)), rel=1e-3)
    assert all(float(s.min()) >= 0 for s in sensitivity.values())


def test_synflow_keeps_count_and_leaves_the_model_alone():
    model = small_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    masks = synflow.masks(model, scorable(model), 300, [(torch.rand(2, 3, 8, 8), None)])
    assert sum(int(m.sum()) for m in masks.values()) == 300
    assert all(m.any() for m in masks.values())  # synaptic flow never cuts a layer off
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("arch", ["vgg16_cifar", "mobilenet_v2_cifar", "wideresnet-16-1", "conv4", "resnet18"])
def test_models_without_bias_and_affine_have_scored_weights_only(arch):
    model = models.build(Model(arch=arch, classifier="conv1x1", bn="non_affine", imagenet_stem=False), 7).eval()
    assert {n for n, _ in model.named_parameters()} == set(scorable(model))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(WinnowError, match=r"6n\+4"):
        models.build(Model(arch="wideresnet-17-1"), 7)
