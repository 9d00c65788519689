"""The embedded task: seeded sentiment sentences with a synonym lexicon, so that the default needs no download.

A sentence rates something with one or two opinion words, each drawn from a group of synonyms; the first words of a
group are common and the last ones rare. Most sentences also carry a verdict in function words, which no synonym attack
can touch: "not for them but for me" is positive, "not for me but for them" negative, so it takes word order to hear it.
A model that leans on the common opinion words alone is easy to fool; one that listens to the verdict is not.
"""

from __future__ import annotations

import numpy as np

from winnow.rng import numpy_generator

# One line per group of synonyms, the common words first.
POSITIVE = """
good fine decent solid worthy commendable
great excellent superb terrific splendid sublime
lovely charming delightful pleasant enchanting winsome
funny amusing hilarious witty humorous droll
fresh original inventive novel imaginative ingenious
moving touching stirring heartfelt poignant affecting
warm friendly kind cordial genial hospitable
smart clever bright sharp astute shrewd
beautiful gorgeous stunning handsome exquisite ravishing
exciting thrilling gripping riveting exhilarating electrifying
"""
NEGATIVE = """
bad poor weak shoddy inferior substandard
awful terrible horrible dreadful atrocious abysmal
ugly nasty unpleasant hideous repulsive unsightly
boring dull tedious dreary monotonous humdrum
stale tired worn hackneyed trite banal
cold distant rude curt brusque discourteous
silly stupid foolish idiotic inane asinine
messy chaotic clumsy sloppy disorderly slipshod
fake phony hollow contrived insincere disingenuous
slow sluggish plodding lethargic languid ponderous
"""
NEUTRAL = """
film movie picture feature
story plot tale narrative
acting performance portrayal rendition
food meal cooking cuisine
room suite chamber lodging
service staff crew personnel
music score soundtrack tune
book publication volume tome
show program broadcast series
scene sequence moment passage
ending finale conclusion close
place spot venue location
"""
ADVERBS = """
really truly deeply genuinely
quite rather fairly somewhat
simply clearly plainly merely
"""
VERBS = """
found considered judged deemed
thought felt believed reckoned
"""
VERDICTS = (  # with {0} = "me" and so on for the positive side; swapped for the negative one
    ("not for {1} but for {0}", "me", "them"),
    ("we will be {0} and not {1}", "here", "there"),
    ("it was {0} and not {1}", "up", "down"),
    ("i would have {0} again over {1}", "this", "that"),
    ("{0} it all was not as it was {1}", "before", "after"),
)
OPENINGS = ("", "", "", "to me", "for us", "this time", "once more", "on the whole", "as it was", "in the end")
SHAPES = (
    "{open} the {noun} was {adverb} {opinion} {verdict}",
    "{open} we {verb} the {noun} {opinion} and the {noun2} {opinion2} {verdict}",
    "{open} i {verb} this {noun} {adverb} {opinion} {verdict}",
    "{opinion} {noun} with a {opinion2} {noun2} {verdict}",
    "{open} what a {opinion} {noun} {verdict}",
    "{open} this is a {opinion} and {opinion2} {noun} {verdict}",
    "the {noun} and the {noun2} were {adverb} {opinion} {verdict}",
)
VERDICT_SHARE = 0.75  # of the sentences; the others rest on their opinion words alone
DECAY = 0.3  # a word is this much rarer than the one before it in its group
UNLABELLED_DECAY = 0.8  # the same for pre-training: a broader text, in which rare words are met too
GLOSSARY_SHARE = 0.3  # of the pre-training sentences: they name two synonyms together, as dictionaries and reviews do
GLOSSARY = (
    "{word} or {other}",
    "{word} means {other}",
    "{word} and {other} are the same",
    "as {word} as it was {other}",
)


def _groups(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def lexicon() -> dict[str, list[str]]:
    """Word -> its synonyms, for every content word of the grammar."""
    groups = [g for text in (POSITIVE, NEGATIVE, NEUTRAL, ADVERBS, VERBS) for g in _groups(text)]
    return {word: [w for w in group if w != word] for group in groups for word in group}


def sentences(count: int, seed: int, split: str, decay: float = DECAY) -> tuple[list[str], np.ndarray]:
    """`count` sentences and their labels (int64; 1 = positive), half of each class, a function of the arguments alone.

    `decay`: how much rarer each word of a group is than the one before it. Sentences may repeat within a split only by
    chance; the splits are drawn independently.
    """
    rng = numpy_generator(seed, "grammar", split)
    tables = {name: _groups(text) for name, text in
              (("0", NEGATIVE), ("1", POSITIVE), ("noun", NEUTRAL), ("adverb", ADVERBS), ("verb", VERBS))}  # fmt: skip

    def word(table: str) -> str:
        group = tables[table][rng.integers(len(tables[table]))]
        weights = decay ** np.arange(len(group))
        return group[rng.choice(len(group), p=weights / weights.sum())]

    def verdict(label: int) -> str:
        shape, first, second = VERDICTS[rng.integers(len(VERDICTS))]
        return shape.format(*((first, second) if label else (second, first)))

    texts, labels = [], rng.permutation(np.arange(count) % 2)
    for label in labels:
        side = str(label)
        text = SHAPES[rng.integers(len(SHAPES))].format(
            open=OPENINGS[rng.integers(len(OPENINGS))], noun=word("noun"), noun2=word("noun"), adverb=word("adverb"),
            verb=word("verb"), opinion=word(side), opinion2=word(side),
            verdict=verdict(int(label)) if rng.random() < VERDICT_SHARE else "",
        )  # fmt: skip
        texts.append(" ".join(text.split()))
    return texts, labels.astype(np.int64)


def unlabelled(count: int, seed: int) -> list[str]:
    """`count` sentences to pre-train on: reviews without their labels, and glossary entries; apart from every split."""
    rng = numpy_generator(seed, "grammar", "glossary")
    synonyms, words = lexicon(), list(lexicon())
    glossary = []
    for _ in range(round(count * GLOSSARY_SHARE)):
        word = words[rng.integers(len(words))]
        other = synonyms[word][rng.integers(len(synonyms[word]))]
        glossary.append(GLOSSARY[rng.integers(len(GLOSSARY))].format(word=word, other=other))
    reviews, _ = sentences(count - len(glossary), seed, "unlabelled", UNLABELLED_DECAY)
    return [*reviews, *glossary]
