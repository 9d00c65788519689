"""Writes requirements/hashes.txt: every line of lock.txt with the sha256 of each file of that version.

hashes.py HASHED REPORT: what `uv pip compile --generate-hashes` wrote, and the report of `pip install --dry-run` on
this machine. A file that this machine would install and the index does not list (a CPU build of torch, say) is added:
both are installed from then on. hashes.py --bom FILE: keeps what cyclonedx-py wrote as requirements/bom.json.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any


def canonical(name: str) -> str:
    """A package's name as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(hashed: str, report: str) -> None:
    """Read both, write beside this file."""
    here = Path(__file__).resolve().parent
    known: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=\w)", Path(hashed).read_text()):
        if found := re.match(r"([\w.-]+)==", block):
            known[canonical(found[1])] = set(re.findall(r"sha256:[0-9a-f]{64}", block))
    for item in json.loads(Path(report).read_text())["install"]:
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        known.setdefault(canonical(item["metadata"]["name"]), set()).add(f"sha256:{digest}")
    lines = ["# Made by requirements/lock.sh from lock.txt; edit pyproject.toml and run: make lock"]
    for line in (here / "lock.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            lines.append(
                " \\\n".join([line, *(f"    --hash={h}" for h in sorted(known[canonical(line.split("==")[0])]))])
            )
    (here / "hashes.txt").write_text("\n".join(lines) + "\n")


def bill(made: str) -> None:
    """Keep a CycloneDX bill of materials as bom.json, without the addresses of an index."""
    document = json.loads(Path(made).read_text())
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            value.pop("externalReferences", None)
        waiting += list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    (Path(__file__).resolve().parent / "bom.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    bill(sys.argv[2]) if sys.argv[1] == "--bom" else main(*sys.argv[1:])
