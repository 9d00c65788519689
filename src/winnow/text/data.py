"""Text classification data: the embedded grammar, local tables, and GLUE, IMDB and AG News through `datasets`."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from winnow.config.text import TextData
from winnow.errors import WinnowError, nearest
from winnow.rng import numpy_generator
from winnow.run import one_downloads
from winnow.text import grammar

EMBEDDED_TRAIN, EMBEDDED_TEST = 2400, 600
_GLUE_PAIRS = {
    "qnli": ("question", "sentence"), "qqp": ("question1", "question2"), "mnli": ("premise", "hypothesis"),
    "mrpc": ("sentence1", "sentence2"), "rte": ("sentence1", "sentence2"), "wnli": ("sentence1", "sentence2"),
    "sst2": ("sentence", None), "cola": ("sentence", None),
}  # fmt: skip
_GLUE_TEST = {"mnli": "validation_matched"}


@dataclass(frozen=True)
class Examples:
    """Texts of one split. `pairs`: the second texts, or None. `labels`: int64, 0-based."""

    texts: list[str]
    pairs: list[str] | None
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, index: np.ndarray) -> Examples:
        """The examples at `index`, in that order."""
        pairs = None if self.pairs is None else [self.pairs[i] for i in index]
        return Examples([self.texts[i] for i in index], pairs, self.labels[index])


def load_text(
    config: TextData, data_root: Path, download: bool = False, wanted: tuple[str, ...] = ("train", "test")
) -> dict[str, Examples]:
    """The wanted splits; train comes as `train` and `val` (held out, stratified). WinnowError for anything unusable."""
    if config.dataset == "embedded":
        parts = {k: n for k, n in (("train", EMBEDDED_TRAIN), ("test", EMBEDDED_TEST)) if k in wanted}
        whole = {name: Examples(t, None, y) for name, n in parts.items() for t, y in [grammar.sentences(n, 0, name)]}
    elif config.dataset == "file":
        assert config.train_path and config.test_path
        paths = {"train": config.train_path, "test": config.test_path}
        whole = {k: read_table(data_root / paths[k], config) for k in wanted}
    else:
        with one_downloads(download):
            whole = _from_hub(config, download, wanted)
    for name, examples in whole.items():
        _check(examples, config, name)
    splits = dict(whole)
    if "train" in whole:
        held = _stratified(whole["train"].labels, config.val_fraction, config.split_seed, "val")
        rest = np.setdiff1d(np.arange(len(whole["train"])), held)
        splits |= {"train": whole["train"].subset(rest), "val": whole["train"].subset(held)}
    for name, count in (("train", config.train_examples), ("test", config.test_examples)):
        if name in splits and count is not None and count < len(splits[name]):
            fraction = count / len(splits[name])
            splits[name] = splits[name].subset(_stratified(splits[name].labels, fraction, config.split_seed, name))
    return splits


def _stratified(labels: np.ndarray, fraction: float, seed: int, name: str) -> np.ndarray:
    """Sorted indices of round(fraction * n) examples with the classes' shares kept (largest remainders get the rest)."""
    count = max(1, round(fraction * len(labels)))
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    take = np.floor(exact).astype(int)
    take[np.argsort(take - exact, kind="stable")[: count - int(take.sum())]] += 1
    rng = numpy_generator(seed, "stratified", name)
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:k] for c, k in zip(classes, take, strict=True)]
    return np.sort(np.concatenate(chosen))


def _check(examples: Examples, config: TextData, name: str) -> None:
    if len(examples) < 2:
        raise WinnowError(f"data: the {name} split of {config.dataset} holds {len(examples)} examples; give more")
    found = np.unique(examples.labels)
    if found[0] < 0 or found[-1] >= config.classes:
        raise WinnowError(f"data.classes: {config.classes} classes, but the {name} split has labels {found.tolist()[:12]}")


def read_table(path: Path, config: TextData) -> Examples:
    """A .tsv, .csv, .jsonl or .parquet table, the first three also as .gz; columns by name, labels as numbers or names."""
    if not path.exists():
        raise WinnowError(f"{path}: no such table; correct data.train_path or data.test_path, or --data-root")
    suffix = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    try:
        if suffix == "parquet":
            import pyarrow.parquet

            rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        else:
            text = (gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()).decode("utf-8-sig")
            if suffix in ("tsv", "csv"):
                quoting: Any = csv.QUOTE_NONE if suffix == "tsv" else csv.QUOTE_MINIMAL
                delimiter = "\t" if suffix == "tsv" else ","
                rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting))
            elif suffix in ("jsonl", "json"):
                rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            else:
                raise WinnowError(f"{path}: unknown kind of table; use .tsv, .csv, .jsonl or .parquet (also .gz)")
    except (OSError, EOFError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise WinnowError(f"{path}: cannot be read as {suffix} ({error}); the file is damaged or mislabelled") from None
    if not rows:
        raise WinnowError(f"{path}: holds no rows")
    columns = [config.text_column, config.label_column, *([config.pair_column] if config.pair_column else [])]
    for column in columns:
        if column not in rows[0]:
            raise WinnowError(f"{path}: no column {column!r}{nearest(column, rows[0])}")
    for i, row in enumerate(rows):
        if any(row[c] is None or row[c] == "" for c in columns):
            raise WinnowError(
                f"{path}: row {i + 1} has an empty {next(c for c in columns if row[c] in (None, ''))!r}; fill or drop it"
            )
    pairs = [str(r[config.pair_column]) for r in rows] if config.pair_column else None
    return Examples([str(r[config.text_column]) for r in rows], pairs, _labels(rows, config.label_column, path))


def _labels(rows: Iterable[dict[str, Any]], column: str, path: Path) -> np.ndarray:
    values = [row[column] for row in rows]
    try:
        return np.array([int(v) for v in values], dtype=np.int64)
    except ValueError:
        names = sorted({str(v) for v in values})
        if len(names) > 1000:
            raise WinnowError(f"{path}: column {column!r} has {len(names)} different values; is it the label?") from None
        return np.array([names.index(str(v)) for v in values], dtype=np.int64)


def _from_hub(config: TextData, download: bool, wanted: tuple[str, ...]) -> dict[str, Examples]:
    import os

    if not download:
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    import datasets

    task = config.task or ""
    if config.dataset == "glue" and task not in _GLUE_PAIRS:
        raise WinnowError(f"data.task: {task!r} is not a GLUE classification task{nearest(task, _GLUE_PAIRS)}")
    source: tuple[str, ...] = {"glue": ("nyu-mll/glue", task), "imdb": ("stanfordnlp/imdb",), "ag_news": ("fancyzhx/ag_news",)}[
        config.dataset
    ]
    first, second = _GLUE_PAIRS[task] if config.dataset == "glue" else ("text", None)
    test = _GLUE_TEST.get(task, "validation") if config.dataset == "glue" else "test"
    whole = {}
    for name, split in (p for p in (("train", "train"), ("test", test)) if p[0] in wanted):
        try:
            table = datasets.load_dataset(*source, split=split)
        except Exception as error:  # the library raises a dozen kinds for "not cached and no network"
            reason = " ".join(str(error).split())[:160]
            raise WinnowError(
                f"data: {'/'.join(source)} ({split}) is not in the datasets cache and cannot be fetched ({reason}); run once "
                "with --download on a machine with a network, copy its HF_HOME here, or use dataset: file with local tables"
            ) from None
        pairs = [str(x) for x in table[second]] if second else None
        whole[name] = Examples([str(x) for x in table[first]], pairs, np.array(table["label"], dtype=np.int64))
    return whole
