"""Stages in forks of a warm process are the stages themselves: same bytes, codes, words, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from winnow.artifacts import sha256_file

pytestmark = pytest.mark.slow
DATA = {"dataset": "digits", "val_images": 200, "train_images": 100}
MODEL = {"arch": "resnet8", "width": 4}
CONFIG = {
    "method": "std",
    "data": DATA,
    "model": MODEL,
    "train": {"epochs": 2, "batch_size": 25, "lr": 0.1},
    "compute": {},
    "seed": 0,
}
STAGE = [sys.executable, "-m", "winnow.stages.pretrain", "--out", "a.safetensors", "--metrics", "m.json", "--config"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def warm(folder: Path, script: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`bash -c script` beside a warm process."""
    command = [sys.executable, "-m", "winnow.warm", "bash", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=ENVIRONMENT | more)


def quoted(config: dict) -> str:
    import shlex

    return shlex.join([*STAGE, json.dumps(config)])


def test_the_bytes_the_line_and_the_code_are_those_of_a_process_of_its_own(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "warm").mkdir()
    done = subprocess.run(
        [*STAGE, json.dumps(CONFIG)], cwd=tmp_path / "own", env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    wrong = quoted(CONFIG | {"seed": -1})
    other = warm(tmp_path / "warm", f"{quoted(CONFIG)} && {{ {wrong}; echo code $?; }}")
    assert sha256_file(tmp_path / "own/a.safetensors") == sha256_file(tmp_path / "warm/a.safetensors")
    assert "code 2" in other.stdout and "config.seed: -1 must be >= 0" in other.stderr and "epoch 2/2" in other.stderr


def test_a_signal_to_the_command_reaches_its_fork(tmp_path):
    long = CONFIG | {"train": CONFIG["train"] | {"epochs": 4000}}
    script = f"{quoted(long)} & pid=$!; for i in $(seq 300); do grep -q 'epoch 1/' err && break; sleep 0.2; done; "
    script += "kill -TERM $pid; wait $pid; echo code $?"
    done = warm(tmp_path, f"exec 2>err; {script}")
    assert done.stdout.strip() == "code 143", (tmp_path / "err").read_text()
    assert "goes on from the checkpoint" in (tmp_path / "err").read_text()


def test_edited_sources_run_by_themselves(tmp_path):
    """A warm process never computes with code that is not on the disk any more."""
    from conftest import copy_of_project

    copy = copy_of_project(tmp_path / "project").parent
    edited = copy / "src/winnow/stages/pretrain.py"
    edit = f"sed -i '0,/^stage = /s//print(1234, flush=True)\\nstage = /' {edited}"
    script = f"{quoted(CONFIG)} && {edit} && {quoted(CONFIG)}"
    done = warm(tmp_path, script, PYTHONPATH=str(copy / "src"))
    assert done.returncode == 0 and done.stdout.count("1234") == 1, done.stdout + done.stderr


def test_nothing_is_left_running(tmp_path):
    started = time.time()
    command = [sys.executable, "-m", "winnow.warm", "sleep", "60"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT)
    time.sleep(2)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(children) == 2
    process.send_signal(signal.SIGINT)
    os.kill(int(children[-1]), signal.SIGKILL)
    process.wait(20)
    assert time.time() - started < 40
    assert not [c for c in children if Path(f"/proc/{c}").exists()]
