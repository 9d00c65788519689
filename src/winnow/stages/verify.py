"""Check every artifact below a folder: seals, places, and that each was made from what lies there now.

Each bad artifact is one line on stdout with what to delete; `snakemake` then runs its job and those that follow. With
--same-as, compare the artifacts of two runs byte by byte (of metrics: all but run times); with --tensors as well, their
tensors and figures alone, so that two versions of the code can be compared. Exit codes: 0 all is well, 2 not.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from winnow import records
from winnow.errors import WinnowError, printable


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, check, print; returns the exit code."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(prog="python -m winnow.stages.verify", description=summary, epilog=details)
    p.add_argument("folder", type=Path, nargs="?", default=Path("results"), help="folder with the artifacts (results)")
    p.add_argument("--same-as", type=Path, metavar="FOLDER", help="artifacts of another run, which must be the same")
    p.add_argument(
        "--tensors", action="store_true", help="with --same-as: compare results, not the records of their making"
    )
    args = p.parse_args(argv)
    if args.tensors and not args.same_as:
        p.error("--tensors: compares two runs; give the other one with --same-as FOLDER")
    try:
        return _compare(args.folder, args.same_as, args.tensors) if args.same_as else _check(args.folder)
    except WinnowError as error:
        print(f"winnow verify: error: {error}", file=sys.stderr)
        return 2


def _check(folder: Path) -> int:
    bad, notes, count = records.verify(folder)
    for b in bad:
        follow = ", ".join(f"{n} of {stage}" for stage, n in b.followers.items())
        bad_one = printable(f"{b.file}: {b.reason}")
        print(
            f"{bad_one}; delete {_quoted(b.delete)}"
            + (printable(f"; what follows from it: {follow}") if follow else "")
        )
    for note in notes:
        print(printable(f"note: {note}"))
    print(f"{folder}: {count} artifacts, {len(bad)} bad")
    if bad:
        remove = {f for b in bad for f in b.delete}
        # asked for by name, for what has followed from them is there; a job's record stands for its other outputs
        ask = {f for b in bad for f in [d for d in b.delete if d.suffix == ".json"] or b.delete}
        print(f"to mend: rm -f {_quoted(sorted(remove))} && snakemake --cores 2 {_quoted(sorted(ask))}")
    return 2 if bad else 0


def _compare(folder: Path, other: Path, tensors: bool) -> int:
    found, count = records.differences(folder, other, tensors)
    print(
        *map(printable, found), f"{folder} and {other}: {count} artifacts in both, {len(found)} differences", sep="\n"
    )
    return 2 if found or not count else 0


def _quoted(files: list[Path]) -> str:
    """The files for a shell; names with control characters in the quotes that bash and zsh have for them."""
    return " ".join(shlex.quote(str(f)) if str(f).isprintable() else f"$'{_escaped(os.fsencode(f))}'" for f in files)


def _escaped(name: bytes) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in name)


if __name__ == "__main__":
    sys.exit(main())
