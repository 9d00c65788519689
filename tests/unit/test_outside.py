"""What comes from outside is read with care: no waiting, no filled memory, no code of others, one line and exit code
2.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DIGITS, MODEL, ROOT, TRAIN

from winnow import Ticket, outside, places
from winnow.artifacts import METADATA_KEY, read_json, read_tensors, seal_holds, write_record, write_tensors
from winnow.errors import WinnowError
from winnow.run import Run
from winnow.weights import check_replaceable, replace_folder

TEXT = {"dataset": "embedded", "max_length": 24, "train_examples": 32, "test_examples": 16, "val_fraction": 0.1}
TINY = {"source": "tiny", "layers": 1, "hidden": 16, "heads": 2, "intermediate": 32}
IMPORT = {"weights": {"file": "x"}, "model": MODEL, "num_classes": 3}
PRETRAIN = {"method": "std", "data": DIGITS, "model": MODEL, "train": TRAIN, "compute": {}, "seed": 0}


@pytest.fixture(autouse=True)
def no_hang():
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 60


def last(err: str) -> str:
    assert "Traceback" not in err, err
    return err.strip().splitlines()[-1]


# files that are none
# --------------------------------------------------------------------------------------------------------


def odd_files(folder: Path) -> dict[str, Path]:
    """A FIFO, devices, a folder, a sparse file of a terabyte."""
    os.mkfifo(folder / "fifo")
    with (folder / "sparse").open("wb") as f:
        f.truncate(1 << 40)
    (folder / "folder").mkdir()
    return {
        "FIFO": folder / "fifo",
        "device": Path("/dev/zero"),
        "folder": folder / "folder",
        "bytes": folder / "sparse",
    }


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    for word, path in odd_files(tmp_path).items():
        for read in (outside.regular, outside.opened, outside.read_bytes, outside.check_zip):
            with pytest.raises(WinnowError, match=word):
                read(path)
    with pytest.raises(WinnowError, match="no such file; put it there"):
        outside.opened(tmp_path / "none", missing="put it there")
    (tmp_path / "twelve").write_bytes(b"twelve bytes")
    assert outside.read_bytes(tmp_path / "twelve", 12) == b"twelve bytes"
    with pytest.raises(WinnowError, match="more than the 11"):
        outside.read_bytes(tmp_path / "twelve", 11)


@pytest.mark.parametrize("what", ["FIFO", "device", "bytes"])
@pytest.mark.parametrize(("stage", "config", "name"), [
    ("import_weights", IMPORT, "file"),
    ("transfer", {"data": DIGITS, "train": TRAIN, "compute": {}, "seed": 0}, "init"),
    ("prune", {"method": "magnitude", "remaining_percent": 80}, "weights"),
])  # fmt: skip
def test_a_stage_does_not_wait_for_a_fifo_nor_read_a_device(run_stage, tmp_path, stage, config, name, what):
    (tmp_path / "odd").mkdir()
    outputs = {"out": "o", "metrics": "m"} if stage != "prune" else {"out": "o"}
    outputs = {"best_sa": "o", "metrics": "m"} if stage == "transfer" else outputs
    begun = time.monotonic()
    code, err = run_stage(stage, config, **{name: odd_files(tmp_path / "odd")[what]}, **outputs)
    assert code == 2 and what in last(err) and time.monotonic() - begun < 5


def test_json_that_is_nested_or_large_or_no_record_is_one_line(run_stage, tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    code, err = run_stage("prune", deep, out="o")
    assert code == 2 and "--config: not JSON (nested more than 100 levels deep)" in last(err)
    (tmp_path / "deep.json").write_text(deep)
    code, err = run_stage("prune", "@deep.json", out="o")
    assert code == 2 and "nested more than 100 levels" in last(err)
    with pytest.raises(ValueError, match="nested"):
        outside.parse_json('{"a":' * 101 + "1" + "}" * 101)
    assert outside.parse_json('{"a":' * 99 + "1" + "}" * 99)
    from safetensors.numpy import save_file

    for text in (deep, "[1]", "3", '{"kind": "ticket"}', '{"kind": "ticket", "shapes": 3, "kept": 4}',
                 '{"kind":"ticket","shapes":{"a":[-1]},"kept":{"a":1}}',
                 '{"kind":"ticket","shapes":{"a":["x"]},"kept":{"a":1}}',
                 '{"kind":"ticket","shapes":{"a":[4611686018427387904,4611686018427387904]},"kept":{"a":1}}',
                 '{"kind":"ticket","shapes":{"a":[8]},"kept":{"b":1}}'):  # fmt: skip
        save_file({"a": np.ones(1, np.uint8)}, tmp_path / "odd.mask.safetensors", metadata={METADATA_KEY: text})
        with pytest.raises(WinnowError):
            Ticket.load(tmp_path / "odd.mask.safetensors")


# bombs
# ----------------------------------------------------------------------------------------------------------------------


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    from winnow.text import tables
    from winnow.vision.arrays import read_npz
    from winnow.vision.encoded import find

    with gzip.open(tmp_path / "bomb.csv.gz", "wb") as f:
        f.write(b"sentence,label\n")
        for _ in range(64):
            f.write(bytes(1 << 20))
    monkeypatch.setattr(tables, "LARGEST", 1 << 20)
    with pytest.raises(WinnowError, match="unpacks to more than"):
        tables.read_rows(tmp_path / "bomb.csv.gz", ["sentence"])
    for name in ("bomb.npz", "bomb.pth"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train_images.npy", bytes(64 << 20))
    monkeypatch.setattr(outside, "memory", lambda: 8 << 20)
    with pytest.raises(WinnowError, match="unpacks to"):
        read_npz(tmp_path / "bomb.npz")
    from winnow.interchange import read_checkpoint

    with pytest.raises(WinnowError, match="unpacks to"):
        read_checkpoint(tmp_path / "bomb.pth")
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("train/a/huge.png")
        member.size = 1 << 36  # says the header; its bytes need not follow
        archive.fileobj.write(member.tobuf())
    with pytest.raises(WinnowError, match="larger than any image"):
        find(tmp_path / "bomb.tar.gz")


def test_gzip_files_are_read_as_gunzip_reads_them(tmp_path):
    path, data = tmp_path / "x.gz", b"text " * 1000
    for written in (
        gzip.compress(data),
        gzip.compress(data[:100]) + gzip.compress(data[100:]),
        gzip.compress(data) + b"\0" * 512,
    ):
        path.write_bytes(written)
        assert outside.unpacked(path, 10_000) == data == gzip.decompress(written)
    path.write_bytes(gzip.compress(data)[:-9])
    with pytest.raises(ValueError, match="end before"):
        outside.unpacked(path, 10_000)


def test_arrays_whose_shape_lies_end_in_one_line(tmp_path):
    from winnow.vision.arrays import read_npz

    lie = io.BytesIO()
    np.lib.format.write_array_header_1_0(lie, {"descr": "|u1", "fortran_order": False, "shape": (1 << 45, 1, 1, 1)})
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        for name in ("train_images", "train_labels", "test_images", "test_labels"):
            archive.writestr(f"{name}.npy", lie.getvalue())
    with pytest.raises(WinnowError, match=r"not a readable \.npz"):
        read_npz(tmp_path / "lie.npz")


# weights of others
# ----------------------------------------------------------------------------------------------------------


def test_weights_that_no_network_computes_with_are_refused(dense, run_stage, tmp_path):
    state = {k: v.clone() for k, v in read_tensors(dense).items()}
    first = next(k for k, v in state.items() if v.dim() == 4)
    itself: dict = {"epoch": 3}
    itself["state_dict"] = itself
    cases = {
        "not finite": state | {first: torch.full_like(state[first], float("nan"))},
        "is complex": state | {first: state[first].to(torch.complex64)},
        "is a view of": state | {first: torch.zeros(1).expand(1 << 36)},
        "holds no plain values": state | {first: state[first].to("meta")},
        "holds itself": itself,
    }
    for message, value in cases.items():
        torch.save(value, tmp_path / "w.pth")
        begun = time.monotonic()
        code, err = run_stage("import_weights", IMPORT, file="w.pth", out="o", metrics="m")
        assert code == 2 and message in last(err), (message, err)
        assert time.monotonic() - begun < 10 and not Path("o").exists()
    torch.save(state, tmp_path / "w.pth")
    assert run_stage("import_weights", IMPORT, file="w.pth", out="o", metrics="m")[0] == 0


@pytest.mark.parametrize("change", [{"num_hidden_layers": 10**6}, {"vocab_size": 10**9}, {"intermediate_size": 10**9}])
def test_a_config_that_describes_more_than_its_weights_is_refused_before_it_is_built(run_stage, tmp_path, change):
    assert run_stage("import_text_model", {"model": TINY, "data": TEXT}, out="made/model.safetensors")[0] == 0
    shutil.copytree("made", "other")
    Path("other/winnow.json").unlink()
    config = json.loads(Path("other/config.json").read_text())
    Path("other/config.json").write_text(json.dumps(config | change))
    begun = time.monotonic()
    code, err = run_stage(
        "import_text_model",
        {"model": {"source": "pretrained", "path": "other"}, "data": TEXT},
        out="o/model.safetensors",
    )
    assert code == 2 and "config.json describes" in last(err) and time.monotonic() - begun < 10


# the user's files
# -----------------------------------------------------------------------------------------------------------


def model_folder(path: Path, **files: str) -> Path:
    """A folder as a run of winnow leaves it, and the files given."""
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text("weights")
    (path / "config.json").write_text("{}")
    write_record(path / "winnow.json", {"files": {"model.safetensors": "0" * 64, "config.json": "0" * 64}})
    for name, text in files.items():
        (path / name).write_text(text)
    return path


@pytest.mark.parametrize(
    "out", ["thesis/model.safetensors", "model.safetensors", "../model.safetensors", "thesis/../model.safetensors"]
)
def test_importing_a_model_over_other_files_loses_none(run_stage, tmp_path, monkeypatch, out):
    (tmp_path / "work/thesis").mkdir(parents=True)
    kept = [tmp_path / "chapter.tex", tmp_path / "work/data.csv", tmp_path / "work/thesis/chapter.tex"]
    for file in kept:
        file.write_text("years of work")
    monkeypatch.chdir(tmp_path / "work")
    code, err = run_stage("import_text_model", {"model": TINY, "data": TEXT}, out=out)
    assert code == 2 and "give the model a folder of its own" in last(err)
    assert [f.read_text() for f in kept] == ["years of work"] * 3
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_model_folder_replaces_what_its_own_record_lists_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_replaceable(model_folder(tmp_path / "a"))
    (tmp_path / "a/model.safetensors").unlink()  # as Snakemake does before it runs the job again
    check_replaceable(tmp_path / "a")
    with pytest.raises(WinnowError, match=r"did not write \(notes\.md\)"):
        check_replaceable(model_folder(tmp_path / "b", **{"notes.md": "mine"}))
    (tmp_path / "c/inner").mkdir(parents=True)
    with pytest.raises(WinnowError, match="inner"):
        check_replaceable(tmp_path / "c")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(WinnowError, match="is a link"):
        check_replaceable(tmp_path / "link")
    torn = model_folder(tmp_path / "d")
    (torn / "winnow.json").write_text('{"files": {')  # as a fault leaves it: what verify says to delete is made again
    check_replaceable(torn)
    made = model_folder(tmp_path / ".a.x.tmp")
    replace_folder(made, tmp_path / "a")
    assert not made.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c", "d", "link"]
    assert (tmp_path / "a/model.safetensors").read_text() == "weights"


def test_an_empty_working_folder_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "work/inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work/inner")
    for folder in (Path(), Path(".."), tmp_path / "work", tmp_path / "work/inner"):
        with pytest.raises(WinnowError, match="would replace the working folder"):
            check_replaceable(folder)


def test_a_second_run_replaces_the_first_ones_folder(run_stage):
    config = {"model": TINY, "data": TEXT}
    for _ in range(2):
        assert run_stage("import_text_model", config, out="results/m/model.safetensors")[0] == 0
    assert [p.name for p in Path("results").iterdir()] == ["m"] and read_json("results/m/winnow.json")[
        "kind"
    ] == "text_model"


# a stranger's code
# ----------------------------------------------------------------------------------------------------------

FOREIGN = (
    "import pathlib; pathlib.Path(__file__).with_name('code was run').write_text(__name__)\nraise SystemExit(99)\n"
)


def test_commands_import_nothing_from_the_working_folder(tmp_path):
    for name in ("numpy", "argparse", "torch", "json", "logging", "safetensors", "yaml", "pandas", "pydantic"):
        (tmp_path / f"{name}.py").write_text(FOREIGN)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"} | {"PYTHONPATH": str(ROOT / "src")}
    (tmp_path / "results").mkdir()
    commands = [
        ["stages.verify", "results"],
        ["stages.prune", "--help"],
        ["stages.trace", "none"],
        ["tables.show", "results"],
    ]
    for module, *arguments in commands:
        done = subprocess.run(
            [sys.executable, "-m", f"winnow.{module}", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 2) and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "code was run").exists()
    subprocess.run([sys.executable, "-c", "import numpy"], cwd=tmp_path, env=environment, capture_output=True)
    assert (tmp_path / "code was run").exists()  # the test can fail: a careless start does run it


# shared folders
# -------------------------------------------------------------------------------------------------------------


def test_scratch_that_another_prepared_is_refused(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/job").symlink_to(victim)
    with pytest.raises(WinnowError, match="is a link"):
        Run(checkpoints=tmp_path / "scratch/job").claim_checkpoints()
    (tmp_path / "scratch/job").unlink()
    run = Run(checkpoints=tmp_path / "scratch/job")
    run.claim_checkpoints()
    assert stat.S_IMODE((tmp_path / "scratch/job").stat().st_mode) == 0o700
    run.release()
    (tmp_path / "scratch/job").chmod(0o777)
    Run(checkpoints=tmp_path / "scratch/job").claim_checkpoints()
    assert stat.S_IMODE((tmp_path / "scratch/job").stat().st_mode) == 0o700
    if os.geteuid() == 0:
        (tmp_path / "scratch/theirs").mkdir()
        os.chown(tmp_path / "scratch/theirs", 12345, 12345)
        with pytest.raises(WinnowError, match="belongs to another user"):
            Run(checkpoints=tmp_path / "scratch/theirs").claim_checkpoints()


def test_attacked_rows_never_go_through_a_link(tmp_path):
    from winnow.text.attacks import run as attacks

    victim = tmp_path / "diary.txt"
    victim.write_text("mine\n")
    folder = tmp_path / "rows"
    folder.mkdir()
    for pid in (os.getpid(), os.getpid() + 1):
        (folder / f"part-0-{pid}.jsonl").symlink_to(victim)
    (folder / "part-9-1.jsonl").write_text('{"index": 1}\n[3]\n{"index": "x"}\ntorn')
    assert attacks.rows_so_far(folder) == {1: {"index": 1}}
    attacks._work(folder, [0], 0, lambda worker: (_Attack(), _examples()), 0, Run())
    assert victim.read_text() == "mine\n" and set(attacks.rows_so_far(folder)) == {0, 1}


class _Attack:
    def clear_cache(self) -> None: ...

    def attack(self, text, label):
        from types import SimpleNamespace as Of

        text = Of(attack_attrs={"modified_indices": set()}, _text_input={"text": text}, num_words=1)
        side = Of(output=0, attacked_text=text)
        return Of(original_result=side, perturbed_result=side, num_queries=1)


def _examples():
    from winnow.text.data import Examples

    return Examples(["fine"], None, np.zeros(1, np.int64))


def test_two_runs_of_one_job_do_not_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "_PATIENCE", 0.3)
    script = f"from winnow import places; from pathlib import Path; places.private(Path({str(tmp_path / 'job')!r})); print(1, flush=True); input()"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert other.stdout.readline() == b"1\n"
    with pytest.raises(WinnowError, match="another run of this job is at work"):
        Run(checkpoints=tmp_path / "job").claim_checkpoints()
    other.kill()
    other.communicate()
    assert Run(checkpoints=tmp_path / "job").claim_checkpoints() == tmp_path / "job"


def test_what_a_kill_left_is_swept_and_what_is_at_work_is_not(tmp_path):
    names = [".w.abc.tmp", ".w.def.tmp", ".w.new.tmp", ".other.abc.tmp", ".m.abc.tmp"]
    for name in names:
        (tmp_path / name).write_text("half")
    (tmp_path / ".m.abc.tmp").unlink()
    (tmp_path / ".m.abc.tmp").mkdir()
    (tmp_path / ".m.abc.tmp/model.safetensors").write_text("half")
    for name in names:
        if name != ".w.new.tmp":
            os.utime(tmp_path / name, (1e9, 1e9))
    with places.marked(tmp_path / ".w.def.tmp"):
        places.sweep(tmp_path / "w")
        places.sweep(tmp_path / "m")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.abc.tmp", ".w.def.tmp", ".w.new.tmp"]


# records that lie
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ['x"seal":"' + "a" * 64 + '"', 'x","seal":"' + "0" * 64 + '","', '\n "seal": "' + "b" * 64 + '"']
)
def test_a_path_that_looks_like_a_seal_is_none(tmp_path, path):
    write_record(
        tmp_path / "r.json",
        {"path": path, "config": {"seal": "e" * 64}, "parents": {"seal": {"path": path, "sha256": "c" * 64}}},
    )
    write_tensors(tmp_path / "w.safetensors", {'t","seal":"' + "d" * 64: np.ones(1)}, {"path": path})
    for file in (tmp_path / "r.json", tmp_path / "w.safetensors"):
        assert seal_holds(file) is True
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(bytes(data))
        assert seal_holds(file) is False


def test_verify_never_says_to_delete_what_lies_outside(tmp_path, monkeypatch, capsys):
    from winnow.stages import verify

    (tmp_path / "work/results").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis").write_text("mine")
    (tmp_path / "work/results/link").symlink_to(tmp_path / "home")
    monkeypatch.chdir(tmp_path / "work")
    names = ["../home/thesis", str(tmp_path / "home/thesis"), "results/link/thesis", "results/../../home/thesis"]
    about = {"path": "results/m.json", "stage": "evaluate"}
    write_record("results/m.json", {"outputs": dict.fromkeys(names, "0" * 64), "provenance": about})
    assert verify.main(["results"]) == 2
    told = capsys.readouterr().out
    assert "rm -f results/m.json &&" in told and "thesis" not in told.split("rm -f")[1]
    assert all("thesis" not in part.split(";")[0] for part in told.split("delete ")[1:])


def test_sealed_records_of_another_hand_are_named_and_no_traceback(tmp_path, monkeypatch, capsys):
    from winnow.stages import trace, verify

    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    odd = [
        {"provenance": 3}, {"provenance": {"path": 3}}, {"outputs": [1]}, {"outputs": {"a": 1}}, {"run": 3},
        {"provenance": {"parents": {"a": "b"}}}, {"provenance": {"parents": {"a": {"path": "x" * 5000, "sha256": ""}}}},
        {"provenance": {"path": "a\0b"}}, {"provenance": {"config": 1}}, {"files": {"../../x": 1}},
    ]  # fmt: skip
    for i, value in enumerate(odd):
        write_record(f"results/{i}.json", value)
    os.mkfifo("results/fifo.json")
    assert verify.main(["results"]) == 2
    out = capsys.readouterr().out
    assert f"{len(odd)} artifacts, {len(odd)} bad" in out
    for i in range(len(odd)):
        assert trace.main([f"results/{i}.json"]) == 2
    model_folder(Path("results/m"))
    (Path("results/m/winnow.json")).unlink()
    os.mkfifo("results/m/winnow.json")
    assert verify.main(["results"]) == 2


def test_control_characters_never_reach_the_terminal(tmp_path, monkeypatch, capsys):
    from winnow.stages import trace, verify

    assert "\x1b" not in str(WinnowError("a\x1b[2Jb\x07\u202e"))
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    name = "results/\x1b]0;owned\x07\n.json"
    Path(name).write_text("{}")
    bad = os.fsdecode(b"results/\xff.json")
    Path(bad).write_text("{}")
    assert verify.main(["results"]) == 2 and trace.main([name]) == 2
    out = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out) and "\\x1b" in out
    command = out.split("to mend: ")[1].split(" && ")[0]
    subprocess.run(["bash", "-c", command], check=True)
    assert not list(Path("results").iterdir())  # what it says to type removes exactly these


def test_a_stage_refuses_parents_whose_seal_is_broken(dense, run_stage, tmp_path):
    data = bytearray(dense.read_bytes())
    data[-5] ^= 1  # in the last tensor: the file still loads
    (tmp_path / "flipped.safetensors").write_bytes(bytes(data))
    code, err = run_stage(
        "prune", {"method": "magnitude", "remaining_percent": 80}, weights="flipped.safetensors", out="o"
    )
    assert code == 2 and "flipped.safetensors: damaged" in last(err) and not Path("o").exists()
    assert run_stage("import_text_model", {"model": TINY, "data": TEXT}, out="m/model.safetensors")[0] == 0
    tokenizer = Path("m/tokenizer.json")
    tokenizer.write_text(tokenizer.read_text().replace("[UNK]", "[unk]", 1))
    code, err = run_stage(
        "prune", {"method": "magnitude", "remaining_percent": 80}, weights="m/model.safetensors", out="o"
    )
    assert code == 2 and "tokenizer.json: damaged: it is not what m/winnow.json vouches for" in last(err)
