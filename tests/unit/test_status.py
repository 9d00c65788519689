"""`winnow status` on logs: those that stages write here, and those of snakemake runs of a small workflow of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DIGITS, MODEL, ROOT, TRAIN

from winnow import cli, project, status

# Two jobs that end, one that fails as a stage does, one that waits for it
SNAKEFILE = """
rule all:
    input: "results/last"
rule train:
    output: "results/{n}"
    log: "results/logs/{n}.log"
    message: "training {wildcards.n}"
    shell: "(echo '10:00:00 done in 1 s: loss 0.5' && sleep 0.1 && touch {output}) > {log}"
rule fail:
    input: "results/one", "results/two"
    output: "results/three"
    log: "results/logs/sub/three.log"
    message: "failing"
    shell: "echo 'winnow train: error: config.lr: expected a number' > {log}; exit 2"
rule last:
    input: "results/three"
    output: "results/last"
    log: "results/logs/last.log"
    message: "the last"
    shell: "touch {output}"
ruleorder: last > fail > train
"""


@pytest.mark.parametrize("quiet", [[], ["--quiet", "rules", "host", "reason"]], ids=["loud", "quiet"])
def test_a_run_that_failed(tmp_path, quiet):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *quiet]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 1
    lines = list(status.status(tmp_path))
    assert lines[:3] == [
        "failed: 1",
        "  results/logs/sub/three.log",
        "    winnow train: error: config.lr: expected a number",
    ]
    assert lines[3].startswith("done: 2 of 4 jobs since ") and lines[4] == "left: 1 fail, 1 last"
    assert lines[5] == "snakemake has ended; run the same command again for what is left" and len(lines) == 6
    assert status.main([str(tmp_path)]) == 2


def test_winnow_run_ends_with_a_line_for_each_job_that_failed(tmp_path, monkeypatch, capfd):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(project, "workflow", lambda: tmp_path)
    assert cli.main(["run", "--cores", "1", "--quiet", "rules", "host", "reason"]) == 1
    assert (
        capfd.readouterr().err.splitlines()[-1]
        == "results/logs/sub/three.log: winnow train: error: config.lr: expected a number"
    )


def test_the_time_left_counts_each_rule_by_its_own(tmp_path):
    run = status.Workflow(Path("log"), {"train": 4, "evaluate": 2}, begun=1000.0)
    run.finished.update({"train": 2, "evaluate": 1})
    assert run.seconds_left(1100.0) == pytest.approx(100.0)  # three of six done in 100 s, nothing told of their starts
    run.seconds = {"train": [90.0, 110.0], "evaluate": [10.0]}
    # 2 x 100 s and 10 s are ahead; 210 s of work were done in 105 s, so two run side by side
    assert run.seconds_left(1105.0) == pytest.approx(105.0)
    run.finished.clear()
    assert run.seconds_left(1105.0) is None


def test_states_of_jobs_by_their_last_line(tmp_path):
    logs, now = tmp_path / "logs", time.time()
    logs.mkdir()
    said = {
        "done": "10:00:00 epoch 1/1  loss 0.5\n10:00:01 done in 3 s: sa 91.2\n",
        "failed": "10:00:00 epoch 1/2  loss 0.5\nwinnow train: error: training diverged: the loss is nan\n",
        "stopped": "10:00:00 stopped by Ctrl-C; the next run goes on from the checkpoint\n",
        "running": "10:00:00 epoch 1/9  loss 0.5\n10:00:25 epoch 2/9: 5 of 90 steps, 1.9 s/step, 2 min 41 s left\n",
        "silent": "10:00:00 epoch 1/9  loss 0.5\n10:00:25 epoch 2/9: 5 of 90 steps, 1.9 s/step, 2 min 41 s left\n",
    }
    said["stopped-2"] = "Traceback (most recent call last):\n  File x\nKeyboardInterrupt\n"
    said["failed-2"] = "Traceback (most recent call last):\n  File x\nRuntimeError: boom\n"
    for name, text in said.items():
        (logs / f"{name}.log").write_text(text)
        os.utime(logs / f"{name}.log", (now - 600, now - 600) if name == "silent" else (now, now))
    found = {j.file.stem: j for j in status.jobs(tmp_path, now=now)}
    assert {name: j.state for name, j in found.items()} == {name: name.partition("-")[0] for name in said}
    assert found["running"].epoch == "epoch 1/9  loss 0.5" and found["running"].line.startswith("epoch 2/9: 5 of 90")
    assert found["failed"].line == "winnow train: error: training diverged: the loss is nan"
    assert found["failed-2"].line == "RuntimeError: boom"


def test_a_job_at_work_is_seen_with_its_epoch(tmp_path):
    """A real stage, looked at while it trains."""
    train = TRAIN | {"epochs": 4000}
    config = {"method": "std", "data": DIGITS, "model": MODEL, "train": train, "compute": {}, "seed": 0}
    (tmp_path / "results/logs").mkdir(parents=True)
    log = tmp_path / "results/logs/pretrain.log"
    words = [
        "--config",
        json.dumps(config),
        "--out",
        "results/d.safetensors",
        "--metrics",
        "results/d.json",
        "--device",
        "cpu",
    ]
    with log.open("w") as stream:
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        job = subprocess.Popen(
            [sys.executable, "-m", "winnow.stages.pretrain", *words], cwd=tmp_path, stderr=stream, env=environment
        )
    try:
        deadline = time.monotonic() + 120
        while "epoch 2/4000" not in log.read_text() and time.monotonic() < deadline:
            assert job.poll() is None, log.read_text()
            time.sleep(0.2)
        lines = list(status.status(tmp_path))
        assert lines[:2] == ["running: 1", "  results/logs/pretrain.log"]
        assert lines[2].startswith("    epoch ") and "loss" in lines[2] and " left)" in lines[2]
    finally:
        job.terminate()
        job.wait()
    assert [j.state for j in status.jobs(tmp_path / "results")] == ["stopped"]
