"""The shortened form of `make chaos`: a small pipeline under a few faults ends with the bytes of a calm run."""

from __future__ import annotations

import pytest
import yaml
from conftest import ROOT

from .chaos import play

pytestmark = pytest.mark.slow


def test_a_workflow_under_faults_ends_with_the_bytes_of_a_calm_one():
    config = yaml.safe_load((ROOT / "tests/chaos/small.yaml").read_text())
    report = play(config, seed=1, faults=6, between=2.5, seconds=600, targets=["results/tables/double_win.csv"])
    assert report["ended"], report
    assert report["artifacts"] > 10 and sum(report["faults"].values()) >= 6
    assert report["differences"] == report["bad"] == [], report
