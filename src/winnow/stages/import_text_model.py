"""Bring in the pre-trained model of a text task: a Hugging Face encoder (folder or hub), or a tiny BERT from configuration.

Every later stage starts from this folder, so the original pre-trained weights that tickets are retrained from (robust
tickets, ACL 2022.acl-long.157, section 3.3) are the same bytes for all of them.
"""

from __future__ import annotations

import sys

from winnow.config.text import TextData, TextModel
from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of import_text_model."""

    model: TextModel = key("where the model comes from")
    data: TextData = key("the task: number of classes, length and, for a tiny model, the words of its vocabulary")
    seed: int = key("weights of a tiny model, and of the head that a bare encoder lacks", 0)


stage = Stage("import_text_model", Config, inputs={}, outputs={"out": "the model folder, named by its model.safetensors"})


@stage
def main(job: Job[Config]) -> None:
    """Load or build, write."""
    from winnow.text import grammar, models
    from winnow.text.data import load_text

    cfg = job.config
    if cfg.model.source == "tiny":
        texts = load_text(cfg.data, job.data_root, job.download, ("train",))["train"]
        lexicon = grammar.lexicon() if cfg.data.dataset == "embedded" else {}
        vocab = models.vocabulary([*texts.texts, *(texts.pairs or [])], lexicon, cfg.model.vocabulary)
        model, tokenizer = models.tiny_bert(cfg.model, cfg.data.classes, vocab, cfg.data.max_length, cfg.seed)
    else:
        assert cfg.model.path is not None
        model, tokenizer = models.load_pretrained(cfg.model.path, cfg.data.classes, job.data_root, job.download)
    models.reset_head(model, cfg.seed)
    models.save_classifier(job["out"], model, tokenizer, job.provenance())


if __name__ == "__main__":
    sys.exit(stage.run())
