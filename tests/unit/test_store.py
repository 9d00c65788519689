"""The store between working folders: what is done is taken, what differs is not, damage is found, writers do not
meet.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from winnow import store
from winnow.artifacts import atomic_path, sha256_file, write_record, write_tensors
from winnow.schema import Part, key
from winnow.stage import Job, Stage


class Data(Part):
    dataset: str = key("name")
    path: str | None = key("file", None)


class Config(Part):
    data: Data = key("data")
    seed: int = key("seed")


CONFIG = {"data": {"dataset": "npz", "path": "d.npz"}, "seed": 0}


@pytest.fixture
def work(tmp_path, monkeypatch, capsys):
    """work(folder, config) runs a stage with a store there; returns how often its body ran. work.log() is the log since
    then.
    """
    calls = []
    stage = Stage("pretrain", Config, {}, {"out": "weights", "levels": "folder", "metrics": "m"}, trains=True)

    def body(job: Job[Config]) -> None:
        """Work."""
        calls.append(job)
        write_tensors(job["out"], {"w": np.arange(5.0)}, job.provenance(job["out"]))
        for level in range(2):
            path = job["levels"] / f"{level}.safetensors"
            write_tensors(path, {"w": np.full(3, float(level))}, job.provenance(path))
        job.write_metrics("metrics", {"a": 1})

    stage(body)

    def run(folder: str, config=CONFIG, data: bytes = b"data", root: str | Path = "store") -> int:
        (tmp_path / folder / "data").mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        Path("data/d.npz").write_bytes(data)
        before = len(calls)
        capsys.readouterr()
        files = ["--out", "r/w.safetensors", "--levels", "r/levels", "--metrics", "r/m.json"]
        arguments = ["--config", json.dumps(config), *files, "--device", "cpu", "--store", str(tmp_path / root)]
        assert stage.run(arguments) == 0
        return len(calls) - before

    run.log = lambda: capsys.readouterr().err
    return run


def digests(folder):
    return {p.relative_to(folder): sha256_file(p) for p in sorted((folder / "r").rglob("*")) if p.is_file()}


def entries(tmp_path):
    return [p.parent for p in (tmp_path / "store").glob("*/*/manifest.json")]


def test_a_second_folder_takes_what_the_first_computed(work, tmp_path):
    assert work("one") == 1 and "put into the store" in work.log()
    assert work("two") == 0 and "taken from the store, nothing is computed" in work.log()
    assert len(digests(tmp_path / "one")) == 4 and digests(tmp_path / "one") == digests(tmp_path / "two")
    (tmp_path / "two/r/w.safetensors").write_bytes(b"")  # a copy: the store does not notice
    assert work("three") == 0 and digests(tmp_path / "one") == digests(tmp_path / "three")


def test_another_configuration_code_or_data_file_is_another_entry(work, tmp_path, monkeypatch):
    work("one")
    assert work("two", {**CONFIG, "seed": 1}) == 1
    assert work("three", data=b"other images under the same name") == 1
    monkeypatch.setattr("winnow.job.source_hash", lambda stage, also: "edited")
    assert work("four") == 1
    monkeypatch.setattr("winnow.job.versions", lambda: {"torch": "9"})
    assert work("five") == 1
    assert len(entries(tmp_path)) == 5


@pytest.mark.parametrize("how", ["a byte", "truncated", "gone", "manifest", "elsewhere"])
def test_a_damaged_entry_is_thrown_away_and_made_anew(work, tmp_path, how):
    work("one")
    (entry,) = entries(tmp_path)
    manifest, file = entry / "manifest.json", entry / sha256_file(tmp_path / "one/r/w.safetensors")
    if how == "a byte":
        file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:20])
    elif how == "gone":
        file.unlink()
    elif how == "manifest":
        manifest.write_bytes(manifest.read_bytes().replace(b"pretrain", b"pretraim"))
    else:
        write_record(manifest, {"files": {"../evil": file.name}, "stage": "pretrain"})
    assert work("two") == 1 and "the work done again" in work.log()
    assert digests(tmp_path / "one").keys() == digests(tmp_path / "two").keys() and not (tmp_path / "evil").exists()
    assert not [p for p in (tmp_path / "two").rglob(".*")] and not list((tmp_path / "store").rglob(".*"))
    assert work("three") == 0


def test_a_store_that_cannot_be_written_is_a_warning(work, tmp_path):
    (tmp_path / "file").write_text("")
    assert work("one", root="file/store") == 1 and "not put into the store" in work.log()
    assert len(digests(tmp_path / "one")) == 4


def test_writers_at_the_same_time_leave_one_whole_entry(tmp_path):
    code = """
import sys, time
from pathlib import Path
from winnow import store
from winnow.artifacts import write_bytes
from winnow.stage import Job
root, name = Path(sys.argv[1]), sys.argv[2]
write_bytes("w.bin", b"same bytes" * 10000)
(root / f"ready-{name}").touch()
while len(list(root.glob("ready-*"))) < 3:
    time.sleep(0.001)
for i in range(30):
    store.publish(root / "store" / str(i), Job("pretrain", {}, {}, {"out": Path("w.bin")}))
"""
    writers = []
    for name in "abc":
        (tmp_path / name).mkdir()
        arguments = [sys.executable, "-c", code, str(tmp_path), name]
        writers.append(subprocess.Popen(arguments, cwd=tmp_path / name, stderr=subprocess.PIPE, text=True))
    assert [(w.communicate()[1], w.returncode) for w in writers] == [("", 0)] * 3
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == sorted(map(str, range(30)))
    job = Job("pretrain", {}, {}, {"out": tmp_path / "out/w.bin"})
    for entry in (tmp_path / "store").iterdir():
        assert {p.name for p in entry.iterdir()} == {"manifest.json", sha256_file(tmp_path / "a/w.bin")}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path / "a")
            job.outputs = {"out": Path("w.bin")}
            assert store.take(entry, job)


def test_what_is_there_stays_when_an_entry_cannot_be_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job("pretrain", {}, {}, {"out": Path("w.bin"), "metrics": Path("m.bin")})
    for path in job.outputs.values():
        with atomic_path(path) as temporary:
            temporary.write_bytes(path.name.encode())
    store.publish(tmp_path / "entry", job)
    (tmp_path / "entry" / sha256_file("m.bin")).write_bytes(b"damaged")
    for path in job.outputs.values():
        path.write_bytes(b"older")
    assert not store.take(tmp_path / "entry", job)
    assert [p.read_bytes() for p in job.outputs.values()] == [b"older"] * 2
