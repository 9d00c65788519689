"""Gem searches on scores that are known: what is ranked, rewound, drawn, inverted; and the variants that a gem is
checked against.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import MODEL
from torch import nn

from winnow.artifacts import read_arrays, read_json
from winnow.config.gems import Search
from winnow.config.parts import Compute, Data, Train
from winnow.gems.order import draw
from winnow.gems.search import GemSearch, search
from winnow.run import Run
from winnow.ticket import Ticket
from winnow.vision.batches import Loader
from winnow.vision.sources import load

CPU = torch.device("cpu")
DIGITS = {"dataset": "digits", "classes": [0, 1, 2], "val_images": 30, "train_images": 48}
FROZEN = {**MODEL, "classifier": "conv1x1", "bn": "non_affine"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3 * 64, 12, bias=False), nn.Linear(12, 3, bias=False)

    def forward(self, x):
        return self.b(torch.relu(self.a(x.flatten(1))))


def net() -> Net:
    torch.manual_seed(1)
    return Net()


@pytest.fixture(scope="module")
def loader():
    data = Data(**DIGITS)
    return Loader(load(data, None).train, data, 24, CPU, seed=0)


def start_scores(signed: bool = False) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(5)
    shapes = {"a.weight": (12, 192), "b.weight": (3, 12)}
    scores = {n: 0.5 + 0.5 * torch.rand(s, generator=rng) for n, s in shapes.items()}
    signs = {n: torch.where(torch.rand(s, generator=rng) < 0.5, -1.0, 1.0) for n, s in shapes.items()}
    return {n: s * signs[n] if signed else s for n, s in scores.items()}


def still(loader, scores, **keys):
    """A search whose scores do not move: what it gives up is decided by the start alone."""
    config = Search(target_sparsity=25.0, iter_period=1, regularization=None, **keys)
    train = Train(epochs=3, batch_size=24, lr=1e-12)
    gem, _ = search(net(), loader, run=Run("cpu"), config=config, train=train, compute=Compute(), seed=0, scores=scores)
    return gem


def split_order(gem):
    order = gem.order()
    names = [n.removesuffix(".level") for n in order if n.endswith(".level")]
    return {n: order[f"{n}.level"] for n in names}, {n: order[f"{n}.score"] for n in names}


def largest(scores: dict[str, torch.Tensor], percent: float) -> dict[str, np.ndarray]:
    total = sum(s.numel() for s in scores.values())
    count = total - math.ceil(total * (1 - percent / 100))
    threshold = torch.cat([s.flatten() for s in scores.values()]).sort().values[-count]
    return {n: (s >= threshold).numpy() for n, s in scores.items()}


@pytest.mark.parametrize("percent", [70, 60, 40, 30])
@pytest.mark.parametrize("algo", ["hc_iter", "global_ep_iter"])
@pytest.mark.parametrize("invert", [False, True])
def test_every_sparsity_keeps_the_highest_ranks_and_inverted_the_lowest(loader, percent, algo, invert):
    scores = start_scores(signed=algo == "global_ep_iter")
    masks = draw(*split_order(still(loader, scores, algo=algo, invert=invert)), percent / 100)
    rank = {n: s.abs() * (-1 if invert else 1) for n, s in scores.items()}
    expected = largest(rank, percent)
    assert sum(int((masks[n] != expected[n]).sum()) for n in masks) == 0


def test_a_search_of_which_nothing_rounds_to_one_goes_straight_to_its_target(loader):
    scores = {n: 0.4 * s for n, s in start_scores().items()}  # all below one half: every mask is empty
    gem = still(loader, scores, algo="hc_iter")
    assert gem.collapsed and gem.finished and gem.prunes == 1
    found, expected = gem.ticket(), largest(scores, 25.0)
    assert all(np.array_equal(found[n], expected[n]) for n in expected)
    above = still(loader, start_scores(), algo="hc_iter")
    assert not above.collapsed and not above.finished and above.prunes > 1


def test_scores_are_rewound_after_a_prune_only_when_asked():
    for rewind in (True, False):
        scores = start_scores()
        config = Search(algo="hc_iter", target_sparsity=25.0, iter_period=1, rewind_score=rewind)
        gem = GemSearch(net(), scores, config, 3)
        start = torch.cat([s.flatten() for s in scores.values()])
        gem.scored.scores.data.mul_(0.9)
        gem.end_of_epoch(0)  # no prune yet
        assert torch.allclose(gem.scored.scores.detach(), 0.9 * start)
        gem.end_of_epoch(1)
        assert gem.prunes == 1 and torch.allclose(gem.scored.scores.detach(), start if rewind else 0.9 * start)


def test_drawn_rounding_keeps_with_the_score_as_probability_and_draws_anew():
    def kept(gem, training: bool) -> torch.Tensor:
        gem.fold(training)
        return gem.scored.effective != 0

    for value in (0.2, 0.7):
        flat = {n: torch.full_like(s, value) for n, s in start_scores().items()}
        drawn = GemSearch(net(), flat, Search(algo="hc", target_sparsity=50.0, round="prob"), 1)
        torch.manual_seed(0)
        first, second = kept(drawn, True), kept(drawn, True)
        assert float(first.float().mean()) == pytest.approx(value, abs=0.03) and not torch.equal(first, second)
        rounded = value > 0.5
        assert bool((kept(drawn, False) == rounded).all())
        naive = GemSearch(net(), flat, Search(algo="hc", target_sparsity=50.0, round="naive"), 1)
        assert bool((kept(naive, True) == rounded).all())


@pytest.mark.parametrize(("algo", "signed"), [("ep", True), ("global_ep", True), ("hc", False)])
def test_edge_popup_s_gradient_is_through_the_magnitude(algo, signed):
    """d loss / d score: dense gradient times weight, and for |score| times its sign."""
    x, y = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(6) % 3
    scores, plain = start_scores(signed), net()
    gem = GemSearch(net(), scores, Search(algo=algo, target_sparsity=50.0, regularization=None), 1)
    loss = gem.step(x, y, Compute())
    mask = gem.scored.views(gem.rounded())
    masked = {n: (p.detach() * mask[n]).requires_grad_() for n, p in plain.named_parameters()}
    reference = nn.functional.cross_entropy(torch.func.functional_call(plain, masked, (x,)), y)
    slopes = torch.autograd.grad(reference, list(masked.values()))
    assert torch.allclose(loss, reference, atol=1e-6)
    found = gem.scored.views(gem.scored.scores.grad)
    for (name, weight), slope in zip(plain.named_parameters(), slopes, strict=True):
        expected = slope * weight.detach() * (scores[name].sign() if signed else 1.0)
        assert torch.allclose(found[name], expected, atol=1e-6), name
    kept = torch.cat([m.flatten() for m in mask.values()])
    magnitudes = torch.cat([s.abs().flatten() for s in scores.values()])
    if algo == "global_ep":
        assert float(magnitudes[kept].min()) >= float(magnitudes[~kept].max())


def files(tmp_path, *names):
    return {name: tmp_path / f"{name}.safetensors" for name in names}


@pytest.mark.parametrize(("init", "power"), [("signed_constant", 1), ("kaiming_normal", 1), ("standard", 1)])
def test_scaled_fans_make_weights_larger_by_what_shall_remain(run_stage, tmp_path, init, power):
    found = {}
    for scale in (False, True):
        out = tmp_path / f"{scale}.safetensors"
        drawn = {"init": init, "scale_fan": scale, "target_sparsity": 16}
        assert run_stage("gem_init", {"data": DIGITS, "model": FROZEN, "init": drawn, "seed": 0}, out=out)[0] == 0
        found[scale] = read_arrays(out)
    for name in (n for n in found[True] if n.endswith("weight")):
        assert np.allclose(found[True][name], found[False][name] / 0.4, rtol=1e-5)  # the root of 0.16


def test_the_variants_of_a_gem_are_what_they_are_called(run_stage, tmp_path, monkeypatch):
    """Other weights under its mask, its mask shuffled within layers, and the ticket of an inverted search; each on its
    own.
    """
    made = files(tmp_path, "init", "gem.mask", "order", "inverted", "other.mask")
    init = {"data": DIGITS, "model": FROZEN, "init": {"init": "kaiming_normal"}, "seed": 0}
    assert run_stage("gem_init", init, out=made["init"])[0] == 0
    task = {"data": DIGITS, "train": {"epochs": 3, "batch_size": 24, "lr": 1.0}, "compute": {}, "seed": 0}
    for invert, out, order in ((False, "gem.mask", "order"), (True, "other.mask", "inverted")):
        config = {**task, "search": {"algo": "hc_iter", "target_sparsity": 20, "iter_period": 1, "invert": invert}}
        metrics = tmp_path / f"{order}.json"
        assert (
            run_stage("gem_search", config, init=made["init"], out=made[out], order=made[order], metrics=metrics)[0]
            == 0
        )

    seen, apply = [], Ticket.apply

    def record(ticket, model, *words, **named):
        seen.append((ticket.arrays, {n: p.detach().numpy().copy() for n, p in model.named_parameters()}))
        return apply(ticket, model, *words, **named)

    monkeypatch.setattr(Ticket, "apply", record)
    config = {**task, "train": {"epochs": 1, "batch_size": 24, "lr": 0.05}, "target_sparsity": 20}
    inputs = {"init": made["init"], "mask": made["gem.mask"], "inverted": made["inverted"]}
    assert run_stage("gem_sanity", config, **inputs, metrics=tmp_path / "sanity.json")[0] == 0
    monkeypatch.undo()
    gem, start = Ticket.load(made["gem.mask"]), read_arrays(made["init"])

    def same_mask(arrays) -> bool:
        return all((arrays[n] == gem.arrays[n]).all() for n in gem.arrays)

    def kept(arrays) -> dict[str, int]:
        return {n: int(m.sum()) for n, m in arrays.items()}

    firsts = [
        entry for entry, last in zip(seen, [None, *seen], strict=False) if last is None or entry[0] is not last[0]
    ]
    (reinit, new), (shuffled, own), (inverted, own_too) = firsts
    for name in gem.arrays:
        assert not np.isclose(new[name], start[name]).mean() > 0.01, "new weights are not the old ones"
        assert (own[name] == start[name]).all() and (own_too[name] == start[name]).all()
    spread = {n: new[n].std() / start[n].std() for n in gem.arrays if new[n].size > 100}
    assert all(0.7 < s < 1.4 for s in spread.values())
    assert same_mask(reinit) and not same_mask(shuffled) and not same_mask(inverted)
    assert kept(shuffled) == kept(gem.arrays)
    overlap = sum(int((inverted[n] & gem.arrays[n]).sum()) for n in gem.arrays) / gem.kept
    assert overlap < 0.15 < sum(int((shuffled[n] & gem.arrays[n]).sum()) for n in gem.arrays) / gem.kept
    checks = read_json(tmp_path / "sanity.json")["checks"]
    losses = [c["epochs"][0]["loss"] for c in checks.values()]
    assert set(checks) == {"reinit", "shuffle", "invert"} and len(set(losses)) == 3


def test_a_seed_draws_other_shuffles_and_other_weights(run_stage, tmp_path):
    made = files(tmp_path, "init", "gem.mask")
    init = {"data": DIGITS, "model": FROZEN, "init": {"init": "kaiming_normal"}, "seed": 0}
    assert run_stage("gem_init", init, out=made["init"])[0] == 0
    ticket = {"method": "random", "remaining_percent": 30, "seed": 9}
    assert run_stage("prune", ticket, weights=made["init"], out=made["gem.mask"])[0] == 0
    before = []
    for seed in (0, 1):
        train = {"epochs": 1, "batch_size": 48, "lr": 1e-9}
        config = {"data": DIGITS, "train": train, "compute": {}, "seed": seed, "target_sparsity": 30}
        metrics = tmp_path / f"{seed}.json"
        assert run_stage("gem_sanity", config, init=made["init"], mask=made["gem.mask"], metrics=metrics)[0] == 0
        before.append({k: v["epochs"][0]["loss"] for k, v in read_json(metrics)["checks"].items()})
    # one batch of all images: the loss depends on the network alone, not on the order
    assert all(abs(before[0][check] - before[1][check]) > 1e-4 for check in ("reinit", "shuffle"))


def test_sanity_checks_of_an_imp_ticket(run_stage, tmp_path, monkeypatch):
    """`inverted` may be a ticket; each check keeps the weights that the ticket's own training keeps."""
    from winnow.gems import finetune

    made = files(tmp_path, "init", "gem.mask", "other.mask")
    init = {"data": DIGITS, "model": FROZEN, "init": {"init": "kaiming_normal"}, "seed": 0}
    assert run_stage("gem_init", init, out=made["init"])[0] == 0
    for out, invert in (("gem.mask", {}), ("other.mask", {"options": {"invert": True}})):
        cut = {"method": "magnitude", "remaining_percent": 30, **invert}
        assert run_stage("prune", cut, weights=made["init"], out=made[out])[0] == 0
    start = read_arrays(made["init"])
    large, small = Ticket.load(made["gem.mask"]), Ticket.load(made["other.mask"])
    assert small.kept == large.kept == round(0.3 * large.total)
    sizes = {n: np.abs(start[n]) for n in large.arrays}
    assert max(sizes[n][m].max() for n, m in small.arrays.items() if m.any()) <= min(
        sizes[n][~m].min() for n, m in small.arrays.items() if not m.all()
    )
    seen, train = [], finetune.train_classifier

    def record(model, *words, ticket=None, watch=(), **named):
        seen.append((ticket, watch))
        return train(model, *words, ticket=ticket, watch=watch, **named)

    monkeypatch.setattr(finetune, "train_classifier", record)
    config = {"data": DIGITS, "train": {"epochs": 1, "batch_size": 24, "lr": 0.05}, "compute": {}, "seed": 0}
    inputs = {"init": made["init"], "mask": made["gem.mask"], "inverted": made["other.mask"]}
    for keep, watched in (("last", ()), ("best", ("val_sa",))):
        own = {**config, "target_sparsity": 30, "keep": keep}
        assert run_stage("gem_sanity", own, **inputs, metrics=tmp_path / f"{keep}.json")[0] == 0
        assert set(read_json(tmp_path / f"{keep}.json")["checks"]) == {"reinit", "shuffle", "invert"}
        assert [watch for _, watch in seen] == [watched] * 3
        assert all((seen[2][0].arrays[n] == m).all() for n, m in small.arrays.items())
        seen.clear()
