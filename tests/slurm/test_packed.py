"""Jobs that share a SLURM job: what a failed member costs, and jobs with two GPUs."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from .conftest import Repository, accounted, run_id
from .test_cluster import FAST, SMALL, TABLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def corrupted_digits(folder: Path) -> None:
    """A folder in CIFAR-10-C's layout, of noise."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    np.save(folder / "labels.npy", np.tile(np.arange(4, 8), 10))
    np.save(folder / "fog.npy", generator.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8))


def test_a_failed_member_costs_nothing_that_had_finished(cluster, tmp_path):
    config = copy.deepcopy(SMALL)
    config["double_win"]["downstreams"][0]["evaluation"]["corruptions"] = (
        "noise"  # not there yet: every evaluation fails
    )
    repository = Repository(tmp_path / "failed", config)
    words = repository.command("--profile", "slurm", TABLE, *FAST)
    first = subprocess.run(words, cwd=repository.folder, capture_output=True, text=True)
    assert first.returncode != 0 and "expected CIFAR-10-C" in first.stdout + first.stderr
    trained = sorted(repository.folder.rglob("transfer.json"))
    times = {path: path.stat().st_mtime_ns for path in trained}
    assert trained and not list(repository.folder.rglob("evaluation.json"))
    corrupted_digits(repository.folder / "data/noise")
    repository.run("--profile", "slurm", TABLE, *FAST)  # the same command again
    assert {path: path.stat().st_mtime_ns for path in trained} == times
    assert (repository.folder / TABLE).is_file() and len(list(repository.folder.rglob("evaluation.json"))) == 4
    assert "Nothing to be done" in repository.run("--profile", "slurm", TABLE)


def test_a_job_with_two_gpus_is_two_processes_and_asks_for_twice_as_much(cluster, tmp_path):
    dense = "results/double_win/tiny/std/s0/dense.safetensors"
    repository = Repository(tmp_path / "two", copy.deepcopy(SMALL) | {"gpus": 2, "device": "cpu"})
    said = repository.run("--profile", "slurm", dense, *FAST)
    (job,) = accounted(run_id(said), "State", "ReqTRES")
    asked = dict(word.split("=") for word in job["ReqTRES"].split(","))
    assert job["State"] == "COMPLETED" and (asked["gres/gpu"], asked["node"], asked["cpu"]) == ("2", "1", "2")
    assert 4000 <= int(asked["mem"].rstrip("M")) < 4400
    assert json.loads((repository.folder / dense).with_suffix(".json").read_text())["provenance"]["processes"] == [2]
