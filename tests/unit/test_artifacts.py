"""Files: atomic, byte-stable, and damaged ones are told."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from winnow.artifacts import atomic_path, read_metadata, read_tensors, sha256_file, write_json, write_tensors
from winnow.errors import WinnowError


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"a": 1})
    before = target.read_bytes()
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_tensors_read_with_plain_safetensors_and_one_metadata_key(tmp_path):
    path = tmp_path / "w.safetensors"
    state = {"a": torch.randn(3, 4).t(), "b": torch.arange(5)}
    write_tensors(path, state, {"kind": "weights", "z": [1, 2]})
    loaded = load_file(path)
    assert all(torch.equal(loaded[k], v) for k, v in state.items())
    found = read_metadata(path)
    assert len(found.pop("seal")) == 64 and found == {"format": 1, "kind": "weights", "z": [1, 2]}


def test_bytes_do_not_depend_on_the_process(tmp_path):
    code = (
        "import torch, sys; from winnow.artifacts import write_tensors;"
        "write_tensors(sys.argv[1], {c: torch.ones(2) for c in 'qwerty'}, {c: 1 for c in 'asdfgh'})"
    )
    digests = set()
    for seed in ("1", "2", "3"):
        path = tmp_path / seed
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        digests.add(sha256_file(path))
    assert len(digests) == 1


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": np.arange(200, dtype=np.float32)}, {"kind": "weights"})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WinnowError, match=r"w\.safetensors: truncated or not a safetensors file"):
        read_tensors(path)


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(WinnowError, match=r"no such file; run the stage that writes it"):
        read_metadata(tmp_path / "none.safetensors")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WinnowError, match="cannot be written"):
        write_json(tmp_path / "file" / "x.json", {})


def test_nan_is_never_written_as_json(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []
