"""Bring in the pre-trained model of a text task: a Hugging Face encoder (folder or hub), or a tiny BERT pre-trained
here.

Every later stage starts from this folder, so the original pre-trained weights that tickets are retrained from (robust
tickets, ACL 2022.acl-long.157, section 3.3) are the same bytes for all of them.
"""

from __future__ import annotations

import sys

from winnow.pipelines.robust_bert.jobs import ImportTextModel
from winnow.stage import Job, Stage

stage = Stage(
    "import_text_model", ImportTextModel, inputs={}, outputs={"out": "the model folder, named by its model.safetensors"}
)


@stage
def main(job: Job[ImportTextModel]) -> None:
    """Load, or build and pre-train; write."""
    from winnow.text import grammar, models
    from winnow.text.data import load_text

    cfg = job.config
    if cfg.model.source == "tiny":
        pretraining, lexicon = cfg.model.pretraining, grammar.lexicon() if cfg.data.dataset == "embedded" else {}
        split = load_text(cfg.data, job.run.data_root, job.run.download, ("train",))["train"]
        texts = [*split.texts, *(split.pairs or [])]
        unlabelled = grammar.unlabelled(pretraining.sentences, cfg.seed) if lexicon and pretraining else texts
        vocab = models.vocabulary([*texts, *unlabelled], lexicon, cfg.model.vocabulary)
        model, tokenizer = models.tiny_bert(cfg.model, cfg.data.classes, vocab, cfg.data.max_length, cfg.seed)
        if pretraining is not None:
            from winnow.rng import seed_of
            from winnow.text.pretraining import pretrain
            from winnow.train.device import start

            start(cfg.compute, job.run.device, seed_of(cfg.seed, "start"))
            pretrain(
                model, tokenizer, unlabelled, pretraining.train, cfg.compute, cfg.data.max_length, cfg.seed, job.run
            )
    else:
        assert cfg.model.path is not None
        from winnow.text.incoming import load_pretrained
        from winnow.weights import pretrained_files, pretrained_folder

        folder = pretrained_folder(cfg.model.path, job.run.data_root)
        job.read("pretrained", pretrained_files(folder) if folder else [])
        model, tokenizer = load_pretrained(
            cfg.model.path,
            cfg.data.classes,
            cfg.data.max_length,
            job.run.data_root,
            job.run.download,
            cfg.seed,
            cfg.model.prefix,
        )
    models.reset_head(model, cfg.seed)
    models.save_classifier(job["out"], model, tokenizer, job.provenance(job["out"]))


if __name__ == "__main__":
    sys.exit(stage.run())
