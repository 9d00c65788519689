"""A stage that hangs is noticed from outside: it saves and ends where it can, and is killed where it cannot."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DIGITS, MODEL, ROOT, TRAIN

from winnow.artifacts import read_arrays
from winnow.config.root import load, run_arguments

HOOK = """
import sys, time, runpy, torch
from winnow import guard
guard.GRACE = 2.0
import winnow.train.loop as loop
one, how, steps = loop._one_step, sys.argv.pop(1), [0]
def step(*arguments):
    one(*arguments)
    steps[0] += 1
    if steps[0] == 7:
        print("hangs", file=sys.stderr, flush=True)
        if how == "stuck":
            import signal
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as in a call that does not return
            time.sleep(60)
    time.sleep(0.05)
loop._one_step = step
from winnow.stages.pretrain import stage
sys.exit(stage.run())
"""


def command(tmp_path: Path, *more: str) -> list[str]:
    train = TRAIN | {"epochs": 5}
    config = {"method": "std", "data": DIGITS, "model": MODEL, "train": train, "compute": {}, "seed": 0}
    files = ["--out", str(tmp_path / "out"), "--metrics", str(tmp_path / "m"), "--scratch", str(tmp_path / "scratch")]
    return ["--config", json.dumps(config), *files, "--device", "cpu", "--checkpoint-seconds", "0.01", *more]


def start(tmp_path: Path, how: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOOK, how, *command(tmp_path, "--silent-minutes", str(2 / 60))]
    return subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}
    )


def finish(tmp_path: Path) -> str:
    words = [sys.executable, "-m", "winnow.stages.pretrain", *command(tmp_path)]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(folder)
    return read_arrays(folder / "out")


@pytest.mark.parametrize(("how", "code"), [("stopped", 143), ("stuck", -signal.SIGKILL)])
def test_a_silent_stage_ends_and_the_next_run_goes_on(tmp_path, whole, how, code):
    process = start(tmp_path, how)
    if how == "stopped":  # as on a file system that does not answer, or by a hand that forgot it
        assert process.stderr is not None
        begun = time.monotonic()
        while not list((tmp_path / "scratch").rglob("current.ckpt")) and time.monotonic() - begun < 60:
            time.sleep(0.02)
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGSTOP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said[-2000:]
    assert "no step for 0.0333333 minutes (silent_minutes): told to save and end" in said
    assert ("killed; the next run goes on" in said) == (how == "stuck")
    assert not (tmp_path / "out").exists()
    assert int(re.search(r"resumed at step (\d+)", finish(tmp_path))[1]) >= 4
    arrays = read_arrays(tmp_path / "out")
    assert all((arrays[name] == value).all() for name, value in whole.items())


def test_a_stage_that_steps_is_left_alone(tmp_path):
    process = start(tmp_path, "steps")  # 20 steps of 50 ms and more, watched for silences of two seconds
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0 and "no step" not in said, said[-2000:]


def test_the_configuration_gives_the_limit():
    assert "--silent-minutes" not in run_arguments(load({}))
    assert "--silent-minutes 90" in run_arguments(load({"silent_minutes": 90}))
