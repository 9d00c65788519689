"""The bench for the day a GPU is at hand runs: here on the CPU, at sizes whose rates mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from conftest import ROOT


def test_every_case_is_measured_beside_the_plain_loop(tmp_path):
    words = [sys.executable, "-m", "bench.gpu_speed", "--device", "cpu", "--tiny", "--json", str(tmp_path / "r.json")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    cases = json.loads((tmp_path / "r.json").read_text())["cases"]
    assert list(cases) == ["std float32", "pgd3 float32", "gem float32"]
    for found in cases.values():
        assert min(found["examples_per_second"], found["plain_examples_per_second"], found["of_peak_percent"]) > 0
        assert found["waiting_percent"] == 0 and found["peak_mib"] is None
