"""Ctrl-C is SIGTERM with another name: the state is saved, one line says so, and the next run ends with the same
bytes.
"""

from __future__ import annotations

import importlib.util
import signal

import pytest


@pytest.mark.parametrize("stage", ["train", "evaluate", "attack_text"])
def test_ctrl_c_saves_says_one_line_and_the_next_run_ends_with_the_same_bytes(made, whole, stage, tmp_path, capsys):
    if stage == "attack_text" and importlib.util.find_spec("textattack") is None:
        pytest.skip("textattack is not installed")
    case = made(stage)
    first = case.killed(tmp_path, signal.SIGINT)
    assert first.returncode == 143, first.stderr[-2000:]
    assert "Traceback" not in first.stderr
    assert first.stderr.strip().splitlines()[-1].endswith("stopped by Ctrl-C; the next run goes on from the checkpoint")
    capsys.readouterr()
    assert case.run(tmp_path) == 0
    done = case.kill_at if stage != "attack_text" else case.kill_at - 1  # the step in progress was ended and saved
    assert case.went_on.format(done) in capsys.readouterr().err
    assert case.results(tmp_path) == whole(stage)
