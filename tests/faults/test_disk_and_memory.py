"""A full disk and exhausted memory: one clear line or a dead process, nothing lost, and the next run goes on."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from .conftest import DRIVER


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB; skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    """Take all the space there is; returns the file that holds it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as f:
        try:
            while True:
                f.write(bytes(4096))
        except OSError:
            return filler


def test_a_full_disk_is_one_line_and_costs_nothing(made, whole, tmp_path, small_disk, capsys):
    # killed with one state saved: two would share the space that the third gives back, and the run would just go on
    case, scratch = replace(made("train"), kill_at=2), small_disk / "scratch"
    case.killed(tmp_path, signal.SIGKILL, scratch)
    filler = fill(small_disk)
    capsys.readouterr()
    assert case.run(tmp_path, "--checkpoint-seconds", "1e-9", scratch=scratch) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("winnow train: error: ") and "No space left on device" in last and "free space" in last
    assert set(case.results(tmp_path)) <= {"disk/filler"}
    filler.unlink()
    assert case.run(tmp_path, scratch=scratch) == 0
    assert f"resumed at step {case.kill_at - 1}" in capsys.readouterr().err
    assert case.results(tmp_path) == whole("train")


def test_a_full_disk_under_the_results_loses_no_training(made, whole, tmp_path, small_disk, capsys):
    case = made("train")
    filler = fill(small_disk)
    assert case.run(small_disk, "--checkpoint-seconds", "1e-9", scratch=tmp_path / "scratch") == 2
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert [p.name for p in small_disk.iterdir()] == ["filler"]  # no half-written artifact
    filler.unlink()
    assert case.run(small_disk, scratch=tmp_path / "scratch") == 0
    assert "resumed at step" in capsys.readouterr().err
    assert case.results(small_disk) == whole("train")


def test_a_run_out_of_memory_goes_on_when_there_is_more(made, whole, tmp_path, capsys):
    """The address space is cut off in mid-run; the allocation that no longer fits ends the process, and the state is
    there.
    """
    case = made("train")
    starve = f"""
import resource
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size, {resource.RLIM_INFINITY}))
bytearray(1 << 28)
"""
    driver = DRIVER.replace("        os.kill(os.getpid(), int(how))\n", "        exec(how)\n")
    words = case.arguments("--checkpoint-seconds", "1e-9")
    command = [sys.executable, "-c", driver, "train", case.hook, starve, str(case.kill_at), *words]
    first = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert first.returncode == 1 and "MemoryError" in first.stderr
    assert case.results(tmp_path) == {}
    assert case.run(tmp_path) == 0
    assert f"resumed at step {case.kill_at - 1}" in capsys.readouterr().err
    assert case.results(tmp_path) == whole("train")
