"""The workflow on a real cluster: the same table as locally, nothing twice, and what becomes of jobs that are cut
off.
"""

from __future__ import annotations

import copy
import re
import subprocess
import time

import numpy as np
import pytest
import yaml
from conftest import ROOT

from winnow.artifacts import read_arrays, sha256_file

from .conftest import Repository, accounted, freeze, job_of, run_id, told

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TABLE = "results/tables/double_win.csv"
SMALL = yaml.safe_load((ROOT / "tests/slurm/small.yaml").read_text())
FAST = ("--slurm-init-seconds-before-status-checks", "3", "--max-status-checks-per-second", "2", "--latency-wait", "5")


def wait(what: str, holds, seconds: float = 400.0):
    """The first true value of holds(); fails after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = holds()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds:g} s\n" + told("squeue"))


def test_the_table_is_that_of_a_local_run_and_a_second_run_submits_nothing(cluster, tmp_path):
    here, there = Repository(tmp_path / "here", SMALL), Repository(tmp_path / "there", SMALL)
    said = there.run("--profile", "slurm", TABLE, *FAST)
    here.run("--cores", "2", TABLE)
    assert (there.folder / TABLE).read_bytes() == (here.folder / TABLE).read_bytes()
    for path in (here.folder / "results").rglob("*.safetensors"):
        assert sha256_file(path) == sha256_file(there.folder / path.relative_to(here.folder)), path
    jobs = accounted(run_id(said), "JobID", "State", "ReqTRES")
    # pretrain, imp_train, and a pack each for the two tickets' transfers and evaluations; prunes and table ran where
    # snakemake did
    assert [j["State"] for j in jobs] == ["COMPLETED"] * 4
    assert all("gres/gpu=1" in j["ReqTRES"] and "node=1" in j["ReqTRES"] for j in jobs)
    assert "Nothing to be done" in there.run("--profile", "slurm", TABLE)


def test_jobs_cut_off_go_on_and_a_third_gpu_job_waits(cluster, tmp_path):
    """Two GPUs, three pre-trainings. Two hang: one is cancelled, one runs out of time; the third waits for a GPU."""
    config = copy.deepcopy(SMALL) | {"checkpoint_seconds": 0.01}
    long = {"epochs": 1000, "batch_size": 20, "lr": 0.05}  # so long that none is done before it is frozen
    names = ("a", "b", "c")
    config["double_win"]["pretrainings"] = [{"name": n, "method": "std", "train": long} for n in names]
    config["double_win"]["transfer"]["methods"] = ["dense"]
    dense = {n: f"results/double_win/tiny/{n}/s0/dense.safetensors" for n in names}
    repository = Repository(tmp_path / "cut", config)
    log = tmp_path / "run.log"
    with log.open("w") as stream:
        arguments = ["--profile", "slurm", *dense.values(), *FAST, "--set-resources", "pretrain:runtime=attempt*10"]
        run = subprocess.Popen(repository.command(*arguments), cwd=repository.folder, stdout=stream, stderr=stream)
        try:
            hung: dict[str, int] = {}

            def two_hang() -> bool:
                assert run.poll() is None, log.read_text()[-4000:]
                for name, process in repository.stages("pretrain").items():
                    written = repository.folder / f"results/double_win/tiny/{name}/s0/logs/pretrain.log"
                    if name not in hung and written.exists() and "epoch 10/1000" in written.read_text():
                        freeze(process)
                        hung[name] = process
                return len(hung) == 2

            wait("two pre-trainings past their tenth epoch", two_hang)
            cancelled, late = hung
            third = next(n for n in names if n not in hung)
            name = run_id(log.read_text())

            def waits_for_a_gpu() -> list[str]:
                lines = told("squeue", "-h", f"--name={name}", "-o", "%T %r").splitlines()
                return [line for line in lines if line == "PENDING Resources"]

            waiting = wait("a third job that waits", waits_for_a_gpu)
            assert len(waiting) == 1 and len(repository.stages("pretrain")) == 2
            told("scancel", job_of(hung[cancelled]))
            # so that nobody waits ten minutes; a limit of a minute from the start would cut off a slow machine before
            # its first epoch
            told("scontrol", "update", f"JobId={job_of(hung[late])}", "TimeLimit=1")
            assert run.wait(timeout=900) == 0, log.read_text()[-4000:]
        finally:
            if run.poll() is None:
                run.kill()
                run.wait()
                subprocess.run(["scancel", f"--name={run_id(log.read_text())}"], check=False)
    told_by = {n: (repository.folder / f"results/double_win/tiny/{n}/s0/logs/pretrain.log").read_text() for n in names}
    for n in (cancelled, late):
        step = int(re.search(r"resumed at step (\d+)", told_by[n])[1])
        assert step >= 4, told_by[n]  # of two an epoch; the newest state may be some hundredths of a second old
    assert "resumed" not in told_by[third]
    weights = {n: read_arrays(repository.folder / path) for n, path in dense.items()}
    for n in (
        cancelled,
        late,
    ):  # one configuration: those that were cut off must end with the weights of the one that was not
        assert all(np.array_equal(weights[n][key], value) for key, value in weights[third].items())
    jobs = accounted(name, "JobID", "State", "TimelimitRaw")
    assert sorted(j["State"].split()[0] for j in jobs) == [
        "CANCELLED",
        "COMPLETED",
        "COMPLETED",
        "COMPLETED",
        "TIMEOUT",
    ]
    assert {j["TimelimitRaw"] for j in jobs if j["State"] == "TIMEOUT"} == {"1"}
    # retries get more time
    assert sorted(j["TimelimitRaw"] for j in jobs if j["State"] == "COMPLETED") == ["10", "20", "20"]
