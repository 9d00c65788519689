"""Write the report, one HTML file without references to others: verdicts and small tables first, then all columns,
figures, tickets.

It shows what the tables below `results/tables` were made from, and says whether all of it verifies.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from winnow.artifacts import write_bytes
from winnow.errors import WinnowError
from winnow.project import ROOT
from winnow.tables.page import page


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, build, write; returns the exit code."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(prog="python -m winnow.stages.report", description=summary, epilog=details)
    p.add_argument("results", type=Path, nargs="?", default=Path("results"), help="folder with the artifacts (results)")
    p.add_argument(
        "--captions", type=Path, default=ROOT / "workflow/report", help="folder of the captions (winnow's own)"
    )
    p.add_argument(
        "--out", type=Path, default=Path("results/report.html"), help="the file to write (results/report.html)"
    )
    args = p.parse_args(argv)
    try:
        write_bytes(args.out, page(args.results, args.captions).encode())
    except WinnowError as error:
        print(f"winnow report: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
