"""Configuration parts of the text stages."""

from __future__ import annotations

from typing import Literal

from winnow.config.parts import FilePath, Ordinal, Train
from winnow.schema import Part, key


class TextData(Part):
    """One text classification task (single sentences or pairs)."""

    dataset: Literal["embedded", "glue", "imdb", "ag_news", "file"] = key(
        "embedded: generated sentiment sentences; glue, imdb, ag_news: through `datasets`; file: local tables"
    )
    task: str | None = key("glue: task name, e.g. sst2, qnli, qqp, mnli", None)
    train_path: FilePath | None = key("file: table below data_root, .tsv .csv .jsonl .json .parquet, also .gz", None)
    test_path: FilePath | None = key("file: table with the examples to report on", None)
    text_column: str = key("file: column with the (first) text", "sentence")
    pair_column: str | None = key("file: column with the second text of a pair", None)
    label_column: str = key(
        "file: column with the label, 0, 1, ... or class names; one numbering for both tables", "label"
    )
    quoting: Literal["none", "minimal"] | None = key(
        "file: minimal: cells of .tsv and .csv may be in double quotes; none: quotes are text; null: none for .tsv, "
        "as GLUE's, minimal for .csv",
        None,
    )
    fixed_text: Literal["none", "first", "second"] | None = key(
        "text of a pair that attacks leave alone; null: the premise where the task is natural language inference "
        "(glue: mnli, qnli, rte, wnli; columns named premise and hypothesis), otherwise none",
        None,
    )
    classes: int = key("number of classes", 2, ge=2)
    max_length: int = key(
        "tokens of a text or pair, special tokens included; the same in training and under attack", 128, ge=4
    )
    val_fraction: float = key(
        "part of the training split held out for the accuracy curves (stratified); 0: train on all, curves on the test "
        "split (nothing "
        "is selected by them)", 0.1, ge=0, lt=1,
    )  # fmt: skip
    train_examples: int | None = key("use only this many training examples (stratified); null: all", None, ge=1)
    test_examples: int | None = key("use only this many test examples (stratified); null: all", None, ge=1)
    split_seed: int = key("fixes the held-out part and the subsets, whatever the run's seed", 0)

    def check(self) -> None:
        """Keys that go together."""
        if self.dataset == "file" and not (self.train_path and self.test_path):
            raise ValueError("dataset file needs train_path and test_path")
        if self.dataset == "glue" and not self.task:
            raise ValueError("dataset glue needs task (sst2, qnli, qqp, mnli, ...)")
        columns = [c for c in (self.text_column, self.pair_column, self.label_column) if c is not None]
        if len(set(columns)) < len(columns):
            raise ValueError(f"text_column, pair_column and label_column must differ, got {', '.join(columns)}")


class LanguageModel(Part):
    """Masked-language-model pre-training of a tiny BERT."""

    sentences: int = key("embedded task: unlabelled sentences to draw; other tasks give their training texts", ge=1)
    train: Train = key("optimisation")

    def check(self) -> None:
        """Its mean is over masked words, which micro-batches share out unevenly."""
        if self.train.micro_batch is not None:
            raise ValueError(
                "train.micro_batch: masked words are averaged over the whole batch; lower batch_size instead"
            )


class TextModel(Part):
    """The pre-trained model: a Hugging Face encoder, or a tiny BERT."""

    source: Literal["tiny", "pretrained"] = key("tiny: built from the keys below; pretrained: folder or hub name")
    path: FilePath | None = key(
        "pretrained: a folder (absolute, or below data_root), or a hub name such as bert-base-uncased, or "
        "name@revision",
        None,
    )
    prefix: str | None = key(
        "pretrained: what stands before the encoder's names in the weights, when a wrapper saved them "
        "(`module.bert.`); null: nothing",
        None,
    )
    layers: int = key("tiny: encoder layers", 2, ge=1)
    hidden: int = key("tiny: hidden size", 64, ge=8)
    heads: int = key("tiny: attention heads", 4, ge=1)
    intermediate: int = key("tiny: size of the feed-forward layers", 128, ge=8)
    vocabulary: int = key("tiny: most entries of the WordPiece vocabulary", 4000, ge=200)
    dropout: float = key("tiny: dropout of the encoder and of its attention", 0.1, ge=0, lt=1)
    pretraining: LanguageModel | None = key("tiny: masked-language-model pre-training; null: random weights", None)

    def check(self) -> None:
        """Keys that go together."""
        if self.source == "pretrained" and not self.path:
            raise ValueError("source pretrained needs path")
        if self.source == "pretrained" and self.pretraining:
            raise ValueError("pretraining is for source tiny: a pre-trained model comes with its own")
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")


class FreeLB(Part):
    """The adversary on the word embeddings (FreeLB; robust tickets, ACL 2022.acl-long.157, section 3.2)."""

    steps: int = key("adversarial steps of one optimisation step", 5, ge=1)
    step_size: float = key("length of a step, in units of the embedding", 0.03, ge=0)
    init_magnitude: float = key("size of the random start", 0.05, ge=0)
    norm: Literal["l2", "linf"] = key("norm of the perturbation, over a whole example", "l2")
    max_norm: float | None = key("radius of the ball; null: unbounded", None, gt=0)


class HardConcrete(Part):
    """The mask distribution (robust tickets, section 3.1; Louizos et al. 2018)."""

    granularity: Literal["weight", "row", "matrix"] = key(
        "one score per weight, per output neuron or per matrix", "weight"
    )
    block: list[Ordinal] | None = key(
        "[a, b]: a score for a x b weights, as the released out_w_per_mask and in_w_per_mask count them: of an out x "
        "in matrix, those whose row has one remainder by out/a and whose column one by in/b; null: by granularity",
        None,
    )
    low: float = key("lower end of the stretched interval", -0.1, lt=0)
    high: float = key("upper end of the stretched interval", 1.1, gt=1)
    beta: float = key("temperature", 2 / 3, gt=0)
    init_mask: float = key("value of every mask at the start", 0.9, gt=0, lt=1)
    l0_amplitude: float = key("final weight of the L0 term", 0.5, ge=0)
    l0_start_fraction: float = key("fraction of the steps before the L0 term sets in", 0.1, ge=0, lt=1)
    l0_ramp_fraction: float = key("fraction of the steps over which its weight rises linearly", 0.3, gt=0, le=1)

    def check(self) -> None:
        """A block is rows and columns, in place of a granularity."""
        if self.block is not None and (len(self.block) != 2 or self.granularity != "weight"):
            raise ValueError(f"block: {self.block} must be two numbers, [out, in], with granularity: weight")


class TextAttack(Part):
    """One attacker: a TextAttack recipe with its settings. The defaults are those of robust tickets, section 4.1."""

    recipe: Literal["textfooler", "textbugger", "bertattack", "bae", "pwws", "deepwordbug"] = key("which attack")
    candidates: Literal["embedded", "neighbours", "counter_fitted", "masked_lm", "wordnet", "none"] = key(
        "where replacement words come from; none: character edits only"
    )
    max_candidates: int = key("replacement words tried per position", 50, ge=1)
    min_word_cosine: float | None = key(
        "counter_fitted: smallest cosine similarity of word and replacement", None, ge=-1, le=1
    )
    encoder: Literal["none", "huggingface", "use"] = key("sentence encoder of the similarity bound", "none")
    min_similarity: float = key("smallest similarity of the changed sentence", 0.0, ge=-1, le=1)
    metric: Literal["cosine", "angular"] = key("similarity measure", "cosine")
    window: int | None = key(
        "words around the change that are compared; shorter texts pass; null: whole text", None, ge=2
    )
    same_part_of_speech: bool = key(
        "replacements keep the part of speech (NLTK tagger; nouns and verbs may swap)", False
    )
    max_modified_fraction: float | None = key("largest fraction of the words changed", None, gt=0, le=1)
    max_edit_distance: int | None = key("largest Levenshtein distance to the original text", None, ge=1)
    skip_short_texts: bool = key(
        "texts shorter than window pass the similarity bound; false: they are compared whole", True
    )
    stopwords: Literal["builtin", "nltk", "recipe"] = key(
        "words never changed: winnow's list, NLTK's, or that of TextAttack's TextFooler recipe", "builtin"
    )
    query_budget: int | None = key("most model queries per example; null: unbounded", None, ge=1)
    batch_size: int = key("texts per model call", 64, ge=1)

    def check(self) -> None:
        """Keys that go together."""
        if self.recipe == "pwws" and self.candidates in ("masked_lm", "none"):
            raise ValueError("pwws swaps synonyms: candidates must be wordnet, embedded, neighbours or counter_fitted")
        if self.recipe == "bae" and self.candidates == "none":
            raise ValueError("bae replaces words: candidates must be masked_lm or a synonym source")
        if self.stopwords == "recipe" and self.recipe != "textfooler":
            raise ValueError(f"stopwords recipe is a list of textfooler's; {self.recipe} takes builtin or nltk")
        if self.min_word_cosine is not None and self.candidates != "counter_fitted":
            raise ValueError("min_word_cosine needs candidates counter_fitted: only they come with vectors")
