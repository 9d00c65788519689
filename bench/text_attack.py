"""One attacked text (TextFooler's search with a sentence encoder), both sides querying a BERT of MiniLM's size.

Plain: TextAttack with its HuggingFaceModelWrapper (pads to the tokenizer's maximum, set to the training length), one
text at a time through the constraint stack, and an encoder asked for each pair anew. `batched`: the same with
TextAttack's default of 32 texts a call. winnow: its victim, word list and sentence encoder. Every round attacks a new
text; the rows (text, status, queries) of all paths must be equal.

    python -m bench.text_attack [--model FOLDER] [--encoder FOLDER] [--neighbours FILE --table FILE] [--repeats 5]

Without options, victim and encoder have random weights and the texts are generated.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from bench.common import PLAIN, Run, arguments, race
from winnow.config.parts import Compute
from winnow.config.text import TextAttack, TextData, TextModel
from winnow.text import compat, grammar, models
from winnow.text.attacks.recipes import build
from winnow.text.attacks.run import attack_one
from winnow.text.data import Examples, read_table
from winnow.train.device import configure

LENGTH, COMPARED = 64, 1
GOALS = {"cpu": {"winnow": 3.0}, "cuda": {"winnow": 3.0}}
SIZE = {"layers": 6, "hidden": 384, "heads": 12, "intermediate": 1536}
TINY = {"layers": 1, "hidden": 32, "heads": 2, "intermediate": 64}


def make_models(folder, size):
    """A victim and an encoder of this size below `folder`, with random weights."""
    texts, _ = grammar.sentences(500, 0, "train")
    vocab = models.vocabulary(texts, grammar.lexicon(), 4000)
    for name, seed in (("victim", 0), ("encoder", 1)):
        model, tokenizer = models.tiny_bert(TextModel(source="tiny", **size), 2, vocab, LENGTH, seed)
        (model if name == "victim" else model.bert).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


class Side:
    """`batch_size` None: winnow's own attack; else TextAttack's wrapper with that many texts a call."""

    def __init__(self, model, encoder, neighbours, table, count, batch_size, device, threads):
        configure(Compute(threads=threads), torch.device("cpu")) if batch_size is None else torch.set_num_threads(
            threads
        )
        compat.textattack()
        from winnow.text.attacks.parts import Victim

        self.device = torch.device(device)
        network, tokenizer = models.load_classifier(model)
        settings = TextAttack(
            recipe="textfooler", candidates="neighbours" if neighbours else "embedded", encoder="huggingface",
            min_similarity=0.7,
        )  # fmt: skip
        victim = Victim(network, tokenizer, LENGTH, Compute(), self.device)
        self.attack = build(settings, victim, {"neighbours": neighbours, "encoder": encoder}, self.device)
        if table:
            texts = read_table(table, TextData(dataset="file", train_path="-", test_path="-")).texts[:count]
        else:
            texts = grammar.sentences(count, 0, "test")[0]
        self.examples = Examples(texts, None, victim(texts).argmax(1).numpy())  # so that none is skipped
        if batch_size is not None:
            self.attack = plain_attack(self.attack, network, tokenizer, batch_size, encoder, self.device)
        self.at = 0

    def run(self):
        row = attack_one(self.attack, self.examples, self.at, 0)
        self.at += 1
        return row

    def answer(self):
        return [self.run() for _ in range(COMPARED)]


def plain_attack(fast, model, tokenizer, batch_size, folder, device):
    """The same attack with TextAttack's wrapper and a sentence encoder as its documentation shows one."""
    from textattack.constraints.semantics.sentence_encoders import SentenceEncoder
    from textattack.goal_functions import UntargetedClassification
    from textattack.models.wrappers import HuggingFaceModelWrapper
    from textattack.search_methods import GreedyWordSwapWIR

    network, words = compat.local_model("AutoModel", folder)
    network.to(device).eval()

    class Encoder(SentenceEncoder):
        @torch.no_grad()
        def encode(self, sentences):
            found = []
            for i in range(0, len(sentences), batch_size):
                texts = sentences[i : i + batch_size]
                part = words(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").to(
                    device
                )
                hidden = network(**part).last_hidden_state
                mask = part["attention_mask"][:, :, None].float()
                found.append(((hidden * mask).sum(1) / mask.sum(1)).cpu())
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


def agree(path, plain, ours):
    """The rows of the first texts are the same."""
    assert plain == ours, f"{path}: {ours}\nplain: {plain}"
    return {}


def main(argv=None):
    files = {"type": Path, "default": None}
    args = arguments(__doc__, argv, model=files, encoder=files, neighbours=files, table=files)
    run = Run("text_attack", args)
    with tempfile.TemporaryDirectory() as made:
        make_models(Path(made), TINY if args.tiny else SIZE)
        settings = {
            "model": args.model or Path(made) / "victim", "encoder": args.encoder or Path(made) / "encoder",
            "neighbours": args.neighbours, "table": args.table, "count": COMPARED + args.repeats + 1,
            "device": args.device, "threads": args.threads,
        }  # fmt: skip
        sizes = {PLAIN: 1, "batched": 32, "winnow": None}
        paths = {name: (Side, {**settings, "batch_size": size}) for name, size in sizes.items()}
        goals = GOALS[torch.device(args.device).type]
        run.add(*race("text attack, MiniLM size, one text a round", paths, agree, goals, args))
    run.write()


if __name__ == "__main__":
    main()
