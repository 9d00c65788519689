"""Text classifiers: each prediction beside its own example's label, the L0 ramp, who trains against an adversary."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from winnow.config.parts import Compute, Train  # noqa: E402
from winnow.config.text import FreeLB, HardConcrete  # noqa: E402
from winnow.run import Run  # noqa: E402
from winnow.text import compat  # noqa: E402
from winnow.text import search as search_module  # noqa: E402
from winnow.text.batches import Encoded, TextBatches  # noqa: E402
from winnow.text.evaluate import accuracy  # noqa: E402
from winnow.text.hard_concrete import l0_term, l0_weight  # noqa: E402
from winnow.text.models import prunable  # noqa: E402
from winnow.text.search import search  # noqa: E402
from winnow.text.training import finetune  # noqa: E402

CPU = torch.device("cpu")


def examples(n: int, labels=None) -> Encoded:
    """Texts of many lengths in no order; the second token of example i is i + 10."""
    lengths = np.random.default_rng(0).integers(3, 25, n)
    ids = [np.array([2, i + 10, *[5] * (k - 3), 3]) for i, k in enumerate(lengths)]
    return Encoded(ids, [np.zeros_like(i) for i in ids], np.arange(n) % 2 if labels is None else np.asarray(labels), 0)


class Reader(torch.nn.Module):
    """Says whether the number that it reads is odd."""

    def forward(self, input_ids, attention_mask, token_type_ids):
        odd = (input_ids[:, 1] - 10).float() % 2
        return SimpleNamespace(logits=torch.stack([1 - odd, odd], 1))


def test_accuracy_is_of_each_example_s_own_label():
    assert accuracy(Reader(), examples(301), Compute(), CPU) == 100.0
    labels = np.arange(301) % 2
    labels[:43] = 1 - labels[:43]
    assert accuracy(Reader(), examples(301, labels), Compute(), CPU) == pytest.approx(100 * (301 - 43) / 301)


def test_training_batches_hold_each_example_once_with_its_label_and_epochs_differ():
    batches = TextBatches(examples(100), 8, 0, CPU)
    orders = []
    for epoch in (0, 1):
        numbers = []
        for batch in batches.epoch(epoch):
            number = batch["input_ids"][:, 1] - 10
            assert torch.equal(batch["labels"], number % 2)
            assert torch.equal(batch["attention_mask"], (batch["input_ids"] != 0).long())
            numbers += number.tolist()
        assert sorted(numbers) == list(range(100))
        orders.append(numbers)
    assert orders[0] != orders[1] != list(range(100))
    assert [
        n for b in TextBatches(examples(100), 8, 1, CPU).epoch(0) for n in (b["input_ids"][:, 1] - 10).tolist()
    ] != orders[0]


def test_the_l0_weight_waits_rises_and_stays():
    config = HardConcrete(l0_amplitude=0.4, l0_start_fraction=0.2, l0_ramp_fraction=0.5)
    course = [l0_weight(step, 100, config) for step in range(1, 101)]
    assert course[:20] == [0.0] * 20 and course[69:] == pytest.approx([0.4] * 31)
    assert course[20:70] == pytest.approx([0.4 * k / 50 for k in range(1, 51)])


@pytest.fixture(scope="module")
def bert():
    transformers = compat.transformers()
    size = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 150,
    }
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**size))
    state = {k: v.clone() for k, v in model.state_dict().items()}

    def fresh():
        made = transformers.BertForSequenceClassification(transformers.BertConfig(**size))
        made.load_state_dict(state)
        return made

    return fresh


DATA = {"train": examples(64), "val": examples(32)}
TRAIN = Train(epochs=2, batch_size=16, optimizer="adamw", lr=0.01)


def test_fine_tuning_is_against_the_adversary_only_when_there_is_one(bert):
    found = {}
    for name, adversary in (
        ("plain", None),
        ("weak", FreeLB(steps=1, init_magnitude=0.0)),
        ("strong", FreeLB(steps=3, step_size=10.0)),
    ):
        model = bert()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        found[name] = [
            e["loss"]
            for e in finetune(model, DATA, run=Run("cpu"), train=TRAIN, compute=Compute(), seed=0, adversary=adversary)[
                0
            ]
        ]
    assert found["plain"][0] == pytest.approx(found["weak"][0], abs=1e-4)  # one step from no start: the plain loss
    assert found["strong"][0] > found["plain"][0] + 0.003


def searched(bert, seed=0, data=None, **masks):
    model = bert()
    adversary = FreeLB(steps=2, step_size=0.1, init_magnitude=0.05)
    train = Train(epochs=2, batch_size=16, optimizer="adamw", lr=0.1)
    return search(
        model, prunable(model), data or DATA, run=Run("cpu"), train=train, masks=HardConcrete(**masks),
        adversary=adversary,
        keep_epochs=[1, 2], compute=Compute(), seed=seed,
    )  # fmt: skip


@pytest.mark.parametrize("keys", [{}, {"frozen": True}, {"frozen": False}])
def test_weights_are_frozen_unless_told_otherwise_and_never_move(bert, keys):
    model = bert()
    names, before = prunable(model), {n: p.detach().clone() for n, p in model.named_parameters()}
    train, told, run = Train(epochs=1, batch_size=32, optimizer="adamw", lr=0.1), [], Run("cpu")
    run.watchers.append(lambda record, step: told.append(step))
    history, kept = search(model, names, DATA, run=run, train=train, masks=HardConcrete(), adversary=FreeLB(steps=1),
                           keep_epochs=[1], compute=Compute(), seed=0, **keys)  # fmt: skip
    expected = 100 * float(l0_term(kept[1], HardConcrete()))
    assert told == [2] and history[0]["expected_remaining_percent"] == pytest.approx(expected)
    assert set(history[0]) == {"epoch", "loss", "val_accuracy", "expected_remaining_percent"}
    weights = {n.replace("parametrizations.weight.original", "weight"): p for n, p in model.named_parameters()}
    scores = {n for n in weights if n.endswith(".score")}
    assert len(scores) == len(names) and all(weights[n].requires_grad for n in scores)
    frozen = keys.get("frozen", True)
    for name in weights.keys() - scores:
        assert torch.equal(weights[name], before[name]) and weights[name].requires_grad == (not frozen), name
    assert (weights[names[0]].grad is None) == frozen


@pytest.mark.parametrize("frozen", [None, True, False])
def test_what_gradients_have_added_up_is_kept_and_clipped_only_where_weights_are_free(bert, monkeypatch, frozen):
    plans = []
    monkeypatch.setattr(search_module, "fit", lambda plan, run: plans.append((plan, run)) or [])
    model = bert()
    names, free = prunable(model), list(model.parameters())
    batches = TextBatches(DATA["train"], 16, 0, CPU)
    search_module.learn(model, names, batches, train=TRAIN, masks=HardConcrete(), adversary=FreeLB(steps=1),
                        keep_epochs=[1], compute=Compute(), seed=5,
                        **({} if frozen is None else {"frozen": frozen}))  # fmt: skip
    frozen = frozen is not False
    ((plan, run),) = plans
    assert isinstance(run, Run) and plan.seed == 5 and plan.batches is batches and plan.model is model
    assert set(plan.extras) == {"schedule", "snapshots"} | (set() if frozen else {"weights"})
    assert [id(p) for p in plan.accumulating] == ([] if frozen else [id(p) for p in free])
    assert plan.extras["schedule"].total_steps == 2 * 4 and plan.before_update is plan.extras["schedule"]
    assert {id(p) for g in plan.optimizer.param_groups for p in g["params"]} == {
        id(p) for n, p in model.named_parameters() if n.endswith(".score")
    }


def test_a_heavier_l0_term_leaves_less_and_ends_with_the_ramp(bert):
    remains = [searched(bert, l0_amplitude=a)[0][-1]["expected_remaining_percent"] for a in (0.0, 5.0, 500.0)]
    assert remains[0] > remains[1] > remains[2]
    late = searched(bert, l0_amplitude=500.0, l0_start_fraction=0.95, l0_ramp_fraction=0.05)[0][-1][
        "expected_remaining_percent"
    ]
    assert late > remains[2] + 1  # one step of eight


def test_scores_depend_on_the_seed_and_each_kept_epoch_is_its_own(bert):
    (_, one), (_, same), (_, other) = searched(bert), searched(bert), searched(bert, seed=1)
    assert set(one) == {1, 2} and all(torch.equal(one[2][n], same[2][n]) for n in one[2])
    assert all(not torch.equal(one[2][n], other[2][n]) and not torch.equal(one[1][n], one[2][n]) for n in one[2])


def test_masks_dropout_and_starts_depend_on_the_seed_too_and_not_the_order_alone(bert):
    """Of examples that are all alike every order is the same."""
    alike = Encoded([np.array([2, 9, 5, 3])] * 16, [np.zeros(4, dtype=np.int64)] * 16, np.ones(16, dtype=np.int64), 0)
    one, other = (searched(bert, seed, data={"train": alike, "val": alike})[1][2] for seed in (0, 1))
    assert all(not torch.equal(one[n], other[n]) for n in one)
