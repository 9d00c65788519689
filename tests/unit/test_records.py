"""Artifacts checked after the fact: verify finds what is damaged, misplaced or made from something else; trace shows
the chain.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from winnow.artifacts import read_metadata, seal_holds, sha256_file, write_bytes, write_record, write_tensors
from winnow.stage import Job
from winnow.stages import prune, trace, verify

CHAIN = Path("results/double_win/a/std")
DENSE, IMP, RANDOM = "dense.safetensors", "tickets/imp-std-1.mask.safetensors", "tickets/random-std-1.mask.safetensors"
TABLE, FIGURE = Path("results/tables/t.csv"), Path("results/figures/t/t.svg")


def train(seed: int, scale: float = 1.0) -> None:
    """What a pre-training leaves behind, without the training."""
    folder = CHAIN / f"s{seed}"
    job = Job("pretrain", {"seed": seed}, {}, {"out": folder / DENSE, "metrics": folder / "dense.json"})
    values = np.random.default_rng(seed).normal(size=(8, 9)).astype(np.float32) * scale
    write_tensors(job["out"], {"w": values}, {"kind": "weights", "prunable": ["w"], **job.provenance(job["out"])})
    job.write_metrics("metrics", {"test_sa": 50.0})


def run(stage, config, **files):
    assert (
        stage.stage.run(["--config", json.dumps(config), *[w for k, v in files.items() for w in (f"--{k}", str(v))]])
        == 0
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two seeds of dense weights, a ticket and a random one, a table and a figure made of them."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed in (0, 1):
            train(seed)
            cut = {"method": "magnitude", "remaining_percent": 80}
            run(prune, cut, weights=CHAIN / f"s{seed}" / DENSE, out=CHAIN / f"s{seed}" / IMP)
            run(
                prune,
                {"method": "random", "seed": seed},
                like=CHAIN / f"s{seed}" / IMP,
                out=CHAIN / f"s{seed}" / RANDOM,
            )
        table = Job("double_win_table", {}, {}, {"out": TABLE, "metrics": TABLE.with_suffix(".json")})
        table.read("results", [CHAIN / f"s{seed}" / IMP for seed in (0, 1)])
        write_bytes(TABLE, b"method,sa\nimp,1.5\n")
        table.write_metrics("metrics", {"rows": 1})
        figure = Job("double_win_plots", {}, {"table": TABLE}, {"svg": FIGURE, "metrics": FIGURE.with_suffix(".json")})
        write_bytes(FIGURE, b"<svg/>")
        figure.write_metrics("metrics", {})
    return folder


@pytest.fixture
def results(finished, tmp_path, monkeypatch):
    """A copy of it that may be damaged, as the current folder."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verified(capsys, *arguments) -> list[str]:
    """The lines that verify prints when it finds something."""
    code = verify.main([*arguments])
    lines = capsys.readouterr().out.splitlines()
    assert code == (2 if any(": delete" in line or "; delete" in line for line in lines) else 0)
    return lines


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(bytes(data))


def test_untouched_artifacts_verify_from_any_folder_and_after_a_move(results, capsys, monkeypatch):
    assert verified(capsys) == ["results: 12 artifacts, 0 bad"]
    monkeypatch.chdir(results / "results")
    assert verified(capsys, ".") == [".: 12 artifacts, 0 bad"]
    (results / "elsewhere").mkdir()
    (results / "results").rename(results / "elsewhere/results")
    monkeypatch.chdir(results)
    assert verified(capsys, "elsewhere/results") == ["elsewhere/results: 12 artifacts, 0 bad"]


@pytest.mark.parametrize("name", [IMP, "dense.json"])
def test_no_byte_of_an_artifact_can_change_unseen(results, name):
    path = CHAIN / "s0" / name
    whole = path.read_bytes()
    assert seal_holds(path)
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        assert not seal_holds(path), position
    for other in (whole[:-1], whole + b"\0", whole[: len(whole) // 2], b""):
        path.write_bytes(other)
        assert not seal_holds(path)


@pytest.mark.parametrize(
    "path", [CHAIN / "s0" / DENSE, CHAIN / "s0" / IMP, CHAIN / "s0/dense.json", TABLE, FIGURE], ids=str
)
@pytest.mark.parametrize("how", ["first byte", "last byte", "middle", "truncated", "emptied"])
def test_a_damaged_artifact_is_named_with_what_to_delete(results, capsys, path, how):
    size = path.stat().st_size
    if how in ("truncated", "emptied"):
        path.write_bytes(path.read_bytes()[: size // 2 if how == "truncated" else 0])
    else:
        flip(path, {"first byte": 0, "last byte": size - 1, "middle": size // 2}[how])
    lines = [line for line in verified(capsys) if line.startswith(f"{path}: damaged")]
    assert len(lines) == 1 and f"; delete {path}" in lines[0]


def test_a_damaged_parent_is_reported_once_with_what_follows_from_it(results, capsys):
    flip(CHAIN / "s0" / IMP, -1)
    first, last, mend = verified(capsys)
    assert first.startswith(f"{CHAIN / 's0' / IMP}: damaged")
    assert first.endswith("what follows from it: 1 of double_win_plots, 1 of double_win_table, 1 of prune")
    assert last == "results: 12 artifacts, 1 bad"
    assert mend.count(f"rm -f {CHAIN / 's0' / IMP}")


@pytest.mark.parametrize("name", [IMP, RANDOM, DENSE, "dense.json"])  # a random ticket has no child
def test_artifacts_swapped_between_seeds_are_found(results, capsys, name):
    one, other = CHAIN / "s0" / name, CHAIN / "s1" / name
    one.rename("aside")
    other.rename(one)
    Path("aside").rename(other)
    lines = verified(capsys)
    assert f"{one}: not where it belongs: it was written as {other}; delete" in "\n".join(lines)
    assert f"{other}: not where it belongs: it was written as {one}; delete" in "\n".join(lines)


def test_a_swapped_table_and_figure_are_found(results, capsys):
    shutil.copy(FIGURE, TABLE)
    assert any(
        line.startswith(f"{TABLE}: damaged: it is not what results/tables/t.json vouches for")
        for line in verified(capsys)
    )


def test_a_child_of_another_version_is_found(results, capsys):
    train(0, scale=2.0)  # sound in itself, but not what the ticket was made from
    lines = verified(capsys)
    assert len(lines) == 3 and lines[0].startswith(
        f"{CHAIN / 's0' / IMP}: made from another version of {CHAIN / 's0' / DENSE}"
    )


def test_a_file_that_nobody_vouches_for_is_found(results, capsys):
    shutil.copy(TABLE, "results/tables/other.csv")
    write_tensors("results/by_hand.safetensors", {"w": np.zeros(2, np.float32)}, {"kind": "weights"})
    Path("results/foreign.json").write_text("{}")
    Path("results/job.log").write_text("not an artifact")
    lines = verified(capsys)
    assert {line.split(":")[0] for line in lines if "; delete" in line} == {
        "results/by_hand.safetensors",
        "results/foreign.json",
    }
    assert "note: results/tables/other.csv: no record beside it vouches for it" in lines


def test_files_that_are_gone_are_notes(results, capsys):
    (CHAIN / "s0" / DENSE).unlink()
    lines = verified(capsys)
    assert [line.startswith("note: ") for line in lines] == [True, True, False]
    assert f"{CHAIN / 's0' / IMP}: its parent {CHAIN / 's0' / DENSE} is gone" in lines[0] + lines[1]


def test_trace_prints_the_chain_and_checks_it(results, capsys):
    assert trace.main([str(FIGURE)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["verified"] * 6
    assert lines[0].startswith(f"{FIGURE}  ") and lines[1].startswith(f"  table: {TABLE}  ")
    assert lines[2].startswith(f"    results[0]: {CHAIN / 's0' / IMP}  ") and "prune" in lines[2]
    assert lines[3].startswith(f"      weights: {CHAIN / 's0' / DENSE}  ") and "pretrain seed 0" in lines[3]
    flip(CHAIN / "s0" / DENSE, 3)
    assert trace.main([str(FIGURE)]) == 2
    assert "damaged" in capsys.readouterr().out.splitlines()[3]
    train(0, scale=2.0)
    assert trace.main([str(FIGURE)]) == 2
    assert capsys.readouterr().out.splitlines()[3].endswith("changed")
    (CHAIN / "s0" / DENSE).unlink()
    assert trace.main([str(FIGURE)]) == 2
    assert capsys.readouterr().out.splitlines()[3].endswith("missing")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "winnow.json"])
def test_every_file_of_a_model_folder_counts(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    folder = Path("results/robust_bert/a/dense")
    maker = Job("finetune_text", {"seed": 0}, {}, {"out": folder / "model.safetensors"})
    for file in ("model.safetensors", "tokenizer.json"):
        write_bytes(folder / file, b"written by Hugging Face's libraries" * 10)
    files = {file.name: sha256_file(file) for file in folder.iterdir()}
    write_record(folder / "winnow.json", {"kind": "text_model", "files": files, **maker.provenance(maker["out"])})
    child = Job("attack_text", {}, {"model": maker["out"]}, {"metrics": Path("results/robust_bert/a/attack.json")})
    child.write_metrics("metrics", {})
    assert verified(capsys) == ["results: 4 artifacts, 0 bad"] and trace.main([str(child["metrics"])]) == 0
    flip(folder / name, 9)
    capsys.readouterr()
    assert trace.main([str(child["metrics"])]) == 2 and "damaged" in capsys.readouterr().out
    (bad,) = (line for line in verified(capsys) if line.startswith(str(folder / name)))
    assert f"delete {folder / 'model.safetensors'}" in bad and "what follows from it: 1 of attack_text" in bad


def test_two_runs_are_compared_but_for_their_run_times(results, capsys):
    shutil.copytree("results", "again/results")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("again")
        train(0)  # metrics with another time
    assert verify.main(["results", "--same-as", "again/results"]) == 0
    (results / "again/results/tables/t.csv").write_text("method,sa\nimp,1.6\n")
    (results / "again" / FIGURE).unlink()
    capsys.readouterr()
    assert verify.main(["results", "--same-as", "again/results"]) == 2
    assert capsys.readouterr().out.splitlines()[:2] == ["figures/t/t.svg: only in results", "tables/t.csv: differs"]


def test_metadata_leads_back_to_everything(results):
    record = read_metadata(CHAIN / "s0" / IMP)
    assert set(record) >= {"path", "stage", "config", "parents", "source", "versions", "device", "seal"}
    assert record["path"] == str(CHAIN / "s0" / IMP)
    metrics = json.loads((CHAIN / "s0/dense.json").read_text())
    assert set(metrics["run"]) - {"command", "commit"} == {"wall_seconds", "finished", "machine"} and list(
        metrics["outputs"]
    ) == [str(CHAIN / "s0" / DENSE)]


@pytest.mark.parametrize(
    ("name", "arguments"), [("trace", ["nowhere.csv"]), ("verify", ["nowhere"]), ("report", ["nowhere"])]
)
def test_commands_start_without_heavy_packages_and_name_a_wrong_path(tmp_path, name, arguments):
    code = (
        "import sys\nfor m in ('torch', 'pandas', 'snakemake', 'matplotlib', 'yaml'): sys.modules[m] = None\n"
        f"from winnow.stages.{name} import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert (
        done.returncode == 2
        and done.stderr.startswith(f"winnow {name}: error: nowhere")
        and done.stderr.count("\n") == 1
    )


def test_a_clock_that_is_set_back_makes_no_negative_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    now = time.time()
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: now - 86400.0 * next(clock))  # a day back at every look
    train(0)
    assert 0 <= json.loads((CHAIN / "s0/dense.json").read_text())["run"]["wall_seconds"] < 60
