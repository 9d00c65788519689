"""Choosing weights: exact counts, nested rounds, agreement with torch.nn.utils.prune."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune as reference

from winnow import Ticket, WinnowError
from winnow.prune import magnitude, random_global, random_like
from winnow.prune.counts import imp_count, keep_largest


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=1, max_size=60), st.data())
def test_the_count_is_exact_whatever_the_ties(values, data):
    count = data.draw(st.integers(0, len(values)))
    cut = data.draw(st.integers(0, len(values)))
    scores = {"a": np.array(values[:cut], dtype=np.float32), "b": np.array(values[cut:], dtype=np.float32)}
    kept = keep_largest(scores, count)
    assert sum(int(m.sum()) for m in kept.values()) == count
    flat, mask = np.array(values), np.concatenate([kept["a"], kept["b"]])
    if 0 < count < len(values):
        assert flat[mask].min() >= flat[~mask].max()


def test_same_masks_as_torch_prune():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3))
    arrays = {f"{i}.weight": model[i].weight.detach().numpy().copy() for i in range(2)}
    total = sum(a.size for a in arrays.values())
    alive = None
    for round_number in (1, 2, 3):
        count = imp_count(total, round_number, 20.0)
        living = total if alive is None else sum(int(m.sum()) for m in alive.values())
        alive = magnitude.masks(arrays, count, alive)
        reference.global_unstructured(
            [(model[0], "weight"), (model[1], "weight")], pruning_method=reference.L1Unstructured, amount=living - count
        )
        for i in range(2):
            assert np.array_equal(alive[f"{i}.weight"], model[i].weight_mask.numpy().astype(bool))


@pytest.mark.parametrize("total", [11173962, 270896, 18648, 97])
def test_imp_removes_the_published_percentages_to_within_one_weight(total):
    for k, removed in enumerate([20, 36, 48.8, 59.04], start=1):
        assert abs(total - imp_count(total, k, 20.0) - total * removed / 100) <= 1
    published = [
        67.23,
        73.79,
        79.03,
        83.22,
        86.58,
        89.26,
        91.41,
        93.13,
        94.50,
        95.60,
        96.48,
        97.19,
        97.75,
        98.20,
        98.56,
    ]
    for k, removed in enumerate(published, start=5):
        assert abs(100 * (1 - imp_count(11173962, k, 20.0) / 11173962) - removed) < 0.006


def test_rounds_are_nested_even_when_weights_change():
    rng = np.random.default_rng(0)
    alive, total = None, 500
    for k in range(1, 8):
        weights = {"a": rng.normal(size=(20, 15)).astype(np.float32), "b": rng.normal(size=200).astype(np.float32)}
        now = magnitude.masks(weights, imp_count(total, k, 20.0), alive)
        assert alive is None or Ticket(now).is_within(Ticket(alive))
        alive = now


def test_random_masks_have_the_same_counts_per_layer_and_depend_on_the_seed():
    like = Ticket(magnitude.masks({"a": np.random.default_rng(1).normal(size=(9, 9)), "b": np.arange(50.0)}, 70))
    one, same, other = (random_like.masks(like, s) for s in (0, 0, 1))
    for name, mask in like.arrays.items():
        assert one[name].sum() == mask.sum()
        assert np.array_equal(one[name], same[name])
    assert not np.array_equal(one["a"], other["a"])


def test_what_is_alive_may_stay_as_it_is_and_zeros_among_it_come_before_what_is_gone():
    alive = {"a": np.array([True, False, True, False, True])}
    weights = {"a": np.array([0.0, 9.0, 0.0, 8.0, -0.5])}
    assert np.array_equal(magnitude.masks(weights, 3, alive)["a"], alive["a"])
    assert magnitude.masks(weights, 2, alive)["a"].tolist() == [True, False, False, False, True]


def test_random_global_is_exact():
    masks = random_global.masks({"a": np.empty((7, 3)), "b": np.empty(11)}, 13, seed=5)
    assert sum(int(m.sum()) for m in masks.values()) == 13


def test_nan_and_impossible_counts_are_errors():
    with pytest.raises(WinnowError, match="b holds NaN"):
        keep_largest({"a": np.ones(2), "b": np.array([np.nan])}, 1)
    with pytest.raises(WinnowError, match="cannot keep 4 of 3"):
        keep_largest({"a": np.ones(3)}, 4)
    with pytest.raises(WinnowError, match="cannot keep 3 weights: 1 are left"):
        magnitude.masks({"a": np.ones(3)}, 3, {"a": np.array([True, False, False])})
