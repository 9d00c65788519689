"""Batches in several passes: the gradient of the whole batch, in one process and in several, for every kind of step."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from winnow.config.gems import Search
from winnow.config.parts import Attack, Compute, Train
from winnow.config.text import FreeLB, LanguageModel
from winnow.errors import WinnowError
from winnow.gems.pruning import keep_top
from winnow.gems.search import GemSearch, start_scores
from winnow.run import Run
from winnow.schema import parse
from winnow.text.freelb import AdversarialStep
from winnow.train import ranks
from winnow.train.loop import Fit, fit
from winnow.train.optim import make_optimizer
from winnow.vision.training import make_step

CPU = torch.device("cpu")


class Fixed:
    """The same examples every epoch, in batches of `batch`."""

    def __init__(self, *tensors, batch):
        self.tensors, self.batch = tensors, batch
        self.steps_per_epoch = len(self.sizes(0))

    def sizes(self, epoch):
        count = len(self.tensors[0])
        return [min(self.batch, count - i) for i in range(0, count, self.batch)]

    def epoch(self, epoch, first=0, share=slice):
        for i in range(first * self.batch, len(self.tensors[0]), self.batch):
            yield tuple(t[i : i + self.batch] for t in self.tensors)


def network(norm=False):
    torch.manual_seed(0)
    middle = [nn.BatchNorm2d(4)] if norm else []
    return nn.Sequential(nn.Conv2d(3, 4, 3), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(17, 3, 8, 8, generator=generator), torch.randint(5, (17,), generator=generator)


def trained(micro, attack=None, norm=False):
    model, train = (
        network(norm),
        Train(epochs=2, batch_size=10, lr=0.1, clip_norm=1.0, weight_decay=0.01, micro_batch=micro),
    )
    step = make_step(model, train, Compute(), CPU, attack)
    plan = Fit(model, make_optimizer(train, model.parameters()), train, Fixed(*images(), batch=10), step, seed=3)
    history = fit(plan, Run("cpu", progress=False))
    return {**model.state_dict(), "loss": torch.tensor([h["loss"] for h in history])}


@pytest.mark.parametrize(
    "attack", [None, Attack(eps=0.1, step_size=0.05, steps=2, random_start=False)], ids=["clean", "pgd"]
)
@pytest.mark.parametrize("micro", [2, 3, 4, 10])
def test_training_in_micro_batches_is_training_in_batches(micro, attack):
    """Batches of 10 and 7: micro-batches of several sizes."""
    whole, parts = trained(None, attack), trained(micro, attack)
    for name, value in whole.items():
        assert torch.allclose(parts[name], value, rtol=1e-5, atol=1e-6), name


def test_batch_normalisation_sees_the_micro_batches():
    assert trained(None, norm=True)["1.num_batches_tracked"] == 4
    assert trained(5, norm=True)["1.num_batches_tracked"] == 8


def test_a_search_of_scores_in_micro_batches():
    """The scores' gradient lies in one buffer that every pass overwrites."""
    found = []
    for micro in (None, 3):
        model, train = network(), Train(epochs=2, batch_size=10, lr=0.5, micro_batch=micro)
        config = parse(
            Search, {"algo": "hc_iter", "target_sparsity": 40, "iter_period": 1, "lmbda": 1e-3, "regularization": "L2"}
        )
        gem = GemSearch(model, start_scores(model, "unif", 0), config, 2)
        plan = Fit(
            model, make_optimizer(train, [gem.scored.scores]), train, Fixed(*images(), batch=10),
            lambda batch, gem=gem: gem.step(*batch, Compute()), seed=3, before_update=gem.before_update,
            after_update=gem.after_update,
        )  # fmt: skip
        fit(plan, Run("cpu", progress=False))
        found.append(gem.scored.scores.detach())
    assert torch.allclose(*found, atol=1e-6)


def test_freelb_in_micro_batches():
    class Texts(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(11, 6), nn.Linear(6, 3)

        def get_input_embeddings(self):
            return self.words

        def forward(self, inputs_embeds, attention_mask):
            shown = (inputs_embeds * attention_mask[:, :, None]).tanh().sum(1)
            return type("Out", (), {"logits": self.head(shown)})

    class AsMappings(Fixed):
        def epoch(self, *arguments):
            for ids, labels in super().epoch(*arguments):
                yield {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    generator = torch.Generator().manual_seed(1)
    ids, labels = torch.randint(11, (9, 4), generator=generator), torch.randint(3, (9,), generator=generator)
    found = []
    for micro in (None, 2):
        torch.manual_seed(0)
        model, train = Texts(), Train(epochs=2, batch_size=9, lr=0.5, micro_batch=micro)
        step = AdversarialStep(model, FreeLB(steps=3, step_size=0.1, init_magnitude=0.0))
        fit(
            Fit(
                model, make_optimizer(train, model.parameters()), train, AsMappings(ids, labels, batch=9), step, seed=0
            ),
            Run("cpu"),
        )
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(*found, atol=1e-6)


def test_masked_words_are_not_averaged_by_micro_batches():
    train = {"epochs": 1, "batch_size": 8, "lr": 0.1, "micro_batch": 4}
    with pytest.raises(WinnowError, match=r"train.micro_batch: masked words are averaged over the whole batch"):
        parse(LanguageModel, {"sentences": 10, "train": train})


@pytest.mark.parametrize(("processes", "count", "micro"), list(itertools.product([1, 2, 3], [3, 7, 12, 25], [2, 4, 5])))
def test_every_process_makes_as_many_micro_batches_and_all_together_are_the_batch(monkeypatch, processes, count, micro):
    values, made, mean = torch.randn(count, dtype=torch.float64), set(), 0.0
    monkeypatch.setattr(ranks, "size", lambda: processes)
    for r in range(processes):
        monkeypatch.setattr(ranks, "rank", lambda r=r: r)
        own, number, seen = values[ranks.share(count)], ranks.pieces(count, micro), []
        made.add(number)
        for i in range(number):
            with ranks.step(0, 0, count), ranks.micro_batch(count, i, number) as part:
                seen.append(own[part])
        assert torch.equal(torch.cat(seen), own)
        sizes = [len(s) for s in seen]
        assert min(sizes) >= min(2, len(own)) and max(sizes) <= micro + (2 if micro < 4 else 0)
        mean += ranks.weight(count) * sum(s.mean() * len(s) / len(own) for s in seen)
    assert len(made) == 1
    assert float(mean) == pytest.approx(float(values.mean()))


def test_noise_of_micro_batches_is_the_same_for_one_process_and_for_two(monkeypatch):
    """What the parts of one micro-batch get fits together, and their weights make its mean."""
    parts, weights = [], []
    monkeypatch.setattr(ranks, "size", lambda: 2)
    for r in (0, 1):
        monkeypatch.setattr(ranks, "rank", lambda r=r: r)
        with ranks.step(5, 9, 11):
            drawn = []
            for i in range(2):
                with ranks.micro_batch(11, i, 2) as part:
                    like = torch.empty(part.stop - part.start, 3)
                    drawn.append(ranks.noise(like, lambda t, common: t.uniform_(generator=common)))
                    weights.append((i, ranks.examples(), ranks._step.weight, len(like)))
            parts.append(drawn)
    for i in range(2):
        together = torch.cat([parts[0][i], parts[1][i]])
        assert len(set(together.flatten().tolist())) == together.numel()  # nobody has another's
        mine = [w for w in weights if w[0] == i]
        assert sum(w[2] for w in mine) == pytest.approx(1) and all(w[2] == pytest.approx(w[3] / w[1]) for w in mine)
    assert sum(len(p) for drawn in parts for p in drawn) == 11


def test_a_batch_that_does_not_fit_names_the_key_to_change():
    train = Train(epochs=1, batch_size=10, lr=0.1, micro_batch=6)
    model = network()

    def step(batch):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.2 GiB "
            "is free. ..."
        )

    plan = Fit(model, make_optimizer(train, model.parameters()), train, Fixed(*images(), batch=10), step, seed=3)
    with pytest.raises(WinnowError) as caught:
        fit(plan, Run("cpu", progress=False))
    assert str(caught.value) == (
        "CUDA out of memory Tried to allocate 2.00 GiB; set train.micro_batch (6 examples at once did not fit) to 3 or "
        "less"
    )


@pytest.mark.parametrize("seed", range(20))
def test_keep_top_breaks_ties_by_position(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-3, 4, (40,), generator=generator).float()
    among = torch.rand(40, generator=generator) < 0.7
    for count in (0, 1, 7, int(among.sum())):
        order = torch.argsort(scores.masked_fill(~among, float("-inf")), descending=True, stable=True)[:count]
        expected = torch.zeros(40, dtype=torch.bool)
        expected[order] = True
        assert torch.equal(keep_top(scores, count, among), expected)
