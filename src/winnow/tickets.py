"""Lists the tickets below a folder, a line each, or the layers of one ticket. Masks are read without torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from winnow import records
from winnow.artifacts import read_metadata
from winnow.errors import WinnowError, printable
from winnow.ticket import Ticket


def listed(folder: Path) -> list[dict[str, object]]:
    """One row a ticket: path, remaining_percent, method, layers, seed, stage and whether its seal holds."""
    rows = []
    for file in records.artifacts(folder):
        if not file.name.endswith(".mask.safetensors"):
            continue
        about = read_metadata(file)
        rows.append({
            "path": str(file), "remaining_percent": about.get("remaining_percent"), "method": about.get("method"),
            "layers": len(about.get("shapes", {})), "seed": about.get("config", {}).get("seed"),
            "stage": about.get("stage"),
            "intact": records.intact(file) is True,
        })  # fmt: skip
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table, or JSON; exit code 2 when a seal does not hold."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(prog="winnow tickets", description=summary, epilog=details)
    p.add_argument("path", type=Path, nargs="?", default=Path("results"), help="a folder, or one ticket (results)")
    p.add_argument("--json", action="store_true", help="print JSON")
    args = p.parse_args(argv)
    records.forget()
    if args.path.is_file():
        rows = Ticket.load(args.path).report()
        lines = [f"{'remaining %':>11}  {'kept':>9}  {'weights':>9}  layer"]
        lines += [f"{r['remaining_percent']:>11.3f}  {r['kept']:>9}  {r['total']:>9}  {r['name']}" for r in rows]
        sound = records.intact(args.path) is not False
    else:
        rows = listed(args.path)
        if not rows:
            raise WinnowError(
                f"{args.path}: holds no ticket (*.mask.safetensors); run a pipeline first, or give another folder"
            )
        lines = [f"{'remaining %':>11}  {'method':<12}  {'layers':>6}  {'seed':>4}  ticket"]
        for r in rows:
            seed = "-" if r["seed"] is None else r["seed"]
            state = "" if r["intact"] else "  DAMAGED: see winnow verify"
            lines.append(
                f"{r['remaining_percent']:>11.3f}  {r['method']:<12}  {r['layers']:>6}  {seed:>4}  {r['path']}{state}"
            )
        sound = all(r["intact"] for r in rows)
    print(json.dumps(rows, indent=1) if args.json else "\n".join(map(printable, lines)))
    return 0 if sound else 2
