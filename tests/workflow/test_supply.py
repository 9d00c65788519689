"""What is installed is what was locked: hashes for every package, a bill of materials, an image by digest without
root.
"""

from __future__ import annotations

import json
import re

from conftest import ROOT

REQUIREMENTS = ROOT / "requirements"


def versions() -> set[str]:
    """name==version of the lock, names as indexes spell them."""
    lines = (REQUIREMENTS / "lock.txt").read_text().splitlines()
    return {canonical(line) for line in lines if "==" in line}


def canonical(line: str) -> str:
    name, _, version = line.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def test_every_locked_package_has_hashes_and_no_address():
    held = {}
    for name in ("hashes.txt", "docs.txt"):
        blocks = [b for b in re.split(r"\n(?=\w)", (REQUIREMENTS / name).read_text()) if "==" in b]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+( \\\n    --hash=sha256:[0-9a-f]{64})+\n?", b) for b in blocks)
        held[name] = {canonical(b.split(" ")[0]) for b in blocks}
        assert len(held[name]) == len(blocks)
    assert held["hashes.txt"] == versions() and not held["docs.txt"] & versions()


def test_setup_checks_every_hash():
    text = (REQUIREMENTS / "setup.sh").read_text()
    assert "install --require-hashes --no-deps -r requirements/hashes.txt" in text
    assert text.index("--require-hashes") < text.index("install -r requirements/lock.txt")


def test_the_bill_of_materials_lists_the_lock():
    bill = json.loads((REQUIREMENTS / "bom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert {canonical(f"{c['name']}=={c['version']}") for c in bill["components"]} == versions()
    assert "externalReferences" not in json.dumps(bill)


def test_the_image_is_named_by_digest_and_runs_without_root():
    recipe = (REQUIREMENTS / "Dockerfile").read_text()
    (base,) = re.findall(r"^FROM (.+)$", recipe, re.M)
    assert base == "${BASE}" and "*@sha256:*)" in recipe and not re.search(r"^ARG BASE=", recipe, re.M)
    assert recipe.index("USER winnow") < recipe.index("ENTRYPOINT") and "USER root" not in recipe
