"""Methods that take weights: each against its paper written out; every entry of the table keeps its interface."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow import Ticket, WinnowError
from winnow.prune import counts, erk, lamp, magnitude
from winnow.prune.methods import METHODS, load

CIFAR = {
    "stem": (16, 3, 3, 3),
    "a": (16, 16, 3, 3),
    "b": (32, 16, 3, 3),
    "c": (64, 64, 3, 3),
    "skip": (64, 32, 1, 1),
    "fc": (10, 64),
}


def drawn(shapes=CIFAR, seed=0):
    rng = np.random.default_rng(seed)
    return {n: (rng.normal(size=s) / np.sqrt(np.prod(s[1:]))).astype(np.float32) for n, s in shapes.items()}


def kept(masks):
    return {n: int(m.sum()) for n, m in masks.items()}


def erk_densities(shapes, count):
    """Evci et al., section 3, item 1: one layer at a time goes dense, the largest first, until none exceeds 1."""
    dense: set[str] = set()
    while True:
        rest = {n: s for n, s in shapes.items() if n not in dense}
        budget = count - sum(np.prod(shapes[n]) for n in dense)
        scale = budget / sum(sum(s) for s in rest.values()) if rest else 0.0  # size times sum/size is the sum
        raw = {n: scale * (s[0] + s[1] + sum(s[2:])) / np.prod(s) for n, s in rest.items()}
        if not raw or max(raw.values()) <= 1:
            return {n: 1.0 if n in dense else raw[n] for n in shapes}
        dense.add(max(raw, key=lambda n: raw[n]))


@pytest.mark.parametrize("percent", [0.5, 5, 10, 20, 50, 90, 99, 100])
def test_erk_has_the_papers_densities_and_the_exact_total(percent):
    weights = drawn()
    total = sum(w.size for w in weights.values())
    count = round(total * percent / 100)
    found, expected = kept(erk.masks(weights, count, seed=1)), erk_densities(CIFAR, count)
    assert sum(found.values()) == count
    for name, number in found.items():
        assert abs(number - expected[name] * weights[name].size) < 1, name


def test_erk_draws_by_the_seed_and_by_name():
    weights = drawn()
    one, same, other = (erk.masks(weights, 4000, seed=s) for s in (0, 0, 1))
    assert all(np.array_equal(one[n], same[n]) for n in one)
    assert not np.array_equal(one["c"], other["c"]) and kept(one) == kept(other)
    # an even draw: each quarter of a layer has its share, to within four standard deviations
    quarters = one["c"].reshape(4, -1).mean(1)
    assert np.ptp(quarters) < 8 * np.sqrt(quarters.mean() / (one["c"].size / 4))


def lamp_masks(weights, count):
    """Lee et al.: each weight over all of the layer that are no smaller; then the largest of all layers."""
    scored = []
    for name, values in weights.items():
        flat = [float(v) ** 2 for v in values.reshape(-1)]
        scored += [(-w / sum(v for v in flat if v >= w), name, u) for u, w in enumerate(flat)]
    masks = {n: np.zeros(w.size, dtype=bool) for n, w in weights.items()}
    for _, name, u in sorted(scored)[:count]:
        masks[name][u] = True
    return {n: m.reshape(weights[n].shape) for n, m in masks.items()}


@pytest.mark.parametrize("count", [2, 25, 130, 400, 511])
def test_lamp_keeps_what_the_papers_score_keeps(count):
    weights = drawn({"a": (8, 3, 3, 3), "b": (10, 30)}, seed=3)
    weights["b"] *= 40  # the score does not see a layer's scale
    found, expected = lamp.masks(weights, count), lamp_masks(weights, count)
    assert all(np.array_equal(found[n], expected[n]) for n in weights)
    assert sum(kept(found).values()) == count
    if count == 25:
        assert not all(np.array_equal(found[n], m) for n, m in magnitude.masks(weights, count).items())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, 1e-25]), min_size=2, max_size=40), st.data())
def test_lamp_is_exact_and_never_puts_a_smaller_weight_first(values, data):
    cut, count = data.draw(st.integers(1, len(values) - 1)), data.draw(st.integers(0, len(values)))
    weights = {"a": np.array(values[:cut], dtype=np.float32), "b": np.array(values[cut:], dtype=np.float32)}
    masks = lamp.masks(weights, count)
    assert sum(kept(masks).values()) == count
    for name, mask in masks.items():
        size = np.abs(weights[name])
        if mask.any() and not mask.all():
            assert size[mask].min() >= size[~mask].max()
            tied = np.flatnonzero(size == size[mask].min())
            assert (np.diff(mask[tied].astype(int)) <= 0).all()  # of equal ones the earlier stay


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 50), min_size=1, max_size=30))
def test_apportioned_numbers_are_the_shares_rounded_and_sum_exactly(shares):
    count = round(sum(shares))
    if not sum(shares):
        return
    scaled = np.array(shares) * (count / sum(shares))
    whole = counts.apportion(scaled, count)
    assert whole.sum() == count and (np.abs(whole - scaled) < 1).all() and (whole >= 0).all()


ARRAY_METHODS = [name for name, method in METHODS.items() if method.takes == "weights"]


@pytest.mark.parametrize("name", ARRAY_METHODS)
def test_methods_of_weights_are_exact_reproducible_and_leave_their_input(name):
    weights, before = drawn(), drawn()
    seeds = {"seed": 7} if METHODS[name].draws else {}
    count = 9000
    one, same = (load(name).masks(weights, count, **seeds) for _ in range(2))
    assert list(one) == list(weights) and all(np.array_equal(one[n], same[n]) for n in one)
    assert all(m.dtype == bool and m.shape == weights[n].shape for n, m in one.items())
    assert all(np.array_equal(weights[n], before[n]) for n in weights)
    number = Ticket(one).kept
    assert count - len(weights) <= number <= count if name == "smart_ratio" else number == count
    with pytest.raises(WinnowError, match="cannot keep"):
        load(name).masks(weights, sum(w.size for w in weights.values()) + 1, **seeds)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_entry_is_a_file_with_the_interface_that_it_names(name):
    method, module = METHODS[name], importlib.import_module(f"winnow.prune.{name}")
    if method.takes == "training":
        (kind,) = (c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__)
        assert all(hasattr(kind, f) for f in ("before_update", "ticket", "state_dict", "load_state_dict"))
        return
    model = ["model", "names", "count", "batches"]
    first = {"weights": ["weights", "count"], "ticket": ["like", "seed"], "model": model}
    parameters = inspect.signature(module.masks).parameters
    assert list(parameters)[: len(first[method.takes])] == first[method.takes]
    assert ("seed" in parameters) == method.draws


def test_light_methods_import_no_torch():
    light = [n for n, m in METHODS.items() if m.takes in ("weights", "ticket")]
    code = f"import sys, winnow.prune.methods as m; [m.load(n) for n in {light!r}]; sys.exit('torch' in sys.modules)"
    source = {"PYTHONPATH": str(Path(ROOT) / "src"), "PATH": ""}
    assert subprocess.run([sys.executable, "-c", code], env=source, check=False).returncode == 0


def test_an_unknown_method_is_told_with_the_nearest():
    with pytest.raises(WinnowError, match="'lamb' is no pruning method; did you mean 'lamp'"):
        load("lamb")


def test_what_each_method_needs_is_what_its_paper_says():
    """Of masks(weights, count): drawn or not; smart_ratio has no count of its own; SynFlow looks at no example."""
    found = {n: (m.takes, m.draws, m.whole, m.examples, m.kinds, m.tasks) for n, m in METHODS.items()}
    layers, both = ("conv", "linear"), ("images", "texts")
    expected = {name: ("weights", False, True, True, layers, both) for name in ("magnitude", "lamp")}
    expected |= {name: ("weights", True, True, True, layers, both) for name in ("random_global", "erk")}
    expected |= {name: ("model", False, True, True, layers, both) for name in ("snip", "grasp")}
    expected["random_like"] = ("ticket", True, True, True, layers, both)
    expected["smart_ratio"] = ("weights", True, False, True, layers, both)
    expected["synflow"] = ("model", False, True, False, layers, ("images",))
    expected["wanda"] = ("model", False, True, True, ("linear",), ("texts",))
    expected["rigl"] = ("training", False, True, True, layers, both)
    assert found == expected


def test_nothing_and_everything_can_be_kept():
    for count in (0, 10):
        masks = counts.keep_largest({"a": np.arange(6.0).reshape(2, 3), "b": np.ones(4)}, count)
        assert {n: m.dtype for n, m in masks.items()} == {"a": np.bool_, "b": np.bool_}
        assert {n: m.shape for n, m in masks.items()} == {"a": (2, 3), "b": (4,)}
        assert sum(int(m.sum()) for m in masks.values()) == count
