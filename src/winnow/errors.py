"""The one exception that a user's mistake raises, and the nearest-name hint its message carries."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WinnowError(Exception):
    """Bad input: one line that names what is wrong, where, and how to mend it. Stages exit with code 2."""

    def __init__(self, message: str):
        super().__init__(printable(" ".join(str(message).split())))


def printable(text: str) -> str:
    """`text` with control characters and the like as escapes, so that no name in a message can drive a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def nearest(name: str, known: Iterable[str], shown: int = 12) -> str:
    """`; did you mean 'x'?` when a known name is close, else the known names (at most `shown`)."""
    options = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), options, n=3, cutoff=0.6)
    if close:  # of equally close ones that which begins alike
        alike = [(difflib.SequenceMatcher(None, c, str(name)).ratio(), _shared_start(c, str(name)), c) for c in close]
        return f"; did you mean {max(alike)[-1]!r}?"
    listed = ", ".join(sorted(options)[:shown]) + (", ..." if len(options) > shown else "")
    return f"; known: {listed}" if options else ""


def _shared_start(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
