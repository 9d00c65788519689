"""keep_models: table deletes transferred networks once they are measured, and nothing runs again for that."""

from __future__ import annotations

import copy

import pytest
import yaml
from conftest import ROOT

from .conftest import TABLE, Workflow

pytestmark = pytest.mark.slow


def test_networks_go_once_they_are_measured_and_nothing_reruns(tmp_path):
    config = yaml.safe_load((ROOT / "tests/slurm/small.yaml").read_text())
    task = config["double_win"]["downstreams"][0]
    task["evaluation"]["autoattack"] = {"eps": 0.05, "attacks": ["apgd-ce"], "images": 6, "tickets": ["imp"]}
    kept, gone = (Workflow(tmp_path / name, copy.deepcopy(config)) for name in ("all", "table"))
    gone.config["double_win"]["transfer"]["keep_models"] = "table"
    for workflow in (kept, gone):
        workflow.folder.mkdir()
        workflow.run(TABLE)
    assert (gone.folder / TABLE).read_bytes() == (kept.folder / TABLE).read_bytes()
    names = {w: sorted(p.parent.name for p in w.folder.rglob("best_*.safetensors")) for w in (kept, gone)}
    assert len(names[kept]) == 6 and names[gone] == []
    found = [p.relative_to(gone.folder).parts[5:9] for p in gone.folder.rglob("autoattack.json")]
    assert [parts for parts in found if "imp-std-2" in parts] == found and len(found) == 1
    again = gone.snakemake("-n", TABLE)
    assert "Nothing to be done" in again.stdout + again.stderr
    # switching back makes nothing stale either: what is measured is measured
    again = gone.snakemake("-n", TABLE, config=kept.config)
    assert "Nothing to be done" in again.stdout + again.stderr
