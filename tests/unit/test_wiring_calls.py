"""What stages hand to the library and write: each with its own arguments, on stand-ins that record their calls."""

# ruff: noqa: F811  (the fixture is imported)

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recorded import play, record  # noqa: F401

from winnow import Ticket, WinnowError
from winnow.artifacts import write_tensors
from winnow.gems.order import draw
from winnow.rng import seed_of
from winnow.text.data import Examples, stratified
from winnow.vision.sources import Split, subset

TEXT = {"dataset": "embedded", "max_length": 24, "train_examples": 96, "val_fraction": 0.02}
TRAIN = {"epochs": 2, "batch_size": 16, "optimizer": "adamw", "lr": 1e-3}


def test_autoattack_attacks_its_images_of_the_test_split(record):
    rng = np.random.default_rng(0)
    test = Split(rng.integers(0, 255, (30, 3, 8, 8), dtype=np.uint8), np.arange(30) % 3)
    wrong = Split(test.images[:5], test.labels[:5])
    started, placed = record("train.device.start", torch.device("cpu")), record("vision.training.place")
    record("vision.sources.load", SimpleNamespace(train=wrong, val=wrong, test=test))
    loaded = record("vision.models.load_pretrained", ("model", {"num_classes": 7}))
    attacked = record("vision.evaluate.autoattack_accuracy", 42.0)
    data = {"dataset": "digits", "val_images": 10, "split_seed": 4}
    config = {"data": data, "autoattack": {"eps": 0.1, "images": 9}, "batch_size": 4, "compute": {}, "seed": 5}
    job = play("autoattack", config, {"weights": Path("w"), "metrics": Path("m")})
    (model, loader, wanted, classes, seed, tally), _ = attacked[0]
    assert (model, wanted, classes, seed) == ("model", job.config.autoattack, 7, 5) and tally.name == "aa"
    assert np.array_equal(loader.split.images, subset(test, 9, 4).images) and (loader.batch_size, loader.seed) == (4, 5)
    assert job.written == {"metrics": {"aa": 42.0, "images": 9}} and loaded[0][0] == (Path("w"),)
    assert started[0][0][2] == 5 and placed[0][0][0] == "model"


def test_a_drawn_gem_is_the_order_s_at_its_target(tmp_path):
    levels, scores = {"a": np.array([1, 2, 3, 1, 2], np.int16)}, {"a": np.array([0.1, 0.5, 0.9, 0.2, 0.4], np.float32)}
    arrays = {"a.level": levels["a"], "a.score": scores["a"]}
    write_tensors(tmp_path / "o.safetensors", arrays, {"kind": "prune_order", "method": "hc_iter"})
    job = play("gem_ticket", {"target_sparsity": 40.0}, {"order": tmp_path / "o.safetensors", "out": Path("t")})
    ticket, about = job.written["out"]
    assert np.array_equal(ticket.arrays["a"], draw(levels, scores, 0.4)["a"]) and about == {"method": "hc_iter"}


def test_a_robust_ticket_keeps_the_highest_scores_spread_over_their_weights(tmp_path):
    file = tmp_path / "s.safetensors"
    record = {"kind": "scores", "shapes": {"a": [2, 3], "b": [1, 4]}, "search_epoch": 2, "seed": 7}
    write_tensors(
        file, {"a": np.array([[0.2], [0.9]], np.float32), "b": np.array([[0.1, 0.5, 0.6, 0.3]], np.float32)}, record
    )
    ticket, about = play("draw_ticket", {"removed_fraction": 0.3}, {"scores": file, "out": Path("t")}).written["out"]
    # of ten weights three go: 0.1, and two of the tie at 0.2, the later ones
    assert ticket.arrays["a"].astype(int).tolist() == [[1, 0, 0], [1, 1, 1]]
    assert ticket.arrays["b"].astype(int).tolist() == [[0, 1, 1, 1]]
    assert about == {"method": "robust_ticket", "search_epoch": 2, "search_seed": 7}
    write_tensors(file, {"a": np.zeros(3, np.float32)}, record | {"kind": "weights"})
    with pytest.raises(WinnowError, match="holds no scores"):
        play("draw_ticket", {"removed_fraction": 0.3}, {"scores": file, "out": Path("t")})


@pytest.fixture
def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("writes", [False, True])
def test_fine_tuning_gets_its_model_ticket_and_adversary(record, monkeypatch, tmp_path, network, masked, writes):
    started, data = record("train.device.start"), {"train": "t", "val": "v"}
    loaded = record("text.training.load", (network, "tokenizer", data))
    reset, saved = record("text.models.reset_head"), []
    early = {n: torch.full_like(v, 3.0) for n, v in network.state_dict().items()}
    tuned = record("text.training.finetune", ([{"epoch": 1}], {1: early}))

    def save(file, model, tokenizer, about):
        saved.append((file, float(model[0].weight.detach().mean()) == 3.0, model is network, tokenizer, about))

    monkeypatch.setattr("winnow.text.models.save_classifier", save)
    ticket = Ticket({"0.weight": np.arange(12).reshape(3, 4) % 4 > 0})
    ticket.save(tmp_path / "t.mask.safetensors", method="x")
    files = {
        "model": Path("pre"),
        "mask": tmp_path / "t.mask.safetensors" if masked else None,
        "out": Path("o"),
        "kept": [Path("k")],
        "metrics": Path("m"),
    }
    config = {"data": TEXT, "train": TRAIN, "compute": {}, "seed": 5, "adversary": {"steps": 2}, "keep_epochs": [1]}
    job = play("finetune_text", config, files, writes)
    assert started[0][0] == (job.config.compute, job.run.device, seed_of(5, "start"))
    assert loaded[0][0] == (Path("pre"), job.config.data, Path("root"), True) and reset[0][0] == (network, 5)
    (model, given), keys = tuned[0]
    held = keys.pop("ticket")
    assert model is network and given is data and (held is not None) == masked
    assert not masked or np.array_equal(held.arrays["0.weight"], ticket.arrays["0.weight"])
    assert keys == {"train": job.config.train, "compute": job.config.compute, "seed": 5,
                    "adversary": job.config.adversary, "keep_epochs": [1], "run": job.run}  # fmt: skip
    if not writes:
        assert not saved and not job.written
        return
    assert saved == [
        (Path("o"), False, True, "tokenizer", {"made": "o"}),
        (Path("k"), True, True, "tokenizer", {"made": "k"}),
    ]
    assert job.written == {"metrics": {"epochs": [{"epoch": 1}], "remaining_percent": 75.0 if masked else 100.0}}
    with pytest.raises(WinnowError, match="1 folders for 0 kept epochs"):
        play("finetune_text", config | {"keep_epochs": []}, files)


@pytest.mark.parametrize("writes", [False, True])
def test_a_search_writes_the_scores_of_each_kept_epoch_into_its_own_file(record, network, writes):
    started, loaded = record("train.device.start"), record("text.training.load", (network, "tokenizer", {"train": "t"}))
    record("text.models.prunable", ["0.weight", "1.weight"])
    searched = record("text.search.search", ([{"epoch": 1}], {1: "first", 3: "third"}))
    wrote = record("text.hard_concrete.write_scores")
    config = {"data": TEXT, "train": TRAIN | {"epochs": 3}, "compute": {}, "seed": 5, "masks": {"init_mask": 0.8},
              "adversary": {"steps": 2}, "keep_epochs": [1, 3], "frozen": False}  # fmt: skip
    files = {"model": Path("dense"), "scores": [Path("s1"), Path("s3")], "metrics": Path("m")}
    job = play("search_robust_ticket", config, files, writes)
    cfg = job.config
    assert started[0][0] == (cfg.compute, job.run.device, seed_of(5, "start"))
    assert loaded[0][0] == (Path("dense"), cfg.data, Path("root"), True)
    (model, names, data), keys = searched[0]
    assert model is network and names == ["0.weight", "1.weight"] and data == {"train": "t"}
    assert keys == {"train": cfg.train, "masks": cfg.masks, "adversary": cfg.adversary, "keep_epochs": [1, 3],
                    "compute": cfg.compute, "seed": 5, "frozen": False, "run": job.run}  # fmt: skip
    if not writes:
        assert not wrote and not job.written
        return
    shapes = {"0.weight": [3, 4], "1.weight": [2, 3]}
    about = [{"shapes": shapes, "search_epoch": e, "seed": 5, "made": f"s{e}"} for e in (1, 3)]
    assert [c[0] for c in wrote] == [(Path("s1"), "first", about[0]), (Path("s3"), "third", about[1])]
    assert job.written == {"metrics": {"epochs": [{"epoch": 1}]}}
    with pytest.raises(WinnowError, match="1 files for 2 kept epochs"):
        play("search_robust_ticket", config, files | {"scores": [Path("s1")]})


@pytest.mark.parametrize(
    ("selection", "count"), [("first", 4), ("stratified", 4), ("stratified", 12), ("stratified", None)]
)
def test_an_attack_is_on_the_examples_that_are_asked_for(record, monkeypatch, tmp_path, selection, count):
    test = Examples([f"text {i}" for i in range(12)], None, np.repeat([0, 1], 6), ("text",), np.arange(12))
    target = SimpleNamespace(tokenizer="tok", types=True, model="net", device="cpu")
    asked = []

    class Setup:
        def __init__(self, *arguments):
            asked.append(arguments)

        def victim(self):
            return target, test

        def attack(self, worker):
            raise AssertionError("only handed on")

    monkeypatch.setattr("winnow.text.attacks.setup.Setup", Setup)
    coded, measured = record("text.batches.encode", "codes"), record("text.evaluate.accuracy", 61.5)
    rows = [{"status": "failed", "queries": 3, "words": 2, "words_changed": 0, "text": "é"}]
    attacked = record("text.attacks.run.attack_all", rows)
    config = {"data": TEXT | {"split_seed": 4}, "attack": {"recipe": "textfooler", "candidates": "embedded"},
              "compute": {}, "seed": 5, "selection": selection}  # fmt: skip
    stage = importlib.import_module("winnow.stages.attack_text")
    files = dict.fromkeys(stage.ASSETS) | {"neighbours": Path("n"), "model": Path("dense")}
    files |= {"out": tmp_path / "rows.jsonl", "metrics": Path("m")}
    job = play("attack_text", config | ({"examples": count} if count else {}), files)
    assets = {role: files[role] for role in stage.ASSETS}
    cfg, run = job.config, job.run
    assert asked == [(Path("dense"), cfg.data, cfg.attack, cfg.compute, assets, run.device, Path("root"), True)]
    assert coded[0][0] == ("tok", test, 24, True) and measured[0][0] == ("net", "codes", cfg.compute, "cpu")
    (make, chosen, seed, given), _ = attacked[0]
    whole, four = list(range(12)), stratified(test.labels, 4 / 12, 4, "attacked").tolist()
    assert chosen == (whole if count in (12, None) else whole[:4] if selection == "first" else four)
    assert make.__self__.__class__ is Setup and (seed, given) == (5, run)
    (line,) = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert line == json.dumps(rows[0], sort_keys=True, ensure_ascii=False) and "é" in line
    found = job.written["metrics"]
    assert found["test_examples"] == 12 and found["test_accuracy_percent"] == 61.5 and found["aua_percent"] == 100.0


@pytest.mark.parametrize(
    "name", ["autoattack", "gem_ticket", "draw_ticket", "finetune_text", "search_robust_ticket", "attack_text"]
)
def test_what_trains_may_run_in_several_processes_and_is_kept_in_a_store(name):
    stage = importlib.import_module(f"winnow.stages.{name}").stage
    assert stage.trains == (name in ("finetune_text", "search_robust_ticket"))
