"""The kill matrix: signal x stage. The next run goes on where the first one ended, and the bytes are the same."""

from __future__ import annotations

import importlib.util
import signal
from dataclasses import replace

import pytest

from .conftest import SIGNALS, run

STAGES = ["train", "transfer", "evaluate", "gem_search", "search_robust_ticket", "attack_text"]


@pytest.mark.parametrize("how", SIGNALS, ids=lambda s: s.name)
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_goes_on_and_ends_with_the_same_bytes(made, whole, stage, how, tmp_path, capsys):
    if stage == "attack_text" and importlib.util.find_spec("textattack") is None:
        pytest.skip("textattack is not installed")
    case = made(stage)
    first = case.killed(tmp_path, how)
    assert first.returncode == (143 if how == signal.SIGTERM else -signal.SIGKILL), first.stderr[-2000:]
    assert case.results(tmp_path) == {}  # no artifact under its final name
    # SIGTERM lets the step or batch in progress end and saves it; an attack's examples stand alone, and the one in
    # progress is given up
    done = case.kill_at if how == signal.SIGTERM and stage != "attack_text" else case.kill_at - 1
    capsys.readouterr()
    assert case.run(tmp_path) == 0
    assert case.went_on.format(done) in capsys.readouterr().err
    assert case.results(tmp_path) == whole(stage)
    assert not [p for p in (tmp_path / "scratch").rglob("*") if p.is_file()]  # nothing is left behind


def test_a_stage_killed_in_the_validation_of_an_epoch_loses_no_step_of_it(made, whole, tmp_path, capsys):
    case = replace(made("transfer"), hook="winnow.vision.training:accuracy", kill_at=2)
    assert case.killed(tmp_path, signal.SIGKILL).returncode == -signal.SIGKILL
    capsys.readouterr()
    assert case.run(tmp_path) == 0
    assert "resumed at step 8" in capsys.readouterr().err  # the last of the second epoch's four
    assert case.results(tmp_path) == whole("transfer")


@pytest.mark.parametrize("torn", [["current"], ["current", "previous"]], ids=["newest", "both"])
def test_a_torn_checkpoint_costs_a_step_or_all_of_them_but_no_byte(made, whole, torn, tmp_path, capsys):
    case = replace(made("train"), kill_at=7)  # in mid-epoch: the two newest states are of two steps
    case.killed(tmp_path, signal.SIGKILL)
    for name in torn:
        path = next((tmp_path / "scratch").rglob(f"{name}.ckpt"))
        path.write_bytes(path.read_bytes()[:-7])
    capsys.readouterr()
    assert case.run(tmp_path) == 0
    told = capsys.readouterr().err
    assert told.count("is damaged (checksum)") == len(torn)
    assert (f"resumed at step {case.kill_at - 2}" in told) == (len(torn) == 1) and ("resumed" in told) == (
        len(torn) == 1
    )
    assert case.results(tmp_path) == whole("train")


def test_another_configuration_or_input_starts_anew(made, tmp_path, capsys):
    case = made("train")
    case.killed(tmp_path, signal.SIGKILL)
    mask = tmp_path / "other.mask.safetensors"
    prune = [
        "--config",
        '{"method": "magnitude", "remaining_percent": 70}',
        "--weights",
        str(case.inputs["init"]),
        "--out",
        str(mask),
    ]
    assert run("prune", prune) == 0
    others = [replace(case, config=case.config | {"seed": 1}), replace(case, inputs=case.inputs | {"mask": mask})]
    for i, other in enumerate(others):
        capsys.readouterr()
        (tmp_path / str(i)).mkdir()
        assert other.run(tmp_path / str(i), scratch=tmp_path / "scratch") == 0
        assert "resumed" not in capsys.readouterr().err
    assert case.run(tmp_path) == 0  # the killed run's own checkpoint is still there
    assert f"resumed at step {case.kill_at - 1}" in capsys.readouterr().err


def test_finished_work_clears_what_other_settings_left_of_the_same_output(made, tmp_path):
    case = made("train")
    case.killed(tmp_path, signal.SIGKILL)
    elsewhere, held = replace(case, outputs=case.outputs | {"out": "elsewhere"}), tmp_path / "scratch"
    elsewhere.killed(tmp_path, signal.SIGKILL)
    assert len(list(held.rglob("current.ckpt"))) == 2
    assert replace(case, config=case.config | {"seed": 1}).run(tmp_path) == 0
    (left,) = held.rglob("current.ckpt")  # of the other output
    before = left.read_bytes()
    assert case.run(tmp_path) == 0 and left.read_bytes() == before
    assert elsewhere.run(tmp_path) == 0 and not list(held.rglob("*.ckpt"))
