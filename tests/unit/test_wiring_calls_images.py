"""What stages of image networks hand to the library and write, on stand-ins that record their calls."""

# ruff: noqa: F811  (the fixture is imported)

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recorded import play, record  # noqa: F401

from winnow import Ticket, WinnowError
from winnow.artifacts import write_tensors
from winnow.gems.order import draw, level_masks
from winnow.prune import random_like
from winnow.rng import seed_of

DATA = {"dataset": "digits", "val_images": 10, "split_seed": 4}
TRAIN, ATTACK = {"epochs": 2, "batch_size": 16, "lr": 0.1}, {"eps": 0.1, "step_size": 0.05, "steps": 2}
COMMON = {"data": DATA, "train": TRAIN, "compute": {}, "seed": 5}
MODEL = {"arch": "resnet8", "width": 4}


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))


@pytest.fixture
def ticket(tmp_path) -> tuple[Path, Ticket]:
    made = Ticket({"0.weight": np.arange(12).reshape(3, 4) % 4 > 0})
    made.save(tmp_path / "t.mask.safetensors", method="x")
    return tmp_path / "t.mask.safetensors", made


def same(one: Ticket, other: Ticket) -> bool:
    return all(np.array_equal(one.arrays[n], m) for n, m in other.arrays.items())


class Tasks:
    """Stands for gems.finetune.Task: keeps what it was made of, and gives another model at each call."""

    def __init__(self, models):
        self.models, self.made, self.asked = list(models), [], []

    def __call__(self, *arguments):
        self.made.append(arguments)
        self.train_loader = "loader"
        return self

    def model(self, weights):
        self.asked.append(weights)
        return self.models.pop(0), {"spec": len(self.asked)}

    def held_out(self, model):
        return {"val_sa": 12.5}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rewind", [False, True])
def test_a_training_starts_from_its_weights_under_its_ticket(record, monkeypatch, network, ticket, masked, rewind):
    tasks = Tasks([network, "another"])
    monkeypatch.setattr("winnow.gems.finetune.Task", tasks)
    tuned = record("gems.finetune.finetune", {"acc_after": 3.0})
    early = record("gems.finetune.early_weights", {"w": "early"})
    record("weights.record_of", {"prunable": ["0.weight"]})
    files = {"init": Path("i"), "mask": ticket[0] if masked else None, "out": Path("o"), "metrics": Path("m")}
    files["rewind"] = Path("r") if rewind else None
    config = COMMON | {"attack": ATTACK, "keep": "last", "measure": False, "rewind_iteration": 3}
    job = play("train", config, files)
    cfg = job.config
    assert tasks.made == [(cfg.data, cfg.train, cfg.compute, 5, cfg.attack, job.run)]
    (model, held, task), keys = tuned[0]
    assert model is network and task is tasks and keys == {"keep": "last", "measure": False, "moving": None}
    assert same(held, ticket[1]) if masked else held is None
    state, about = job.written["out"]
    assert list(state) == list(network.state_dict()) and about == {"model": {"spec": 1}, "prunable": ["0.weight"]}
    assert job.written["metrics"] == {"acc_after": 3.0, "remaining_percent": 75.0 if masked else 100.0}
    assert tasks.asked == [Path("i")] * (1 + rewind) and ("rewind" in job.written) == rewind
    if rewind:
        assert early == [(("another", 3, tasks), {})]
        about = {"model": {"spec": 1}, "prunable": ["0.weight"], "iteration": 3}
        assert job.written["rewind"] == ({"w": "early"}, about)


def splits() -> SimpleNamespace:
    return SimpleNamespace(train="train", val="val", test=["t"] * 9, num_classes=7)


@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_transfer_trains_its_fraction_and_keeps_the_best(record, network, ticket, adversarial, masked):
    started, placed = record("train.device.start", "cpu"), record("vision.training.place")
    loaded, took = record("vision.sources.load", splits()), record("vision.sources.fraction", ["f"] * 6)
    read = record("vision.models.load_pretrained", (network, {"spec": 1}))
    loaders = record("vision.training.training_loaders", ("train loader", "val loader"))
    best = SimpleNamespace(states={"val_sa": "sa state", "val_ra": "ra state"}, values={"val_sa": 50.0})
    trained = record("vision.training.train_classifier", ([{"epoch": 1}], best))
    config = COMMON | {"fraction": 0.5, "normalisation": {"mean": [0.1] * 3, "std": [0.2] * 3}}
    config |= {"attack": ATTACK, "selection_attack": ATTACK | {"steps": 3}} if adversarial else {}
    files = {"init": Path("i"), "mask": ticket[0] if masked else None, "best_sa": Path("a"), "best_ra": Path("b")}
    job = play("transfer", config, files | {"metrics": Path("m")})
    cfg = job.config
    assert started[0][0] == (cfg.compute, job.run.device, seed_of(5, "head"))
    assert loaded[0][0] == (cfg.data, Path("root"), True) and took[0][0] == ("train", 0.5, 5)
    assert read[0][0] == (Path("i"), 7, cfg.normalisation, cfg.imagenet_stem)
    assert placed[0][0] == (network, cfg.compute, "cpu")
    assert loaders[0][0] == ((["f"] * 6, "val"), cfg.data, cfg.train, 5, job.run)
    arguments, keys = trained[0]
    held = keys.pop("ticket")
    assert arguments == (network, "train loader", "val loader")
    assert same(held, ticket[1]) if masked else held is None
    watch = ("val_sa", "val_ra") if adversarial else ("val_sa",)
    assert keys == {"train": cfg.train, "compute": cfg.compute, "seed": 5, "attack": cfg.attack, "watch": watch,
                    "run": job.run, "selection_attack": cfg.selection_attack}  # fmt: skip
    expected = {n.replace("val", "best"): (f"{n[4:]} state", {"model": {"spec": 1}, "selected_by": n}) for n in watch}
    expected["metrics"] = {"epochs": [{"epoch": 1}], "best": {"val_sa": 50.0}, "train_images": 6}
    assert job.written == expected


def test_a_pretraining_measures_the_test_split(record, network):
    started, placed = record("train.device.start", "cpu"), record("vision.training.place", network)
    record("vision.sources.load", splits())
    built, about = record("vision.models.build", "bare"), record("vision.models.spec", {"spec": 1})
    chosen = record("vision.models.prunable", ["0.weight"])
    loaders = record("vision.training.training_loaders", ("train loader", "val loader", "test loader"))
    trained = record("vision.training.train_classifier", ([{"epoch": 1}], None))
    measured = record("vision.evaluate.accuracy", 61.0)
    config = COMMON | {"method": "adv", "model": MODEL, "attack": ATTACK}
    job = play("pretrain", config, {"out": Path("o"), "metrics": Path("m")})
    cfg = job.config
    assert started[0][0] == (cfg.compute, job.run.device, seed_of(5, "init"))
    assert built[0][0] == about[0][0] == (cfg.model, 7) and placed[0][0] == ("bare", cfg.compute, "cpu")
    assert loaders[0][0] == (("train", "val", ["t"] * 9), cfg.data, cfg.train, 5, job.run)
    keys = {"train": cfg.train, "compute": cfg.compute, "seed": 5, "attack": cfg.attack, "run": job.run}
    assert trained == [((network, "train loader", "val loader"), keys)]
    assert measured[0][0] == (network, "test loader", cfg.compute) and chosen[0][0] == (network, cfg.model.layers)
    state, record_ = job.written["out"]
    assert list(state) == list(network.state_dict()) and record_ == {"model": {"spec": 1}, "prunable": ["0.weight"]}
    assert job.written["metrics"] == {"epochs": [{"epoch": 1}], "test_sa": 61.0}


@pytest.mark.parametrize("given", [("best_sa",), ("best_sa", "best_ra")])
@pytest.mark.parametrize("more", [False, True])
def test_an_evaluation_measures_each_checkpoint_by_itself(record, monkeypatch, given, more):
    started, placed = record("train.device.start", "cpu"), record("vision.training.place")
    record("vision.sources.load", splits())
    monkeypatch.setattr("winnow.vision.models.load_pretrained", lambda path: (f"model {path}", {}))
    monkeypatch.setattr("winnow.vision.batches.Loader", lambda *arguments: arguments)
    clean, robust = record("vision.evaluate.accuracy", 70.0), record("vision.evaluate.robust_accuracy", 30.0)
    corrupted = record("vision.evaluate.corruption_accuracy", {"fog": 5.0})
    extra = {"corruptions": "cifar-c", "l2_attack": ATTACK | {"norm": "l2"}} if more else {}
    config = {"data": DATA, "compute": {}, "seed": 5, "evaluation": {"attack": ATTACK, "batch_size": 8} | extra}
    files = {n: Path(n) if n in given else None for n in ("best_sa", "best_ra")} | {"metrics": Path("m")}
    job = play("evaluate", config, files)
    cfg, loader = job.config, (["t"] * 9, job.config.data, 8, "cpu", 5, 3)
    assert started[0][0] == (cfg.compute, job.run.device, 5)
    models = [f"model {n}" for n in given]
    assert [c[0] for c in placed] == [(m, cfg.compute, "cpu") for m in models]
    assert [c[0] for c in clean] == [(m, loader, cfg.compute) for m in models]
    assert [c[1]["tally"].name for c in clean] == [f"{n}/sa" for n in given]
    wanted = [(m, a, f"{n}/{t}") for m, n in zip(models, given, strict=True)
              for a, t in ((cfg.evaluation.attack, "ra"), (cfg.evaluation.l2_attack, "l2_ra"))
              if t == "ra" or (more and n == "best_ra")]  # fmt: skip
    assert [(c[0][0], c[0][2], c[0][5].name) for c in robust] == wanted
    assert all(c[0][1] == loader and c[0][3:5] == (cfg.compute, 5) for c in robust)
    expected = {n: {"sa": 70.0, "ra": 30.0} | ({"corruptions": {"fog": 5.0}} if more else {}) for n in given}
    if more and "best_ra" in given:
        expected["best_ra"]["l2_ra"] = 30.0
    assert job.written["metrics"] == {"test_images": 9, **expected}
    assert len(corrupted) == more * len(given)
    for model, (arguments, _) in zip(models, corrupted, strict=False):
        assert arguments[:6] == (model, Path("root/cifar-c"), cfg.data, cfg.compute, "cpu", 8)


@pytest.mark.parametrize("scaled", [False, True])
def test_initial_weights_are_drawn_for_the_task_s_classes(record, network, scaled):
    record("vision.sources.load", splits())
    built, about = record("vision.models.build", network), record("vision.models.spec", {"spec": 1})
    record("gems.scores.scorable", ["0.weight", "1.weight"])
    record("gems.scores.hard_prunable", ["0.weight"])
    drawn = record("gems.inits.initialise")
    init = {"init": "kaiming_normal", "scale_fan": scaled, "target_sparsity": 40.0}
    job = play("gem_init", {"data": DATA, "seed": 5, "model": MODEL, "init": init}, {"weights": None, "out": Path("o")})
    assert built[0][0] == about[0][0] == (job.config.model, 7)
    assert drawn[0][0] == (network, ["0.weight", "1.weight"], "kaiming_normal", 0.4 if scaled else 1.0, 5)
    state, record_ = job.written["out"]
    assert list(state) == list(network.state_dict()) and record_ == {"model": {"spec": 1}, "prunable": ["0.weight"]}
    with pytest.raises(WinnowError, match="needs model and init"):
        play("gem_init", {"data": DATA, "seed": 5, "model": MODEL}, {"weights": None, "out": Path("o")})


@pytest.mark.parametrize("classes", [7, 10])
def test_warm_weights_keep_their_head_where_the_classes_are_as_many(record, monkeypatch, network, classes):
    record("vision.sources.load", splits())
    record("gems.scores.hard_prunable", ["0.weight"])
    drawn, calls = record("gems.inits.initialise"), []

    def load(*arguments):
        calls.append(arguments)
        return network, {"num_classes": classes if len(arguments) == 1 else arguments[1], "state": torch.initial_seed()}

    monkeypatch.setattr("winnow.vision.models.load_pretrained", load)
    job = play("gem_init", {"data": DATA, "seed": 5}, {"weights": Path("w"), "out": Path("o")})
    assert calls == [(Path("w"),)] + [(Path("w"), 7)] * (classes != 7) and not drawn
    assert job.written["out"][1]["model"] == {"num_classes": 7, "state": seed_of(5, "init")}


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("levelled", [False, True])
def test_a_search_writes_its_ticket_order_and_levels(record, monkeypatch, tmp_path, network, writes, levelled):
    tasks = Tasks([network])
    monkeypatch.setattr("winnow.gems.finetune.Task", tasks)
    levels = {"0.weight": np.array([[1, 2], [3, 3]], np.int16)}
    order = {"0.weight.level": levels["0.weight"], "0.weight.score": np.ones((2, 2), np.float32)}
    mask = {"0.weight": levels["0.weight"] == 3}
    gem = SimpleNamespace(collapsed=True, prunes=2, order=lambda: order, ticket=lambda: mask)
    searched = record("gems.search.search", (gem, [{"epoch": 1}]))
    wrote = record("artifacts.write_tensors")
    search = {"algo": "hc_iter", "target_sparsity": 50.0, "iter_period": 1}
    files = {"init": Path("i"), "out": Path("o"), "order": Path("r"), "metrics": Path("m")}
    files["levels"] = tmp_path / "levels" if levelled else None
    saved = []
    monkeypatch.setattr(Ticket, "save", lambda self, path, **about: saved.append((self, path, about)))
    job = play("gem_search", COMMON | {"search": search, "attack": ATTACK}, files, writes)
    cfg = job.config
    assert tasks.made == [(cfg.data, cfg.train, cfg.compute, 5, cfg.attack, job.run)] and tasks.asked == [Path("i")]
    arguments, keys = searched[0]
    assert arguments == (network, "loader") and keys.pop("evaluate")() == {"val_sa": 12.5}
    assert keys == {"config": cfg.search, "train": cfg.train, "compute": cfg.compute, "seed": 5, "attack": cfg.attack,
                    "run": job.run}  # fmt: skip
    if not writes:
        assert not (wrote or saved or job.written)
        return
    about = {"method": "hc_iter", "seed": 5, "collapsed": True}
    assert [c[0] for c in wrote] == [(Path("r"), order, {"kind": "prune_order", **about, "made": "r"})]
    paths = [tmp_path / f"levels/level00{k}.mask.safetensors" for k in (1, 2)] if levelled else []
    assert [(p, a) for _, p, a in saved] == [(p, {"level": k, **about, "made": str(p)}) for k, p in enumerate(paths, 1)]
    for k, (one, _, _) in enumerate(saved, 1):
        assert same(one, Ticket(level_masks(levels, k)))
    found, said = job.written["out"]
    assert same(found, Ticket(mask)) and said == {"level": 2, **about}
    assert job.written["metrics"] == {
        "epochs": [{"epoch": 1}],
        "remaining_percent": 50.0,
        "prunes": 2,
        "collapsed": True,
    }


@pytest.mark.parametrize("inverted", [False, True])
def test_checks_of_a_gem_are_its_own_variants(record, monkeypatch, tmp_path, ticket, inverted):
    tasks = Tasks(["first", "second", "third"])
    monkeypatch.setattr("winnow.gems.finetune.Task", tasks)
    drawn, tuned = record("gems.inits.initialise"), record("gems.finetune.finetune", {"acc_after": 3.0})
    levels = {"0.weight": np.arange(12, dtype=np.int16).reshape(3, 4) % 3 + 1}
    scores = {"0.weight": np.arange(12, dtype=np.float32).reshape(3, 4)}
    order = {"0.weight.level": levels["0.weight"], "0.weight.score": scores["0.weight"]}
    write_tensors(tmp_path / "order.safetensors", order, {"kind": "prune_order"})
    files = {"init": Path("i"), "mask": ticket[0], "metrics": Path("m")}
    files["inverted"] = tmp_path / "order.safetensors" if inverted else None
    job = play(
        "gem_sanity", COMMON | {"attack": ATTACK, "checks": ["reinit", "shuffle"], "target_sparsity": 50.0}, files
    )
    cfg, gem = job.config, ticket[1]
    assert tasks.made == [(cfg.data, cfg.train, cfg.compute, 5, cfg.attack, job.run)]
    expected = {"reinit": gem, "shuffle": Ticket(random_like.masks(gem, 5, "shuffle"))}
    if inverted:
        expected["invert"] = Ticket(draw(levels, scores, 0.5))
    assert tasks.asked == [Path("i")] * len(expected)
    assert [c[0][0] for c in tuned] == ["first", "second", "third"][: len(expected)]
    assert all(same(c[0][1], e) and c[0][2] is tasks for c, e in zip(tuned, expected.values(), strict=True))
    assert drawn == [(("first", ["0.weight"], "kaiming_normal", 1.0, 5, "reinit"), {})]
    checks = {n: {"acc_after": 3.0, "remaining_percent": t.remaining_percent} for n, t in expected.items()}
    assert job.written == {"metrics": {"checks": checks}}


@pytest.mark.parametrize("name", ["train", "transfer", "pretrain", "evaluate", "gem_init", "gem_search", "gem_sanity"])
def test_what_trains_may_run_in_several_processes_and_is_kept_in_a_store(name):
    stage = importlib.import_module(f"winnow.stages.{name}").stage
    assert stage.trains == (name in ("train", "transfer", "pretrain", "gem_search"))
