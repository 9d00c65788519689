"""The rare_gems section: what it spans, what it refuses, and the papers' own YAML keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from winnow.config.pruning import FOR_IMAGES
from winnow.errors import WinnowError
from winnow.pipelines.rare_gems import grid, inputs
from winnow.pipelines.rare_gems.config import RareGems
from winnow.pipelines.rare_gems.released import milestones, read_published, translate, with_published
from winnow.schema import canonical_json, parse

ROOT = Path(__file__).resolve().parents[2]
TRAIN = {"epochs": 6, "batch_size": 8, "lr": 0.1}


def section(**changes):
    experiment = {
        "name": "e",
        "dataset": "digits",
        "data": {"dataset": "digits", "val_images": 100},
        "model": {"arch": "resnet8", "width": 4, "classifier": "conv1x1", "bn": "non_affine"},
        "targets": [20, 5],
        "finetune": TRAIN,
        "branches": [
            {"name": "gm", "algo": "hc_iter", "search": {"iter_period": 1}, "train": TRAIN, "sanity": True},
            {"name": "ep", "algo": "ep", "search": {"regularization": None}, "train": TRAIN},
            {"name": "rnd", "algo": "random"},
            {"name": "imp", "algo": "imp", "train": TRAIN, "imp": {"prune_percent": 50, "rounds": 5}},
        ],
    }
    experiment.update(changes)
    return {"seeds": [0, 1], "experiments": [experiment]}


def branch(**changes):
    return section(branches=[{"name": "gm", "algo": "hc_iter", "search": {}, "train": TRAIN, **changes}])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({**section(), "seeds": [1, 1]}, r"seeds: \[1, 1\] must be at least one, and different"),
        ({**section(), "seed": [0]}, "seed: unknown key; did you mean 'seeds'"),
        ({"seeds": [0]}, "experiments: at least one, or a file in from_files"),
        (section(targets=[20, 20]), r"targets: \[20.0, 20.0\] must be at least one, and different"),
        (section(targets=[0]), "targets.*0 must be > 0"),
        (section(targets=[100]), "100 must be < 100"),
        (branch(algo="hc_itr"), "did you mean 'hc_iter'"),
        (branch(search=None), r"branches\[0\]\.search: expected a mapping of keys, got None"),
        (branch(train=None), r"branches\[0\]\.train: expected a mapping of keys, got None"),
        (branch(algo="random"), r"branches\[0\]\.search: unknown key; known: .*algo"),
        (branch(imp={}), r"branches\[0\]\.imp: unknown key"),
        (branch(search={"lambda": 1}), "lambda: unknown key; did you mean 'lmbda'"),
        (branch(search={"lmbda": -1}), "lmbda: -1 must be >= 0"),
        (branch(search={"regularization": "L3"}), "'L3' is not a valid choice"),
        (branch(search={"unflag_before_finetune": False}, targets=[20, 5]), "make a branch for each"),
        (branch(name="a/b"), "must be letters, digits"),
        (branch(imported={"file": "x.pth"}), "imported and imported_classes go together"),
        (
            section(branches=[{"name": "d", "algo": "wt", "train": TRAIN, "sanity": True}]),
            r"branches\[0\]\.sanity: unknown key",
        ),
        (
            section(branches=[{"name": "i", "algo": "imp", "train": TRAIN, "imp": {"remaining_percents": [5, 20]}}]),
            "must fall from round to round",
        ),
    ],
)
def test_refused(document, message):
    with pytest.raises(WinnowError, match=message) as caught:
        parse(RareGems, document, "config.rare_gems")
    assert "config.rare_gems" in str(caught.value) and "\n" not in str(caught.value)


def test_paths_and_cells():
    s = parse(RareGems, section())
    assert grid.ticket_path(s, "e", "gm", 0, "5") == "results/rare_gems/e/gm/s0/search/5.mask.safetensors"
    assert grid.ticket_path(s, "e", "gm", 0, "20") == "results/rare_gems/e/gm/s0/drawn/20.mask.safetensors"
    assert grid.ticket_path(s, "e", "ep", 1, "20") == "results/rare_gems/e/ep/s1/search/20.mask.safetensors"
    assert grid.ticket_path(s, "e", "rnd", 1, "5") == "results/rare_gems/e/rnd/s1/random/5.mask.safetensors"
    assert grid.inverted_path(s, "e", "gm", 0, "20") == "results/rare_gems/e/gm/s0/inverted/5.order.safetensors"
    assert grid.inverted_path(s, "e", "ep", 0, "20") is None
    cells = list(grid.grid_of(s).cells())
    assert len(cells) == 4 * 2 * 2
    imp = {c.target: c.round for c in cells if c.algo == "imp"}
    assert imp == {20.0: 2, 5.0: 4}  # of 50, 25, 12.5, 6.25, 3.1 %
    assert all((c.checks is not None) == (c.branch == "gm") for c in cells)


def test_adding_a_target_changes_no_search():
    few, more = (parse(RareGems, section(targets=t)) for t in ([5], [20, 5]))
    assert grid.search(few, "e", "gm", "5", "search", "0") == grid.search(more, "e", "gm", "5", "search", "0")
    assert grid.finetune(few, "e", "gm", "0") == grid.finetune(more, "e", "gm", "0")


def test_each_stage_takes_its_configuration():
    """What the grid hands out parses as the stages' own configuration classes, to the same values."""
    import importlib

    s = parse(RareGems, section())

    def check(stage, job):
        module = importlib.import_module(f"winnow.stages.{stage}")
        assert parse(module.stage.config, json.loads(canonical_json(job)), stage) == job

    check("gem_init", grid.init(s, "e", "kaiming_normal-fan5", "0"))
    check("gem_search", grid.search(s, "e", "gm", "5", "inverted", "0"))
    check("train", grid.finetune(s, "e", "gm", "0"))
    check("gem_sanity", grid.sanity(s, "e", "gm", "5", "0"))
    check("gem_ticket", grid.draw(s, "20"))
    check("prune", grid.prune(s, "e", "rnd", "20", "0"))
    check("train", grid.imp_train(s, "e", "imp", "0", "0"))
    check("train", grid.imp_train(s, "e", "imp", "1", "0"))
    check("prune", grid.prune(s, "e", "imp", "round1", "0"))
    check("rare_gems_table", grid.table(s))
    for algo in FOR_IMAGES:
        other = parse(RareGems, section(branches=[{"name": "b", "algo": algo}]))
        check("prune", grid.prune(other, "e", "b", "5", "0"))


def test_the_released_sample_runs_as_it_is():
    experiment = read_published(str(ROOT / "config/paper/rare_gems/resnet20_0_59.yaml"))
    assert (experiment.name, experiment.dataset, experiment.model.arch) == (
        "rare_gems.resnet20_0_59",
        "CIFAR10",
        "resnet20",
    )
    (only,) = experiment.branches
    assert only.search is not None and only.train is not None
    assert (only.algo, only.search.iter_period, only.search.lmbda, only.sanity) == ("hc_iter", 5, 1e-4, True)
    assert (only.train.lr, only.train.schedule, only.train.epochs) == (0.1, "cosine", 150)
    assert (experiment.finetune.lr, experiment.finetune.milestones) == (0.01, [80, 120])
    assert experiment.targets == [0.59] and experiment.data.val_images == 5000


def test_the_released_sample_is_the_published_text(shared):
    ours = yaml.safe_load((ROOT / "config/paper/rare_gems/resnet20_0_59.yaml").read_text())
    texts = [p.read_text() for p in (shared / "seeds").glob("*.txt")]
    published = next(t for t in texts if "algo: 'hc_iter'" in t)
    assert ours == yaml.safe_load(published[published.index("algo: 'hc_iter'") :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lmda": 1}, "paper.yaml.lmda: unknown key; did you mean 'lmbda'"),
        ({"noise_ratio": 0.1}, "noise_ratio: 0.1: noise on the rounded mask is not built"),
        ({"bias": True}, "bias: True: the released networks have no biases"),
        ({"freeze_weights": False}, "freeze_weights: False does not go with algo hc_iter"),
        ({"conv_type": "DenseConv"}, "DenseConv does not go with algo hc_iter"),
        ({"dataset": "MNIST"}, "dataset: MNIST: a data set of the greedy program"),
        ({"init": "signed_const"}, "init: 'signed_const' is not a valid choice; did you mean 'signed_constant'"),
        ({"target_sparsity": 100}, "target_sparsity: 100 must be < 100"),
    ],
)
def test_vocabulary_refuses(change, message):
    published = yaml.safe_load((ROOT / "config/paper/rare_gems/resnet20_0_59.yaml").read_text())
    with pytest.raises(WinnowError, match=message):
        translate({**published, **change}, "x", "paper.yaml")


def test_vocabulary_file_errors(tmp_path):
    with pytest.raises(WinnowError, match="no such file"):
        read_published(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(WinnowError, match="not a readable YAML"):
        read_published(str(tmp_path / "bad.yaml"))
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(WinnowError, match="expected a mapping"):
        read_published(str(tmp_path / "list.yaml"))


def test_published_files_join_the_section():
    path = str(ROOT / "config/paper/rare_gems/resnet20_0_59.yaml")
    s = with_published(parse(RareGems, {**section(), "from_files": [path]}))
    assert [e.name for e in s.experiments] == ["e", "rare_gems.resnet20_0_59"]
    twice = r"^config\.rare_gems\.from_files: experiments: name 'rare_gems\.resnet20_0_59' appears twice$"
    with pytest.raises(WinnowError, match=twice):
        with_published(parse(RareGems, {**section(), "from_files": [path, path]}))


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(100, [50, 80]), (150, [80, 120]), (160, [80, 120]), (200, [100, 150]), (300, [150, 250]), (60, [30, 40])],
)
def test_milestones(epochs, expected):
    assert milestones(epochs) == expected


@pytest.mark.parametrize(
    "name", ["config/paper/rare_gems.yaml", "config/examples/cifar10_gems.yaml", "config/config.yaml"]
)
def test_shipped_sections_parse(name):
    s = parse(RareGems, yaml.safe_load((ROOT / name).read_text())["rare_gems"], "config.rare_gems")
    assert list(grid.grid_of(s).cells())


def test_paper_section_has_every_row():
    s = parse(RareGems, yaml.safe_load((ROOT / "config/paper/rare_gems.yaml").read_text())["rare_gems"])
    by_name = {e.name: e for e in s.experiments}
    assert set(by_name) == {
        "resnet20_cifar10", "vgg16_cifar10", "mobilenet_v2_cifar10", "wideresnet_28_2_cifar10", "resnet18_tinyimagenet",
        "resnet50_tinyimagenet", "resnet50_caltech101", "resnet32_cifar100", "resnet18_cifar10",
    }  # fmt: skip
    gems = {b.targets[0]: b.search.lmbda for b in by_name["resnet20_cifar10"].branches if b.algo == "hc_iter"}
    assert gems == {0.59: 1e-4, 1.44: 1e-4, 3.72: 3e-5}
    imp = next(b for b in by_name["vgg16_cifar10"].branches if b.name == "imp_warm")
    assert (imp.imp.rewind_iteration, imp.imp.rounds, imp.imp.prune_percent, imp.train.epochs) == (2000, 30, 20.0, 200)


@pytest.mark.parametrize("rewind", ["warm", "cold", "renda"])
def test_where_the_rounds_of_imp_and_of_its_inverted_chain_start(rewind):
    """Both begin with round 0; after that each cuts and trains its own."""
    imp = {
        "name": "i",
        "algo": "imp",
        "train": {**TRAIN, "epochs": 7},
        "imp": {"prune_percent": 50, "rounds": 5, "rewind": rewind},
    }
    s = parse(RareGems, section(branches=[{**imp, "sanity": True}]))
    base = "results/rare_gems/e/i/s0"
    start = {"warm": f"{base}/imp/round0-rewind.safetensors", "cold": inputs.init(s, of(branch="i", seed=0))}
    for chain in ("imp", "imp_inverted"):
        first, second = (inputs.pruned(s, of(branch="i", seed=0, method=chain, target=f"round{k}")) for k in (1, 2))
        assert (first["weights"], first["mask"]) == (f"{base}/imp/round0.safetensors", [])
        assert second["weights"] == f"{base}/{chain}/round1.safetensors"
        assert second["mask"] == f"{base}/{chain}/round1.mask.safetensors"
        trained = [inputs.imp_start(s, of(branch="i", seed=0), chain, k) for k in (1, 2)]
        own = [f"{base}/imp/round0.safetensors", f"{base}/{chain}/round1.safetensors"]
        assert trained == (own if rewind == "renda" else [start[rewind]] * 2)
        cut = grid.prune(s, "e", "i", "round2", "0", chain)
        assert (cut.label, cut.options) == (chain, {"invert": True} if chain == "imp_inverted" else {})
    checked = inputs.checked(s, of(branch="i", seed=0, target="20"))  # of 50, 25, 12.5, ... %: round 2
    assert checked["mask"] == f"{base}/imp/round2.mask.safetensors"
    assert checked["inverted"] == f"{base}/imp_inverted/round2.mask.safetensors"
    assert checked["init"] == (f"{base}/imp/round1.safetensors" if rewind == "renda" else start[rewind])
    job = grid.sanity(s, "e", "i", "20", "0")
    assert job.keep == "best" and job.train.epochs == 7


class of(dict):  # noqa: N801  (wildcards, as Snakemake gives them: by name and as a mapping)
    def __init__(self, **values):
        super().__init__(experiment="e", **values)
        self.__dict__.update(self)
