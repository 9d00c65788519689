"""A model folder on a full disk, and written by two runs at once: one line each, nothing half written, nothing left
behind.
"""

from __future__ import annotations

import json
import subprocess
import sys

from winnow.artifacts import read_json, sha256_file

from .conftest import TEXT, TINY_BERT, run
from .test_disk_and_memory import fill, small_disk  # noqa: F401  (a fixture)


def words(out, model=TINY_BERT):
    return ["--config", json.dumps({"model": model, "data": TEXT}), "--device", "cpu", "--out", str(out)]


def test_a_full_disk_under_a_model_folder_is_one_line(small_disk, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    large = {**TINY_BERT, "hidden": 128, "intermediate": 512, "layers": 4}  # more than the disk holds, in its weights
    for model, filler in ((large, None), (TINY_BERT, fill)):
        held = filler(small_disk) if filler else None
        assert run("import_text_model", words(small_disk / "m/model.safetensors", model)) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert "cannot be written" in last and "No space left on device" in last and "free space" in last, last
        if held:
            held.unlink()
        assert list(small_disk.iterdir()) == []
    assert run("import_text_model", words(small_disk / "m/model.safetensors")) == 0


def test_two_runs_that_write_one_model_folder_leave_one_whole(tmp_path):
    command = [sys.executable, "-m", "winnow.stages.import_text_model", *words("m/model.safetensors")]
    running = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [(p.communicate()[1], p.returncode) for p in running]
    assert 0 in [code for _, code in ends]
    for err, code in ends:
        assert code in (0, 2) and "Traceback" not in err, err
        if code:
            assert "written by another run at the same time" in err.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    listed = read_json(tmp_path / "m/winnow.json")["files"]
    assert all(sha256_file(tmp_path / "m" / name) == sha for name, sha in listed.items())
