"""The workflow on a real cluster: the same table as locally, and nothing twice."""

from __future__ import annotations

import pytest
import yaml
from conftest import ROOT

from winnow.artifacts import sha256_file

from .conftest import Repository, accounted, run_id

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TABLE = "results/tables/double_win.csv"
SMALL = yaml.safe_load((ROOT / "tests/slurm/small.yaml").read_text())
FAST = ("--slurm-init-seconds-before-status-checks", "3", "--max-status-checks-per-second", "2", "--latency-wait", "5")


def test_the_table_is_that_of_a_local_run_and_a_second_run_submits_nothing(cluster, tmp_path):
    here, there = Repository(tmp_path / "here", SMALL), Repository(tmp_path / "there", SMALL)
    said = there.run("--profile", "slurm", TABLE, *FAST)
    here.run("--cores", "2", TABLE)
    assert (there.folder / TABLE).read_bytes() == (here.folder / TABLE).read_bytes()
    for path in (here.folder / "results").rglob("*.safetensors"):
        assert sha256_file(path) == sha256_file(there.folder / path.relative_to(here.folder)), path
    jobs = accounted(run_id(said), "JobID", "State", "ReqTRES")
    # pretrain, imp_train, four transfers and their evaluations; prunes and table ran where snakemake did
    assert [j["State"] for j in jobs] == ["COMPLETED"] * 10
    assert all("gres/gpu=1" in j["ReqTRES"] and "node=1" in j["ReqTRES"] for j in jobs)
    assert "Nothing to be done" in there.run("--profile", "slurm", TABLE)
