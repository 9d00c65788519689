"""Text data: the grammar, tables of every kind, splits, batches, and what is said about bad ones."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from winnow.config.text import TextData  # noqa: E402
from winnow.errors import WinnowError  # noqa: E402
from winnow.text import grammar  # noqa: E402
from winnow.text.batches import POOL_BATCHES, Encoded, TextBatches, by_length  # noqa: E402
from winnow.text.data import load_text, read_table  # noqa: E402


def test_grammar_is_seeded_balanced_and_large_enough(tmp_path):
    splits = load_text(TextData(dataset="embedded"), tmp_path)
    assert sum(map(len, splits.values())) >= 2000
    again = load_text(TextData(dataset="embedded"), tmp_path)
    assert splits["train"].texts == again["train"].texts
    for split in splits.values():
        assert abs(split.labels.mean() - 0.5) < 0.01
    assert len(set(splits["train"].texts)) > 0.9 * len(splits["train"])


def test_lexicon_words_are_never_stopwords_and_symmetric():
    from winnow.text.attacks.words import STOPWORDS

    lexicon = grammar.lexicon()
    assert not set(lexicon) & STOPWORDS
    assert all(word in lexicon[other] for word, synonyms in lexicon.items() for other in synonyms)
    verdict_words = {
        w for shape, *ends in grammar.VERDICTS for w in [*shape.replace("{0}", "").replace("{1}", "").split(), *ends]
    }
    assert verdict_words <= STOPWORDS


ROWS = [
    {"sentence": 'a "fine" film', "second": "x, y", "label": "1"},
    {"sentence": "dull", "second": "z", "label": "0"},
] * 10


def write(path, rows):
    if path.name.endswith(".parquet"):
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if ".jsonl" in path.name:
        text = "".join(json.dumps(r) + "\n" for r in rows)
    elif ".tsv" in path.name:
        text = "\t".join(rows[0]) + "\n" + "".join("\t".join(r.values()) + "\n" for r in rows)
    else:
        quoted = [",".join('"' + v.replace('"', '""') + '"' for v in r.values()) for r in rows]
        text = ",".join(rows[0]) + "\n" + "\n".join(quoted) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz", "t.csv", "t.csv.gz", "t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_every_kind_of_table_reads_the_same(tmp_path, name):
    config = TextData(dataset="file", train_path="a", test_path="b", pair_column="second")
    found = read_table(write(tmp_path / name, ROWS), config)
    assert found.texts == [r["sentence"] for r in ROWS]
    assert found.pairs == [r["second"] for r in ROWS]
    assert found.labels.tolist() == [int(r["label"]) for r in ROWS]


def test_class_names_become_numbers_in_alphabetical_order(tmp_path):
    rows = [{"sentence": "a", "label": "pos"}, {"sentence": "b", "label": "neg"}]
    assert read_table(
        write(tmp_path / "t.csv", rows), TextData(dataset="file", train_path="a", test_path="b")
    ).labels.tolist() == [1, 0]


def test_splits_are_stratified_and_do_not_overlap(tmp_path):
    rows = [{"sentence": f"text {i}", "label": str(int(i % 4 == 0))} for i in range(400)]
    write(tmp_path / "train.tsv", rows)
    write(tmp_path / "test.tsv", rows[:40])
    config = TextData(
        dataset="file", train_path="train.tsv", test_path="test.tsv", val_fraction=0.1, train_examples=100
    )
    splits = load_text(config, tmp_path)
    assert [len(splits[k]) for k in ("train", "val", "test")] == [100, 40, 40]
    assert splits["train"].labels.sum() == 25 and splits["val"].labels.sum() == 10
    assert not set(splits["train"].texts) & set(splits["val"].texts)


BAD_TABLES = {
    "missing column": ("t.csv", b"text,label\na,1\nb,0\n", "no column 'sentence'"),
    "empty cell": ("t.csv", b"sentence,label\na,1\n,0\n", "row 2 has an empty 'sentence'"),
    "no rows": ("t.csv", b"sentence,label\n", "holds no rows"),
    "broken gzip": ("t.tsv.gz", b"\x1f\x8bnot gzip", "cannot be read as tsv"),
    "broken json": ("t.jsonl", b'{"sentence": \n', "cannot be read as jsonl"),
    "unknown kind": ("t.xlsx", b"x", "unknown kind of table"),
    "broken parquet": ("t.parquet", b"PAR1", "cannot be read as parquet"),
    "not utf-8": ("t.csv", b"sentence,label\na\xff,1\n", r"cannot be read as csv: byte 16 \(line 2\) is not UTF-8"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables_are_named(tmp_path, name):
    file, content, message = BAD_TABLES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(WinnowError, match=message) as caught:
        read_table(tmp_path / file, TextData(dataset="file", train_path="a", test_path="b"))
    assert str(tmp_path / file) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_tables_and_wrong_classes_are_named(tmp_path):
    config = TextData(dataset="file", train_path="train.tsv", test_path="test.tsv")
    with pytest.raises(WinnowError, match="no such table"):
        load_text(config, tmp_path)
    rows = [{"sentence": "a", "label": "2"}, {"sentence": "b", "label": "0"}, {"sentence": "c", "label": "1"}]
    write(tmp_path / "train.tsv", rows)
    write(tmp_path / "test.tsv", rows[:2])
    with pytest.raises(
        WinnowError, match=r"data\.classes: 2 classes, but column 'label' .* 3 different labels \(0, 1, 2\)"
    ):
        load_text(config, tmp_path)


def test_hub_data_without_network_says_what_to_do(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(WinnowError, match=r"not in the datasets cache.*--download.*dataset: file"):
        load_text(TextData(dataset="imdb"), tmp_path)


def encoded(count=1000):
    rng = np.random.default_rng(0)
    ids = [rng.integers(5, 90, n) for n in rng.integers(3, 40, count)]
    return Encoded(ids, [np.zeros_like(i) for i in ids], np.arange(count) % 2, pad_id=0)


def test_batches_cover_each_example_once_and_resume():
    data = encoded()
    batches = TextBatches(data, 8, seed=1, device=torch.device("cpu"))
    order = batches.order(3)
    assert sorted(np.concatenate(order)) == list(range(1000))
    assert len(order) == batches.steps_per_epoch == 125
    whole, rest = list(batches.epoch(3)), list(batches.epoch(3, first=100))
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(whole[100:], rest, strict=True))
    assert not np.array_equal(np.concatenate(order), np.concatenate(batches.order(4)))


def test_bucketing_saves_most_of_the_padding():
    data = encoded()
    real = data.lengths.sum()
    padded = sum(
        len(index) * data.lengths[index].max() for index in TextBatches(data, 8, 1, torch.device("cpu")).order(0)
    )
    assert padded < 1.1 * real, f"{POOL_BATCHES} batches a pool"


def test_padding_is_masked_and_evaluation_keeps_every_example():
    data = encoded(50)
    seen = []
    for batch in by_length(data, 16, torch.device("cpu")):
        real = batch["attention_mask"].bool()
        assert (batch["input_ids"][~real] == 0).all()
        seen += [tuple(ids[mask].tolist()) for ids, mask in zip(batch["input_ids"], real, strict=True)]
    assert sorted(seen) == sorted(tuple(ids.tolist()) for ids in data.ids)
    shares = [list(by_length(data, 16, torch.device("cpu"), slice(rank, None, 3))) for rank in range(3)]
    assert sum(len(batch["labels"]) for share in shares for batch in share) == 50
    assert [len(share) for share in shares] == [2, 1, 1]
