"""Fetch what text attacks need into one folder, with checksums: on a machine with a network, `--download`.

The manifest holds the sha256 of everything fetched. A second run checks what is there against it and fetches only what is
missing; a file that changed since is an error. Without --download it only checks.
"""

from __future__ import annotations

import sys

from winnow.config.text import TextAttack
from winnow.schema import key, part
from winnow.stage import Job, Stage


@part
class Config:
    """Configuration of fetch_attack_assets."""

    attacks: list[TextAttack] = key("attackers whose needs to fetch")
    folder: str = key("where everything goes; one subfolder for each kind", "data/attack_assets")
    masked_lm: str = key("hub name of the masked language model", "google-bert/bert-base-uncased")
    encoder: str = key("hub name of the sentence encoder", "sentence-transformers/all-MiniLM-L6-v2")


stage = Stage("fetch_attack_assets", Config, inputs={}, outputs={"manifest": "what is there: role -> path and sha256"})


@stage
def main(job: Job[Config]) -> None:
    """Look, fetch, check, write."""
    from pathlib import Path

    from winnow.artifacts import read_json, write_json
    from winnow.text import fetch
    from winnow.text.assets import needed_roles, nltk_packages

    cfg, manifest = job.config, job["manifest"]
    roles = sorted({role for attack in cfg.attacks for role in needed_roles(attack)})
    packages = sorted({name for attack in cfg.attacks for name in nltk_packages(attack)})
    wanted = fetch.Wanted(Path(cfg.folder), packages, {"masked_lm": cfg.masked_lm, "encoder": cfg.encoder})
    known = read_json(manifest) if manifest.exists() else {}
    write_json(manifest, known | {role: fetch.obtain(role, wanted, known.get(role), job.run.download) for role in roles})


if __name__ == "__main__":
    sys.exit(stage.run())
