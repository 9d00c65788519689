"""Attack a text classifier with a TextAttack recipe: one JSONL row an example, and the figures over all of them.

Robust tickets (ACL 2022.acl-long.157, section 4.1). A killed run goes on after the last finished example and ends with
the same rows. `--workers N` attacks with N processes (one GPU each, where there are several).
"""

from __future__ import annotations

import sys

from winnow.pipelines.robust_bert.jobs import AttackText
from winnow.stage import Job, Stage

ASSETS = {
    "neighbours": "neighbour list: JSON of word -> words (candidates: neighbours)",
    "counter_fitted": "folder of the counter-fitted embedding (candidates: counter_fitted)",
    "masked_lm": "folder of a masked language model (candidates: masked_lm)",
    "encoder": "folder of a sentence encoder (encoder: huggingface)",
    "use": "TF-Hub cache with the Universal Sentence Encoder (encoder: use)",
    "nltk": "NLTK data folder (stopwords: nltk, same_part_of_speech, candidates: wordnet)",
}


stage = Stage(
    "attack_text",
    AttackText,
    inputs={"model": "model folder, named by its model.safetensors", **{f"{k}?": v for k, v in ASSETS.items()}},
    outputs={"out": "one JSON row an example", "metrics": "figures over all rows, accuracy on the whole test split"},
)


@stage
def main(job: Job[AttackText]) -> None:
    """Attack, summarise, write."""
    import json

    from winnow.artifacts import write_bytes
    from winnow.text.attacks.run import attack_all
    from winnow.text.attacks.setup import Setup
    from winnow.text.attacks.summary import summarise
    from winnow.text.batches import encode
    from winnow.text.data import stratified
    from winnow.text.evaluate import accuracy

    cfg = job.config
    assets = {role: job[role] if job.inputs[role] else None for role in ASSETS}
    setup = Setup(
        job["model"], cfg.data, cfg.attack, cfg.compute, assets, job.run.device, job.run.data_root, job.run.download
    )
    target, test = setup.victim()
    encoded = encode(target.tokenizer, test, cfg.data.max_length, target.types)
    whole = accuracy(target.model, encoded, cfg.compute, target.device)
    count = min(len(test), cfg.examples or len(test))
    chosen = list(range(count))
    if cfg.selection == "stratified" and count < len(test):
        chosen = stratified(test.labels, count / len(test), cfg.data.split_seed, "attacked").tolist()
    rows = attack_all(setup.attack, chosen, cfg.seed, job.run)
    write_bytes(job["out"], "".join(json.dumps(r, sort_keys=True, ensure_ascii=False) + "\n" for r in rows).encode())
    job.write_metrics("metrics", {**summarise(rows), "test_examples": len(test), "test_accuracy_percent": whole})


if __name__ == "__main__":
    sys.exit(stage.run())
