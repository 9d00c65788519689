"""verify --same-as --tensors: two versions of the code are compared by what they computed, not by what they say of
themselves.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from winnow.artifacts import sha256_file, write_bytes, write_record, write_tensors
from winnow.stage import Job
from winnow.stages import prune, verify
from winnow.ticket import Ticket

DENSE, TICKET = Path("results/dense.safetensors"), Path("results/tickets/imp-std-1.mask.safetensors")
MODEL = Path("results/model")


def make(config: dict[str, int], figure: float = 50.0, scale: float = 1.0, code: int = 1) -> None:
    """Weights, their metrics, a ticket, a model folder and rows, written in the current folder as stages write them."""
    job = Job(
        "pretrain", config, {}, {"out": DENSE, "rows": DENSE.with_suffix(".csv"), "metrics": DENSE.with_suffix(".json")}
    )
    values = np.random.default_rng(0).normal(size=(8, 9)).astype(np.float32) * scale
    about = {"kind": "weights", "prunable": ["w"], **job.provenance(job["out"]), "source": f"version {code}"}
    write_tensors(job["out"], {"w": values}, about)
    write_bytes(job["rows"], b"method,sa\nimp,1.5\n")
    job.write_metrics("metrics", {"test_sa": figure, "epochs": [{"loss": 1.0}]})
    config = {"method": "magnitude", "remaining_percent": 80 + code / 1000}  # another record, the same count
    arguments = ["--config", json.dumps(config)]
    assert prune.stage.run([*arguments, "--weights", str(DENSE), "--out", str(TICKET)]) == 0
    write_bytes(MODEL / "config.json", b'{"layers": 2}')
    write_tensors(MODEL / "model.safetensors", {"w": values}, {})
    sidecar = {
        "kind": "text_model",
        "files": {"config.json": sha256_file(MODEL / "config.json")},
        "source": f"version {code}",
    }
    write_record(MODEL / "winnow.json", sidecar)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """One run in the current folder, and another one below `again` by another version of the code."""
    for folder, code in ((tmp_path / "again", 2), (tmp_path, 1)):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        make({"seed": 0, "key_of_version": code}, code=code)
    return tmp_path


def compared(capsys, *extra: str) -> list[str]:
    """The files that differ."""
    code = verify.main(["results", "--same-as", "again/results", *extra])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"results and again/results: 7 artifacts in both, {len(lines) - 1} differences"
    assert code == (2 if len(lines) > 1 else 0)
    return [line.partition(":")[0] for line in lines[:-1]]


def test_records_count_without_it_and_not_with_it(runs, capsys):
    assert Ticket.load(TICKET).kept == Ticket.load("again" / TICKET).kept
    records = ["dense.json", "dense.safetensors", "model/winnow.json", "tickets/imp-std-1.mask.safetensors"]
    assert compared(capsys) == records
    assert compared(capsys, "--tensors") == []


def test_a_changed_figure_is_found(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs / "again")
    make({"seed": 0}, figure=50.000001)
    monkeypatch.chdir(runs)
    assert compared(capsys, "--tensors") == ["dense.json"]


def test_a_changed_tensor_is_found_wherever_it_lies(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs / "again")
    make({"seed": 0}, scale=-1.0)  # magnitudes stay, so the ticket does
    monkeypatch.chdir(runs)
    assert compared(capsys, "--tensors") == ["dense.safetensors", "model/model.safetensors"]


def test_a_flipped_mask_another_shape_and_other_formats_are_found(runs, capsys):
    ticket = Ticket.load("again" / TICKET)
    flipped = {name: ~mask for name, mask in ticket.arrays.items()}
    Ticket(flipped).save("again" / TICKET, method="imp")
    assert compared(capsys, "--tensors") == ["tickets/imp-std-1.mask.safetensors"]
    Ticket({name: mask.reshape(9, 8) for name, mask in ticket.arrays.items()}).save("again" / TICKET, method="imp")
    assert compared(capsys, "--tensors") == ["tickets/imp-std-1.mask.safetensors"]
    shutil.copyfile(TICKET, "again" / TICKET)
    Path("again/results/dense.csv").write_text("method,sa\nimp,1.6\n")
    Path("again/results/model/config.json").write_text('{"layers": 3}')
    assert compared(capsys, "--tensors") == ["dense.csv", "model/config.json"]


def test_it_needs_another_run(runs, capsys):
    with pytest.raises(SystemExit) as ended:
        verify.main(["results", "--tensors"])
    assert ended.value.code == 2 and "--same-as FOLDER" in capsys.readouterr().err
