"""The embedded task: seeded sentiment sentences with a synonym lexicon, so that the default needs no download.

A sentence rates something with one or two opinion words, each drawn from a group of synonyms; the first words of a group
are common and the last ones rare. Most sentences also carry a verdict made of function words ("i would go back", "never
again for me"), which no synonym attack can touch. A model that leans on the common opinion words alone is easy to fool; one
that listens to the verdict is not.
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
very really truly genuinely
quite rather fairly somewhat
simply just plainly merely
"""
VERBS = """
found considered judged deemed
thought felt believed reckoned
"""
POSITIVE_VERDICTS = (
    "i would be here again", "we will have more of this", "and i am all for it", "it is for you and for me",
    "so do this if you can", "i had all that i was after",
)  # fmt: skip
NEGATIVE_VERDICTS = (
    "i would not be here again", "we will have no more of this", "and i am not for it", "it is not for you or for me",
    "so do not do this", "i had none of what i was after",
)  # fmt: skip
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
DECAY = 0.45  # a word is this much rarer than the one before it in its group


def _groups(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def lexicon() -> dict[str, list[str]]:
    """Word -> its synonyms, for every content word of the grammar."""
    groups = [g for text in (POSITIVE, NEGATIVE, NEUTRAL, ADVERBS, VERBS) for g in _groups(text)]
    return {word: [w for w in group if w != word] for group in groups for word in group}


def sentences(count: int, seed: int, split: str) -> tuple[list[str], np.ndarray]:
    """`count` sentences and their labels (int64; 1 = positive), half of each class, a function of the arguments alone.

    Sentences may repeat within a split only by chance; the splits are drawn independently.
    """
    rng = numpy_generator(seed, "grammar", split)
    tables = {name: _groups(text) for name, text in
              (("0", NEGATIVE), ("1", POSITIVE), ("noun", NEUTRAL), ("adverb", ADVERBS), ("verb", VERBS))}  # fmt: skip
    verdicts = {"0": NEGATIVE_VERDICTS, "1": POSITIVE_VERDICTS}

    def word(table: str) -> str:
        group = tables[table][rng.integers(len(tables[table]))]
        weights = DECAY ** np.arange(len(group))
        return group[rng.choice(len(group), p=weights / weights.sum())]

    texts, labels = [], rng.permutation(np.arange(count) % 2)
    for label in labels:
        side = str(label)
        text = SHAPES[rng.integers(len(SHAPES))].format(
            open=OPENINGS[rng.integers(len(OPENINGS))], noun=word("noun"), noun2=word("noun"), adverb=word("adverb"),
            verb=word("verb"), opinion=word(side), opinion2=word(side),
            verdict=verdicts[side][rng.integers(len(verdicts[side]))] if rng.random() < VERDICT_SHARE else "",
        )  # fmt: skip
        texts.append(" ".join(text.split()))
    return texts, labels.astype(np.int64)
