"""Which jobs share a SLURM job: one ticket's, whole members, within the limits; and AutoAttack's tickets."""

from __future__ import annotations

import copy

import pytest
import yaml
from conftest import ROOT

from winnow.config.root import load, load_files
from winnow.errors import WinnowError
from winnow.pipelines import packs
from winnow.pipelines.double_win import grid as dw

TINY = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())


@pytest.fixture(scope="module")
def paper():
    return load_files([ROOT / "config/paper/double_win.yaml"], {"check_data": False})[0]


def minutes(job: packs.Job) -> float:
    """Full data takes long, an adversarial transfer longer."""
    rule, wildcards = job
    size = {"100": 400.0, "10": 40.0, "1": 4.0}[dict(wildcards)["percent"]]
    return {"transfer_adv": 4, "transfer_std": 1, "evaluate": 0.1, "autoattack": 0.2}[rule] * size


@pytest.mark.parametrize(("most", "longest"), [(8, 1440.0), (1, 1440.0), (1000, 300.0)])
def test_packs_hold_whole_members_of_one_ticket_within_both_limits(paper, most, longest):
    found = list(packs.members(paper))
    packed = packs.packed(found, minutes, most, longest)
    held: dict[str, list[tuple[str, list[packs.Job]]]] = {}
    for ticket, jobs in found:
        (pack,) = {packed[job] for job in jobs}
        held.setdefault(pack, []).append((ticket, jobs))
    assert (
        sum(len(jobs) for inside in held.values() for _, jobs in inside)
        == len(packed)
        == sum(len(jobs) for _, jobs in found)
    )
    for pack, inside in held.items():
        assert len({ticket for ticket, _ in inside}) == 1 and len(inside) <= most, pack
        together = sum(minutes(job) for _, jobs in inside for job in jobs)
        assert together <= longest or len(inside) == 1, (pack, together)
    if most == 8:
        assert len(held) < len(packed) / 4


def test_each_pipeline_has_its_members_and_every_job_is_of_a_rule():
    found = list(packs.members(load(copy.deepcopy(TINY))))
    root = load(copy.deepcopy(TINY))
    assert {rule for _, jobs in found for rule, _ in jobs} == set(packs.rules(root)) and len(packs.rules(root)) == 7
    text = [jobs for ticket, jobs in found if ticket.startswith("text_")]
    assert len(text) == 5 and all([rule for rule, _ in jobs] == ["finetune_text", "attack_text"] for jobs in text)


def test_autoattack_runs_for_the_tickets_named(paper):
    grid = dw.grid_of(paper.double_win)
    attacked = [run for run in grid.runs() if grid.autoattacked(run)]
    assert {(r.dataset, r.ticket.partition("-")[0], r.round) for r in attacked if r.dataset == "cifar100"} == {
        ("cifar100", "dense", 0), *(("cifar100", "imp", k) for k in (6, 7, 8, 9)),
    }  # fmt: skip
    assert {r.mode for r in attacked} == {"adv"}
    files = dw.table_inputs(paper.double_win)
    assert sum(f.endswith("/autoattack.json") for f in files) == len(attacked) == 3 * 3 * 3 * 5 * 3
    config = dw.autoattack(paper.double_win, "cifar10", "1")
    assert "tickets" not in type(config.autoattack).model_fields  # another choice leaves what has run alone


def test_null_attacks_every_ticket_and_a_wrong_name_is_refused():
    grid = dw.grid_of(load(copy.deepcopy(TINY)).double_win)
    assert all(grid.autoattacked(run) == (run.mode == "adv") for run in grid.runs())
    wrong = copy.deepcopy(TINY)
    wrong["double_win"]["downstreams"][0]["evaluation"]["autoattack"]["tickets"] = ["densse"]
    with pytest.raises(
        WinnowError, match=r"down.evaluation.autoattack.tickets: 'densse' is no ticket here; .*'?dense'?"
    ):
        load(wrong)
