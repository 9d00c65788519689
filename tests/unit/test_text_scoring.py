"""What the figures of text networks are made of, on networks of which every answer is known: accuracy, batches, the
rows of an attack.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from winnow.config.parts import Compute
from winnow.rng import numpy_generator, seed_of
from winnow.run import Run, Stopped
from winnow.text.attacks.run import attack_all, attack_one, rows_so_far
from winnow.text.attacks.summary import summarise
from winnow.text.batches import POOL_BATCHES, Encoded, TextBatches, by_length, encode
from winnow.text.data import Examples
from winnow.text.evaluate import EVAL_BATCH, accuracy

CPU = torch.device("cpu")


def encoded(lengths, labels, types=True, pad=7) -> Encoded:
    ids = [np.full(n, 10 + i, dtype=np.int64) for i, n in enumerate(lengths)]
    return Encoded(ids, [np.arange(n) % 2 for n in lengths] if types else None, np.asarray(labels), pad)


def test_a_batch_is_padded_to_its_longest_and_says_where():
    batch = encoded([3, 1, 2], [5, 6, 8]).batch(np.array([1, 2]), CPU)
    assert {k: v.tolist() for k, v in batch.items()} == {
        "input_ids": [[11, 7], [12, 12]], "attention_mask": [[1, 0], [1, 1]], "token_type_ids": [[0, 0], [0, 1]],
        "labels": [6, 8],
    }  # fmt: skip
    assert set(encoded([2], [0], types=False).batch(np.array([0]), CPU)) == {"input_ids", "attention_mask", "labels"}


@pytest.mark.parametrize("types", [None, True, False])
def test_texts_are_cut_and_have_types_unless_told_otherwise(types):
    asked = []

    class Tokenizer:
        pad_token_id = None

        def __call__(self, texts, pairs, **keys):
            asked.append((texts, pairs, keys))
            made = {"input_ids": [[2, 5, 3], [2, 3]], "attention_mask": [[1] * 3, [1] * 2]}
            return made | ({"token_type_ids": [[0, 0, 1], [0, 1]]} if keys["return_token_type_ids"] else {})

    texts = Examples(["a", "b"], ["c", "d"], np.array([1, 0]), ("x", "y"))
    found = encode(Tokenizer(), texts, 17, **({} if types is None else {"types": types}))
    wanted = types is not False
    keys = {"truncation": True, "max_length": 17, "return_token_type_ids": wanted}
    assert asked == [(["a", "b"], ["c", "d"], keys)] and found.pad_id == 0
    assert [i.tolist() for i in found.ids] == [[2, 5, 3], [2, 3]] and found.labels.tolist() == [1, 0]
    assert ([t.tolist() for t in found.types] if wanted else found.types) == ([[0, 0, 1], [0, 1]] if wanted else None)


def test_every_epoch_pools_shuffles_and_resumes():
    lengths = np.random.default_rng(0).integers(1, 40, 300)
    batches = TextBatches(encoded(lengths, np.arange(300)), 4, 3, CPU)
    order = batches.order(2)
    assert batches.steps_per_epoch == len(order) == 75 and batches.sizes(2) == [4] * 75
    assert sorted(np.concatenate(order).tolist()) == list(range(300))
    spreads = [int(np.ptp(lengths[i])) for i in order]
    assert np.mean(spreads) < 3 < np.mean([int(np.ptp(lengths[i : i + 4])) for i in range(0, 300, 4)])
    firsts = [int(lengths[i].min()) for i in order]
    assert firsts != sorted(firsts) and POOL_BATCHES * 4 < 300  # batches are shuffled after they were pooled
    whole = [b["labels"].tolist() for b in batches.epoch(2)]
    assert [b["labels"].tolist() for b in batches.epoch(2, first=70)] == whole[70:] == [list(i) for i in order[70:]]
    half = [b["labels"].tolist() for b in batches.epoch(2, 70, lambda n: slice(1, n - 1))]
    assert half == [w[1:3] for w in whole[70:]]
    rng, expected = numpy_generator(3, "order", 2), []
    few = TextBatches(encoded(lengths % 3 + 1, np.arange(300)), 4, 3, CPU)  # of equals the one that was drawn first
    shuffled = rng.permutation(300).tolist()
    for start in range(0, 300, POOL_BATCHES * 4):
        pool = sorted(shuffled[start : start + POOL_BATCHES * 4], key=lambda i: lengths[i] % 3)
        expected += [pool[i : i + 4] for i in range(0, len(pool), 4)]
    assert [i.tolist() for i in few.order(2)] == [expected[i] for i in rng.permutation(75)]
    odd = TextBatches(encoded([2] * 9, np.arange(9)), 4, 3, CPU)
    assert odd.steps_per_epoch == 3 and sorted(odd.sizes(0)) == [1, 4, 4]


def test_evaluation_takes_everything_once_shortest_first():
    data = encoded([5, 2, 9, 2], [0, 1, 2, 3])
    assert [b["labels"].tolist() for b in by_length(data, 3, CPU)] == [[1, 3, 0], [2]]
    assert [b["labels"].tolist() for b in by_length(data, 1, CPU, slice(1, None, 2))] == [[3], [2]]


class Echo(torch.nn.Module):
    """Answers with the parity of the first token; in training with nothing."""

    def forward(self, input_ids, attention_mask, token_type_ids):
        assert not self.training and not torch.is_grad_enabled()
        return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids[:, 0] % 2, 2).float())


def test_accuracy_is_the_share_that_is_right_whatever_the_order():
    count = EVAL_BATCH + 22
    lengths = np.random.default_rng(1).integers(1, 6, count)
    right = np.arange(count) % 5 != 0
    labels = np.where(right, np.arange(10, 10 + count) % 2, 1 - np.arange(10, 10 + count) % 2)
    found = accuracy(Echo().train(), encoded(lengths, labels), Compute(), CPU)
    assert found == pytest.approx(100 * right.sum() / count)


def row(status, queries=0, words=10, changed=0):
    return {"status": status, "queries": queries, "words": words, "words_changed": changed}


def test_figures_of_an_attack_by_hand():
    rows = [row("succeeded", 10, 10, 1), row("succeeded", 20, 4, 3), row("failed", 60), row("skipped", 999)]
    assert summarise(rows) == {
        "examples": 4, "attacked": 3, "succeeded": 2, "failed": 1, "skipped": 1, "clean_percent": 75.0,
        "aua_percent": 25.0, "suc_percent": pytest.approx(200 / 3), "mean_queries": 30.0, "perturbed_percent": 42.5,
    }  # fmt: skip
    none = summarise([row("skipped")])
    assert (none["clean_percent"], none["suc_percent"], none["mean_queries"], none["perturbed_percent"]) == (
        0,
        None,
        None,
        None,
    )
    assert (
        summarise([row("failed", 3)])["suc_percent"] == 0.0
        and summarise([row("failed", 3)])["perturbed_percent"] is None
    )


class Said:
    """A text as TextAttack holds it."""

    def __init__(self, text, changed=()):
        self._text_input = text if isinstance(text, dict) else {"text": text}
        words = [w for part in self._text_input.values() for w in part.split()]
        self.num_words, self.attack_attrs = len(words), {"modified_indices": set(changed)}


def outcome(kind, before, after, queries=5, changed=(0, 2)):
    results = [SimpleNamespace(output=o, attacked_text=Said(t, changed)) for t, o in (before, after)]
    made = type(f"{kind}AttackResult", (), {})()
    made.original_result, made.perturbed_result, made.num_queries = *results, queries
    return made


class Attacker:
    """Succeeds on even labels; keeps what it was given, and the random numbers of each example."""

    def __init__(self):
        self.seen, self.cleared = [], 0

    def clear_cache(self):
        self.cleared += 1

    def attack(self, text, label):
        self.seen.append((text, label, float(np.random.random()), float(torch.rand(1))))
        text = dict(text) if not isinstance(text, str) else text
        kind = {0: "Successful", 1: "Failed", 2: "Skipped"}[label]
        return outcome(kind, (text, label), (text, 1 if label == 0 else label))


def three(pairs=None, columns=("text",)) -> Examples:
    return Examples(["one two three", "four five", "six"], pairs, np.array([0, 1, 2]), columns, np.array([4, 9, 11]))


def test_a_row_says_what_was_attacked_and_what_came_of_it():
    attack = Attacker()
    found = [attack_one(attack, three(), i, 3) for i in range(3)]
    assert [r["status"] for r in found] == ["succeeded", "failed", "skipped"] and attack.cleared == 3
    assert [r["row"] for r in found] == [4, 9, 11] and [r["index"] for r in found] == [0, 1, 2]
    assert [r["words_changed"] for r in found] == [2, 2, 0] and [r["words"] for r in found] == [3, 2, 1]
    assert found[0] | {"row": 0} == {
        "index": 0, "row": 0, "status": "succeeded", "label": 0, "original_prediction": 0, "perturbed_prediction": 1,
        "original": "one two three", "perturbed": "one two three", "queries": 5, "words": 3, "words_changed": 2,
    }  # fmt: skip
    np.random.seed(seed_of(3, "attack", 1) % 2**32)
    assert attack.seen[1][2] == float(np.random.random())
    torch.manual_seed(seed_of(3, "attack", 1))
    assert attack.seen[1][3] == float(torch.rand(1))
    pair = attack_one(attack, three(["p", "q", "r"], ("premise", "hypothesis")), 1, 3)
    assert dict(attack.seen[-1][0]) == {"premise": "four five", "hypothesis": "q"} and pair["original"] == [
        "four five",
        "q",
    ]


def test_rows_come_in_the_order_that_was_asked_for_and_finished_ones_are_not_made_again(tmp_path):
    attack = Attacker()
    run = Run("cpu", checkpoints=tmp_path)
    (tmp_path / "part-0-x.jsonl").write_text(json.dumps({"index": 1, "kept": True}) + "\n" + '{"index": 2, "to')
    (tmp_path / "part-1-y.jsonl").write_text('[1]\nnonsense\n{"index": "2"}\n')
    assert rows_so_far(tmp_path) == {1: {"index": 1, "kept": True}}
    rows = attack_all(lambda worker: (attack, three()), [2, 1, 0], 0, run)
    assert [r["index"] for r in rows] == [2, 1, 0] and rows[1] == {"index": 1, "kept": True}
    assert [label for _, label, *_ in attack.seen] == [2, 0]


def workers(worker: int):
    return Attacker(), three()


def test_several_processes_share_the_examples_out(tmp_path):
    rows = attack_all(workers, [2, 1, 0], 3, Run("cpu", checkpoints=tmp_path, workers=2))
    assert rows == [attack_one(Attacker(), three(), i, 3) for i in (2, 1, 0)]
    shares = {p.name.split("-")[1]: {json.loads(r)["index"] for r in p.read_text().splitlines()}
              for p in tmp_path.glob("part-*.jsonl")}  # fmt: skip
    assert shares == {"0": {2, 0}, "1": {1}}


def test_a_stop_comes_after_an_example_and_keeps_it(tmp_path):
    run = Run("cpu", checkpoints=tmp_path)
    attack = Attacker()
    ask = attack.attack

    def stopping(text, label):
        run.stop_requested = True
        return ask(text, label)

    attack.attack = stopping
    with pytest.raises(Stopped):
        attack_all(lambda worker: (attack, three()), [0, 1, 2], 0, run)
    assert set(rows_so_far(tmp_path)) == {0} and len(attack.seen) == 1
