"""Speed and relations as optional outputs of a pipeline: which files there are, what they are made from, what is told."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT

from winnow import records
from winnow.artifacts import write_record
from winnow.config.root import load, targets
from winnow.errors import WinnowError
from winnow.pipelines import beyond
from winnow.pipelines.double_win import beyond as dw
from winnow.pipelines.rare_gems import beyond as rg
from winnow.tables.beyond import summary

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


@pytest.fixture
def root():
    document = copy.deepcopy(DEFAULT)
    document["double_win"] |= {"speed": {"of": ["imp"]}, "relations": {"of": ["dense", "imp-std-2"]}}
    return load(document)


def of(**values):
    return SimpleNamespace(**values)


def test_nothing_is_asked_for_unless_a_section_sets_it():
    document = copy.deepcopy(DEFAULT)
    for key in ("speed", "relations"):
        del document["rare_gems"][key]
    made = load(document)
    assert not any("_speed" in t or "_relations" in t for t in targets(made))
    assert beyond.asked_for(made.rare_gems) == [] and beyond.asked_for(made.robust_bert) == []


def test_each_ticket_asked_for_has_its_files(root):
    found = set(targets(root))
    assert {f"results/tables/{p}_{k}.csv" for p in ("double_win", "rare_gems") for k in beyond.KINDS} <= found
    gems = "results/rare_gems/digits/gem_miner"
    assert {f"{gems}/s0/speed/20.svg", f"{gems}/relations/5-order.svg", f"{gems}/relations/5-seeds.svg"} <= found
    assert "results/rare_gems/digits/dense/relations/100-order.svg" in found
    assert not any("dense/s0/speed" in t or "s1/speed" in t or "/random/relations" in t for t in found)
    assert "results/rare_gems/sentences/gem_miner/relations/20-seeds.svg" in found
    # a corpus is read in its own order, and its networks take no images
    assert not any(t.startswith("results/rare_gems/sentences") and ("order" in t or "/speed/" in t) for t in found)
    chain = "results/double_win/digits04/std"
    assert f"{chain}/s0/speed/imp-std-2.svg" in found and f"{chain}/s0/speed/omp-2.svg" not in found
    assert f"{chain}/relations/digits59/20/dense-adv.svg" in found


def test_a_comparison_reads_two_seeds_or_two_orders(root):
    place = {"experiment": "digits", "branch": "gem_miner", "target": "20"}
    branch = "results/rare_gems/digits/gem_miner"
    assert rg.compared(root.rare_gems, of(**place, pair="seeds")) == {
        "weights": f"{branch}/s0/tuned/20.safetensors", "mask": f"{branch}/s0/drawn/20.mask.safetensors",
        "other": f"{branch}/s1/tuned/20.safetensors", "other_mask": f"{branch}/s1/drawn/20.mask.safetensors", "init": [],
    }  # fmt: skip
    order = rg.compared(root.rare_gems, of(**place, pair="order"))
    assert order["other"] == f"{branch}/s0/reordered/20.safetensors" and order["mask"] == order["other_mask"]
    assert order["init"] == "results/rare_gems/digits/init/signed_constant/s0.safetensors"
    again = rg.again(root.rare_gems, of(**place, seed="0"))
    assert again == {"init": order["init"], "mask": order["mask"]}
    dense = rg.compared(root.rare_gems, of(experiment="digits", branch="dense", target="100", pair="seeds"))
    assert dense["mask"] == dense["other_mask"] == [] and dense["other"].endswith("dense/s1/imp/round0.safetensors")
    wild = of(pretraining="std", dataset="digits59", percent="20", ticket="imp-std-2", mode="std")
    found = dw.compared(root.double_win, wild)
    chain = "results/double_win/digits04/std"
    assert found["other"] == f"{chain}/s1/transfer/digits59/20/imp-std-2/std/s1/best_sa.safetensors"
    assert found["mask"] == f"{chain}/s0/tickets/imp-std-2.mask.safetensors"


def test_the_other_order_is_the_same_training_but_for_its_seed(root):
    from winnow.pipelines.rare_gems import grid

    section = root.rare_gems
    for branch, once in (
        ("gem_miner", grid.finetune(section, "digits", "gem_miner", "1")),
        ("dense", grid.imp_train(section, "digits", "dense", "1", "1")),
    ):
        again = rg.reordered(section, "digits", branch, "1")
        assert again.seed == once.seed + rg.OTHER_ORDER
        assert again.having(seed=once.seed, measure=True) == once


def test_what_a_job_gets(root):
    speed = rg.speed(root.rare_gems, "digits")
    assert (speed.image_size, speed.batches, speed.repeats) == (8, [1, 64], 3) and dw.speed(
        root.double_win
    ).image_size == 8
    relation = rg.relations(root.rare_gems, "sentences")
    assert relation.points == 7 and relation.batch_size == 20 and relation.data.dataset == "sentences"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"speed": {"of": ["gem_minor"]}}, "speed.of: 'gem_minor' is none of"),
        ({"speed": {"batches": []}}, "batches, threads: at least one each"),
        ({"relations": {"points": 2}}, "relations.points: 2 must be >= 3"),
    ],
)
def test_what_cannot_be_is_refused(change, said):
    document = copy.deepcopy(DEFAULT)
    document["rare_gems"] |= change
    with pytest.raises(WinnowError, match=said):
        load(document)


def test_runs_are_compared_without_their_wall_times(tmp_path):
    for run, (speed, other) in {"a": (1.0, 5), "b": (2.0, 5), "c": (1.0, 6)}.items():
        folder = tmp_path / run
        folder.mkdir()
        (folder / "20.csv").write_text(str(speed))
        made = {"config": {}, "parents": {}, "source": "x", "versions": {}, "device": "cpu"}
        outputs = {f"{run}/20.csv": records.sha256_file(folder / "20.csv")}
        about = {**made, "path": str((folder / "20.json").relative_to(tmp_path)), "stage": "speed"}
        write_record(folder / "20.json", {"ms": speed, "outputs": outputs, "provenance": about, "run": {}})
        about = {**made, "path": f"{run}/acc.json", "stage": "train"}
        write_record(
            folder / "acc.json", {"acc": other, "outputs": {}, "provenance": about | {"path": "acc.json"}, "run": {}}
        )
    assert records.differences(tmp_path / "a", tmp_path / "b", tensors=True) == ([], 1)
    assert records.differences(tmp_path / "a", tmp_path / "c", tensors=True) == (["acc.json: differs"], 1)


def test_verdicts_are_those_of_the_rows():
    speed = {"experiment": "e", "branch": "gem", "remaining_percent": "5", "batch": "1", "threads": "1",
             "speedup": "3.14", "verdict": "Worth it here."}  # fmt: skip
    made = summary("rare_gems_speed", [speed])
    assert made.verdicts == ["e, gem: Worth it here"] and "3.14" in made.rows[0]
    relation = {"experiment": "e", "branch": "gem", "target": "5", "pair": "seeds", "jaccard": "0.2",
                "jaccard_by_chance": "0.1", "test_loss_barrier": "1.5", "test_instability": "30"}  # fmt: skip
    assert summary("rare_gems_relations", [relation]).verdicts == [
        "e, gem at 5 %, two seeds: a loss barrier of 1.5 on the test split, instability 30 points; their overlap is 0.2, "
        "that of random masks 0.1"
    ]
    dense = {
        "experiment": "e",
        "branch": "dense",
        "target": "100",
        "pair": "order",
        "test_loss_barrier": "0",
        "test_instability": "1",
    }
    assert "two orders of the data" in summary("rare_gems_relations", [dense]).verdicts[0]


def test_survive_asks_for_the_hard_checks_beside_dense(tmp_path, monkeypatch):
    """What `winnow survive` runs: a tenth of the data, corruptions and AutoAttack, of the ticket and of dense."""
    pytest.importorskip("torch")
    import numpy as np

    from winnow import cli, survive
    from winnow.artifacts import write_tensors
    from winnow.config.parts import Model
    from winnow.prune import magnitude
    from winnow.ticket import Ticket
    from winnow.vision import models

    model = Model(arch="resnet8", width=4)
    network = models.build(model, 10)
    weights, ticket = tmp_path / "w.safetensors", tmp_path / "t.mask.safetensors"
    data = {"dataset": "digits", "val_images": 100}
    about = {"kind": "weights", "model": models.spec(model, 10), "config": {"data": data}}
    write_tensors(weights, {k: v.contiguous() for k, v in network.state_dict().items()}, about)
    names = models.prunable(network)
    arrays = {n: np.asarray(network.get_parameter(n).detach()) for n in names}
    Ticket(magnitude.masks(arrays, sum(a.size for a in arrays.values()) // 5)).save(ticket)
    asked = []
    monkeypatch.setattr(cli, "run", lambda words: asked.append(words) or 1)
    options = ["--weights", str(weights), "--to", str(tmp_path / "s"), "--corruptions", "digits-c", "--epochs", "2"]
    assert survive.main([str(ticket), *options]) == 1 and asked[0][1] == "results/tables/double_win.csv"
    section = load(json.loads((tmp_path / "s/survive.yaml").read_text())).double_win
    task = section.downstreams[0]
    assert task.fractions == [1.0, 0.1] and task.evaluation.corruptions == "digits-c"
    assert task.evaluation.autoattack.attacks == ["apgd-ce", "apgd-t"] and task.evaluation.autoattack.eps == 8 / 255
    from winnow.pipelines.double_win.grid import grid_of

    runs = list(grid_of(section).runs())
    assert {r.ticket for r in runs} == {"dense", "extra-ticket"} and {r.mode for r in runs} == {"std", "adv"}
    with pytest.raises(WinnowError, match="no such file"):
        survive.main([str(tmp_path / "none.mask.safetensors")])
