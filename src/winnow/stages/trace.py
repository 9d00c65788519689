"""Print what an artifact was made from, back to the first job, and check every hash on the way.

A line an artifact: the role that it played, its path, the start of its sha256, its stage and seed, and `verified`, or
what is wrong with it. Exit codes: 0 all verified, 2 not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from winnow import records
from winnow.errors import printable


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, walk, print; returns the exit code."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(prog="python -m winnow.stages.trace", description=summary, epilog=details)
    p.add_argument("artifact", type=Path, help="any file below results/")
    file = p.parse_args(argv).artifact
    if not file.is_file():
        print(f"winnow trace: error: {file}: no such file; give an artifact, for example a table", file=sys.stderr)
        return 2
    records.forget()
    sound = True
    for node in records.tree(file):
        sound = sound and node.state == "verified"
        about = node.record.about if node.record else {}
        seed = node.record.seed if node.record else None
        digest = records.sha256(node.file)[:12] if node.file.exists() else "-" * 12
        made = about.get("stage", "not made by winnow") + ("" if seed is None else f" seed {seed}")
        role = f"{node.role}: " if node.role else ""
        more = " (its parents: above)" if node.repeated and node.record and node.record.parents else ""
        print(printable(f"{'  ' * node.depth}{role}{node.file}  {digest}  {made}  {node.state}{more}"))
    return 0 if sound else 2


if __name__ == "__main__":
    sys.exit(main())
