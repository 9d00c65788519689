"""Fetch what text attacks need into one folder, with checksums: on a machine with a network, `--download`.

The manifest holds the sha256 of everything fetched. A second run checks what is there against it and fetches only what
is missing; a file that changed since is an error. Without --download it only checks.
"""

from __future__ import annotations

import sys

from winnow.pipelines.robust_bert.jobs import FetchAttackAssets
from winnow.stage import Job, Stage

stage = Stage(
    "fetch_attack_assets", FetchAttackAssets, inputs={}, outputs={"manifest": "what is there: role -> path and sha256"}
)


@stage
def main(job: Job[FetchAttackAssets]) -> None:
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
    write_json(
        manifest, known | {role: fetch.obtain(role, wanted, known.get(role), job.run.download) for role in roles}
    )


if __name__ == "__main__":
    sys.exit(stage.run())
