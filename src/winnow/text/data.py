"""Text classification data: the embedded grammar, tables in files, and GLUE, IMDB and AG News through `datasets`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from winnow.config.text import TextData
from winnow.errors import WinnowError, nearest
from winnow.rng import numpy_generator
from winnow.run import one_downloads
from winnow.text import grammar
from winnow.text.labels import numbered
from winnow.text.tables import read_rows

EMBEDDED_TRAIN, EMBEDDED_TEST = 2400, 600
_GLUE_PAIRS = {
    "qnli": ("question", "sentence"), "qqp": ("question1", "question2"), "mnli": ("premise", "hypothesis"),
    "mrpc": ("sentence1", "sentence2"), "rte": ("sentence1", "sentence2"), "wnli": ("sentence1", "sentence2"),
    "sst2": ("sentence", None), "cola": ("sentence", None),
}  # fmt: skip
_GLUE_INFERENCE = ("mnli", "qnli", "rte", "wnli")
_GLUE_TEST = {"mnli": "validation_matched"}


@dataclass(frozen=True)
class Examples:
    """Texts of one split. `pairs`: the second texts, or None. `labels`: int64, 0-based.

    `columns`: the names of the texts in their data set, one or two; `rows`: where each example stands in it, from 0.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: np.ndarray
    columns: tuple[str, ...] = ("text", "text pair")
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.texts):
            object.__setattr__(self, "rows", np.arange(len(self.texts)))

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, index: np.ndarray) -> Examples:
        """The examples at `index`, in that order."""
        pairs = None if self.pairs is None else [self.pairs[i] for i in index]
        return Examples([self.texts[i] for i in index], pairs, self.labels[index], self.columns, self.rows[index])


def load_text(
    config: TextData, data_root: Path, download: bool = False, wanted: tuple[str, ...] = ("train", "test")
) -> dict[str, Examples]:
    """The wanted splits; train comes as `train` and `val` (held out, stratified; the test split when `val_fraction` is
    0).

    WinnowError for anything unusable.
    """
    if "train" in wanted and not config.val_fraction:
        wanted = tuple(dict.fromkeys((*wanted, "test")))
    if config.dataset == "embedded":
        parts = {k: n for k, n in (("train", EMBEDDED_TRAIN), ("test", EMBEDDED_TEST)) if k in wanted}
        whole = {name: Examples(t, None, y) for name, n in parts.items() for t, y in [grammar.sentences(n, 0, name)]}
    elif config.dataset == "file":
        assert config.train_path and config.test_path
        paths = {"train": data_root / config.train_path, "test": data_root / config.test_path}
        tables = _read_tables(list(dict.fromkeys(paths.values())), config)  # all: one numbering of the classes
        whole = {k: tables[paths[k]] for k in wanted}
    else:
        with one_downloads(download):
            whole = _from_hub(config, download, wanted)
    for name, examples in whole.items():
        _check(examples, config, name)
    splits = dict(whole)
    if "train" in whole and not config.val_fraction:
        splits["val"] = whole["test"]
    elif "train" in whole:
        held = stratified(whole["train"].labels, config.val_fraction, config.split_seed, "val")
        rest = np.setdiff1d(np.arange(len(whole["train"])), held)
        if not len(rest):
            raise WinnowError(
                f"data.val_fraction: {config.val_fraction} holds out all {len(held)} training examples; lower it"
            )
        splits |= {"train": whole["train"].subset(rest), "val": whole["train"].subset(held)}
    for name, count in (("train", config.train_examples), ("test", config.test_examples)):
        if name in splits and count is not None and count < len(splits[name]):
            fraction = count / len(splits[name])
            splits[name] = splits[name].subset(stratified(splits[name].labels, fraction, config.split_seed, name))
    return splits


def fixed_column(config: TextData, columns: Sequence[str]) -> str | None:
    """The column of a pair that attacks leave alone (`fixed_text`), or None.

    By default the premise of a natural language inference task, as TextAttack's recipes do; any other pair is open to
    change.
    """
    if len(columns) < 2 or config.fixed_text == "none":
        return None
    if config.fixed_text is not None:
        return columns[0 if config.fixed_text == "first" else 1]
    if config.dataset == "glue" and config.task in _GLUE_INFERENCE:
        return columns[0]
    return "premise" if sorted(columns) == ["hypothesis", "premise"] else None


def stratified(labels: np.ndarray, fraction: float, seed: int, name: str) -> np.ndarray:
    """Sorted indices of round(fraction * n) examples with the classes' shares kept (largest remainders get the
    rest).
    """
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
        raise WinnowError(
            f"data.classes: {config.classes} classes, but the {name} split has labels {found.tolist()[:12]}"
        )


def read_table(path: Path, config: TextData) -> Examples:
    """The examples of one table, its classes numbered by themselves; `load_text` numbers those of all splits
    together.
    """
    return _read_tables([path], config)[path]


def _read_tables(paths: Sequence[Path], config: TextData) -> dict[Path, Examples]:
    columns = [config.text_column, *([config.pair_column] if config.pair_column else [])]
    tables = {p: read_rows(p, list(dict.fromkeys([*columns, config.label_column])), config.quoting) for p in paths}
    raw = {path: [row[config.label_column] for row in rows] for path, rows in tables.items()}
    for path, rows in tables.items():
        for number, row in enumerate(rows, 1):
            for column in columns:
                if fault := _no_text(row[column]):
                    raise WinnowError(f"{path}: row {number} has {fault} {column!r}; fill or drop it")
    labels = numbered(raw, config.label_column, config.classes)
    made = {}
    for path, rows in tables.items():
        pairs = [row[columns[1]] for row in rows] if len(columns) > 1 else None
        made[path] = Examples([row[columns[0]] for row in rows], pairs, labels[path], tuple(columns))
    return made


def _no_text(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "an empty"
    if not isinstance(value, str):
        return f"a {type(value).__name__} and no text in"
    return "half a surrogate pair in" if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value) else None


def _from_hub(config: TextData, download: bool, wanted: tuple[str, ...]) -> dict[str, Examples]:
    import os

    if not download:
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    import datasets

    task = config.task or ""
    if config.dataset == "glue" and task not in _GLUE_PAIRS:
        raise WinnowError(f"data.task: {task!r} is not a GLUE classification task{nearest(task, _GLUE_PAIRS)}")
    source: tuple[str, ...] = {
        "glue": ("nyu-mll/glue", task),
        "imdb": ("stanfordnlp/imdb",),
        "ag_news": ("fancyzhx/ag_news",),
    }[config.dataset]
    first, second = _GLUE_PAIRS[task] if config.dataset == "glue" else ("text", None)
    test = _GLUE_TEST.get(task, "validation") if config.dataset == "glue" else "test"
    whole = {}
    for name, split in (p for p in (("train", "train"), ("test", test)) if p[0] in wanted):
        try:
            table = datasets.load_dataset(*source, split=split)
        except Exception as error:  # the library raises a dozen kinds for "not cached and no network"
            reason = " ".join(str(error).split())[:160]
            raise WinnowError(
                f"data: {'/'.join(source)} ({split}) is not in the datasets cache and cannot be fetched ({reason}); "
                f"run once "
                "with --download on a machine with a network, copy its HF_HOME here, or use dataset: file with local "
                "tables"
            ) from None
        pairs = [str(x) for x in table[second]] if second else None
        columns = (first, second) if second else (first,)
        whole[name] = Examples([str(x) for x in table[first]], pairs, np.array(table["label"], dtype=np.int64), columns)
    return whole
