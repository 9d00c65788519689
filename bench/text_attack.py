"""Text attack: winnow's victim, word list and sentence encoder against TextAttack's own wrapper, one text at a time.

Claim: at least 3x the queries per second, with the same rows. `plain` is TextAttack's HuggingFaceModelWrapper (pads to the
tokenizer's maximum, set to the training length) with one text a call and an encoder asked for each pair of texts anew;
`batched` is the same wrapper with TextAttack's default of 32 texts a call. All three in one process, alternating by example.

    python bench/text_attack.py [--encoder FOLDER] [--model FOLDER] [--neighbours FILE --table FILE] [--examples 8] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from winnow.config.parts import Compute
from winnow.config.text import TextAttack, TextData, TextModel
from winnow.text import compat, grammar, models
from winnow.text.attacks.recipes import build
from winnow.text.attacks.run import attack_one
from winnow.text.data import Examples, read_table

LENGTH = 64


def victim_model(folder):
    if folder:
        return models.load_classifier(folder)
    texts, _ = grammar.sentences(500, 0, "train")
    size = TextModel(source="tiny", layers=6, hidden=384, heads=12, intermediate=1536)
    return models.tiny_bert(size, 2, models.vocabulary(texts, grammar.lexicon(), 4000), LENGTH, seed=0)


def plain_attack(fast, model, tokenizer, batch_size, encoder):
    """The same attack with TextAttack's wrapper and a sentence encoder as its documentation shows one."""
    from textattack.constraints.semantics.sentence_encoders import SentenceEncoder
    from textattack.goal_functions import UntargetedClassification
    from textattack.models.wrappers import HuggingFaceModelWrapper
    from textattack.search_methods import GreedyWordSwapWIR

    class Encoder(SentenceEncoder):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.network, self.words = encoder
            self.network.eval()

        @torch.no_grad()
        def encode(self, sentences):
            found = []
            for i in range(0, len(sentences), batch_size):
                part = self.words(
                    sentences[i : i + batch_size], padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
                )
                hidden = self.network(**part).last_hidden_state
                mask = part["attention_mask"][:, :, None].float()
                found.append((hidden * mask).sum(1) / mask.sum(1))
            return torch.cat(found)

    tokenizer.model_max_length = LENGTH
    goal = UntargetedClassification(HuggingFaceModelWrapper(model, tokenizer), model_batch_size=batch_size)
    constraints = []
    for c in [*fast.pre_transformation_constraints, *fast.constraints]:
        if isinstance(c, SentenceEncoder):
            keys = ("threshold", "compare_against_original", "skip_text_shorter_than_window")
            window = None if c.window_size == float("inf") else c.window_size
            c = Encoder(metric=c.metric, window_size=window, **{k: getattr(c, k) for k in keys})
        constraints.append(c)
    search = GreedyWordSwapWIR(fast.search_method.wir_method)
    return type(fast)(goal, constraints, fast.transformation, search)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--encoder", "--neighbours", "--table", "--json"):
        p.add_argument(name, type=Path)
    p.add_argument("--examples", type=int, default=8)
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    compat.textattack()
    from winnow.text.attacks.parts import Victim

    model, tokenizer = victim_model(args.model)
    device = torch.device("cpu")
    settings = TextAttack(
        recipe="textfooler", candidates="neighbours" if args.neighbours else "embedded",
        encoder="huggingface" if args.encoder else "none", min_similarity=0.7,
    )  # fmt: skip
    victim = Victim(model, tokenizer, LENGTH, Compute(), device)
    assets = {"neighbours": args.neighbours, "encoder": args.encoder}
    attacks = {"winnow": build(settings, victim, assets, device)}
    encoder = compat.local_model("AutoModel", args.encoder) if args.encoder else None
    attacks |= {
        name: plain_attack(attacks["winnow"], model, tokenizer, n, encoder) for name, n in (("plain", 1), ("batched", 32))
    }
    if args.table:
        examples = read_table(args.table, TextData(dataset="file", train_path="-", test_path="-"))
    else:
        examples = Examples(*(lambda t, y: (t, None, y))(*grammar.sentences(args.examples, 0, "test")))
    logits = victim(examples.texts[: args.examples])
    examples = Examples(
        examples.texts[: args.examples], None, logits.argmax(1).numpy()
    )  # each example is attacked, none skipped
    seconds = {name: [] for name in attacks}
    queries = []
    for i in range(args.examples):
        rows = {}
        for name, attack in attacks.items():
            begun = time.perf_counter()
            rows[name] = attack_one(attack, examples, i, 0)
            seconds[name].append(time.perf_counter() - begun)
        assert rows["winnow"] == rows["plain"] == rows["batched"], f"example {i}: the rows differ"
        queries.append(rows["winnow"]["queries"])
    report = {"examples": args.examples, "queries": sum(queries), "threads": args.threads, "encoder": bool(args.encoder)}
    for name in attacks:
        report[name] = {"queries_per_second": sum(queries) / sum(seconds[name])}
        ratios = [s / w for s, w in zip(seconds[name], seconds["winnow"], strict=True)]
        report[name] |= {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
        r = report[name]
        print(
            f"{name}: {r['queries_per_second']:.1f} queries/s; winnow is {r['ratio']:.2f}x as fast ({r['low']:.2f}-{r['high']:.2f})"
        )
    print(f"rows of all {args.examples} examples are the same")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
