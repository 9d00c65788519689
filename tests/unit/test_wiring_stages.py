"""Stages use what they are given: weights, masks and seeds, seen in what they write when training does nothing, or one
step.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import MODEL

from winnow import Ticket
from winnow.artifacts import read_arrays, read_json
from winnow.config.parts import Data
from winnow.run import Run
from winnow.stage import Job
from winnow.store import entry_of
from winnow.vision.sources import fraction, load

DIGITS = {"dataset": "digits", "classes": [0, 1, 2], "val_images": 30, "train_images": 60}
DOWN = {"dataset": "digits", "classes": [7, 5, 6, 9], "val_images": 30, "train_images": 60}
NONE = {"epochs": 0, "batch_size": 16, "lr": 0.05}
STEP = {"epochs": 1, "batch_size": 60, "lr": 1e-7}
ONE = {"epochs": 1, "batch_size": 16, "lr": 0.05}


def task(data=DIGITS, train=NONE, seed=0, **extra):
    return {"data": data, "train": train, "compute": {}, "seed": seed, **extra}


@pytest.fixture
def made(run_stage, tmp_path):
    """Two networks (`a` trained, `b` drawn elsewhere) and a ticket of each, all different."""
    files = {n: tmp_path / f"{n}.safetensors" for n in ("a", "b", "a.mask", "b.mask")}
    for name, seed in (("a", 1), ("b", 2)):
        config = task(train=ONE, seed=seed, method="std", model=MODEL)
        assert run_stage("pretrain", config, out=files[name], metrics=tmp_path / f"{name}.json")[0] == 0
        assert (
            run_stage(
                "prune",
                {"method": "magnitude", "remaining_percent": 60},
                weights=files[name],
                out=files[f"{name}.mask"],
            )[0]
            == 0
        )
    return files


def masked(weights: Path, ticket: Path) -> dict[str, np.ndarray]:
    masks = Ticket.load(ticket).arrays
    return {n: np.where(masks[n], w, 0) if n in masks else w for n, w in read_arrays(weights).items()}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return set(found) == set(expected) and all(np.allclose(found[n], expected[n], atol=1e-5) for n in expected)


def test_imp_trains_the_dense_weights_under_this_round_s_mask(made, run_stage, tmp_path):
    out = tmp_path / "t.safetensors"
    config = task(keep="last")
    assert run_stage("train", config, init=made["a"], mask=made["b.mask"], out=out, metrics=tmp_path / "t.json")[0] == 0
    assert same(read_arrays(out), masked(made["a"], made["b.mask"]))


def test_a_round_ranks_what_was_trained_among_what_the_last_round_kept(made, run_stage, tmp_path):
    out = tmp_path / "n.mask.safetensors"
    config = {"method": "magnitude", "remaining_percent": 30, "round": 2}
    assert run_stage("prune", config, weights=made["a"], mask=made["b.mask"], out=out)[0] == 0
    ticket, last = Ticket.load(out), Ticket.load(made["b.mask"])
    assert ticket.is_within(last) and ticket.remaining_percent == pytest.approx(30, abs=0.05)
    trained = read_arrays(made["a"])
    ranked = {n: np.where(last.arrays[n], np.abs(trained[n]), -1) for n in last.arrays}
    lowest = min(ranked[n][m].min() for n, m in ticket.arrays.items() if m.any())
    assert all((ranked[n][~m] <= lowest).all() for n, m in ticket.arrays.items())


@pytest.mark.parametrize("measure", [False, True])
def test_training_that_does_nothing_gives_the_masked_weights_back(made, run_stage, tmp_path, measure):
    """Batch statistics are measured under the mask, if any are; no weight moves for them."""
    out = tmp_path / "n.safetensors"
    config = task(keep="best" if measure else "last", measure=measure)
    assert run_stage("train", config, init=made["b"], mask=made["a.mask"], out=out, metrics=tmp_path / "n.json")[0] == 0
    start, found = masked(made["b"], made["a.mask"]), read_arrays(out)
    moved = [n for n in start if not np.allclose(found[n], start[n], atol=1e-6)]
    assert all("running" in n or "num_batches" in n for n in moved) and bool(moved) == measure


def test_the_rewinding_point_is_so_many_steps_into_the_training(made, run_stage, tmp_path):
    points = {}
    for iteration in (0, 1, 4):
        files = {k: tmp_path / f"{k}{iteration}.safetensors" for k in ("out", "rewind")}
        config = task(train={**ONE, "epochs": 2}, keep="best", rewind_iteration=iteration)
        assert run_stage("train", config, init=made["a"], **files, metrics=tmp_path / f"{iteration}.json")[0] == 0
        points[iteration] = read_arrays(files["rewind"])
        assert read_arrays(files["out"])["conv1.weight"].std() > 0
    start = read_arrays(made["a"])
    assert same(points[0], start)
    assert not np.allclose(points[1]["conv1.weight"], start["conv1.weight"], atol=1e-6)
    assert not np.allclose(points[4]["conv1.weight"], points[1]["conv1.weight"], atol=1e-6)
    assert int(points[4]["bn1.num_batches_tracked"]) - int(start["bn1.num_batches_tracked"]) == 4


def test_a_transfer_starts_from_the_dense_weights_under_the_ticket_with_a_new_head(made, run_stage, tmp_path):
    heads = {}
    for seed in (0, 1):
        out = tmp_path / f"{seed}.safetensors"
        config = task(DOWN, STEP, seed)
        files = {"best_sa": out, "metrics": tmp_path / "m.json"}
        assert run_stage("transfer", config, init=made["a"], mask=made["b.mask"], **files)[0] == 0
        found, start = read_arrays(out), masked(made["a"], made["b.mask"])
        head = [n for n in found if found[n].shape != start[n].shape]
        assert head and all(found[n].shape[0] == 4 for n in head)
        kept = [n for n in start if n not in head and "running" not in n and "num_batches" not in n]
        assert all(np.allclose(found[n], start[n], atol=1e-5) for n in kept)
        heads[seed] = found[head[0]]
    assert not np.allclose(heads[0], heads[1], atol=1e-3)
    assert run_stage("transfer", task(DOWN, STEP), init=made["a"], best_sa=out, metrics=tmp_path / "m.json")[0] == 0
    dense, start = read_arrays(out), read_arrays(made["a"])
    assert (
        np.allclose(dense["conv1.weight"], start["conv1.weight"], atol=1e-5)
        and np.count_nonzero(start["conv1.weight"] == 0) == 0
    )


def test_a_fraction_takes_so_many_images_and_its_own_seed_s(made, run_stage, tmp_path):
    for share, images in ((1.0, 60), (0.5, 30), (0.1, 6)):
        config, metrics = task(DOWN, STEP, fraction=share), tmp_path / f"{share}.json"
        assert (
            run_stage("transfer", config, init=made["a"], best_sa=tmp_path / "o.safetensors", metrics=metrics)[0] == 0
        )
        assert read_json(metrics)["train_images"] == images
    train = load(Data(**DOWN), None).train
    parts = [{i.tobytes() for i in fraction(train, 0.5, seed).images} for seed in (3, 3, 5)]
    assert parts[0] == parts[1] and len(parts[0] & parts[2]) < 25
    assert np.bincount(fraction(train, 0.5, 3).labels).tolist() == pytest.approx(np.bincount(train.labels) / 2, abs=1)


def test_the_seed_of_a_transfer_draws_its_fraction(made, run_stage, tmp_path, monkeypatch):
    """Two seeds see different images; the split into held-out, training and test images is the data's own."""
    from winnow.vision import batches

    seen, epoch = [], batches.Loader.epoch

    def record(loader, *arguments, **options):
        seen.append({i.tobytes() for i in loader.split.images})
        return epoch(loader, *arguments, **options)

    monkeypatch.setattr(batches.Loader, "epoch", record)
    for seed in (3, 5):
        config = task(DOWN, STEP, seed, fraction=0.5)
        files = {"best_sa": tmp_path / "o.safetensors", "metrics": tmp_path / "m.json"}
        assert run_stage("transfer", config, init=made["a"], **files)[0] == 0
    sets = load(Data(**DOWN), None)
    whole, held = ({i.tobytes() for i in s.images} for s in (sets.train, sets.val))
    assert len(seen) == 2 and seen[0] != seen[1] and all(s <= whole and not s & held and len(s) == 30 for s in seen)


def test_classes_are_renumbered_in_the_order_in_which_they_are_named():
    chosen, whole = load(Data(**DOWN), None), load(Data(dataset="digits", val_images=1), None)
    digit = {
        i.tobytes(): int(y)
        for s in (whole.train, whole.val, whole.test)
        for i, y in zip(s.images, s.labels, strict=True)
    }
    for split in (chosen.train, chosen.val, chosen.test):
        assert all(digit[i.tobytes()] == DOWN["classes"][y] for i, y in zip(split.images, split.labels, strict=True))
    assert chosen.num_classes == 4


SEEDED = {
    "pretrain": (task(train=STEP, method="std", model=MODEL), {}),
    "train a ticket": (task(train=ONE, keep="last"), {"init": "a", "mask": "a.mask"}),
    "train": (task(train=ONE, keep="best", measure=True), {"init": "a"}),
    "prune like another": ({"method": "random"}, {"like": "a.mask"}),
    "prune at random": ({"method": "random", "remaining_percent": 40}, {"weights": "a"}),
    "prune by snip": ({"method": "snip", "remaining_percent": 40, "images": 10, "data": DIGITS}, {"weights": "a"}),
    "gem_init": ({"data": DIGITS, "model": MODEL, "init": {"init": "kaiming_normal"}}, {}),
}


@pytest.mark.parametrize("kind", list(SEEDED))
def test_another_seed_gives_another_result_and_the_same_the_same(made, run_stage, tmp_path, kind):
    (config, inputs), stage = SEEDED[kind], kind.split()[0]
    found = []
    for run, seed in enumerate((0, 1, 0)):
        files = {"out": tmp_path / f"{run}.{'mask.' * (stage == 'prune')}safetensors"}
        metrics = {"metrics": tmp_path / f"{run}.json"} if "train" in config else {}
        assert (
            run_stage(stage, {**config, "seed": seed}, **{k: made[v] for k, v in inputs.items()}, **files, **metrics)[0]
            == 0
        )
        found.append(read_arrays(files["out"]))
    assert all((found[0][n] == found[2][n]).all() for n in found[0])
    assert any((found[0][n] != found[1][n]).any() for n in found[0])


def test_the_adversary_of_a_training_is_the_configured_one(made, run_stage, tmp_path):
    losses = []
    for eps in (None, 0.02, 0.3):
        attack = None if eps is None else {"eps": eps, "step_size": eps, "steps": 2}
        metrics = tmp_path / "m.json"
        config = task(train=STEP, attack=attack, keep="last")
        files = {"out": tmp_path / "o.safetensors", "metrics": metrics}
        assert run_stage("train", config, init=made["a"], mask=made["a.mask"], **files)[0] == 0
        found = read_json(metrics)["epochs"][0]
        losses.append(found["loss"])
        assert ("val_ra" in found) == (eps is not None)
    assert losses[0] < losses[1] < losses[2]


def test_the_store_s_key_knows_the_number_of_processes_and_all_that_decides_the_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w").write_text("weights")

    def key(
        processes: int = 1, stage: str = "transfer", seed: int = 0, out: str = "o", content: str = "weights"
    ) -> Path:
        Path("w").write_text(content)
        outputs = {"best_sa": Path(out)}
        return entry_of(
            tmp_path / "store", Job(stage, {"seed": seed}, {"init": Path("w")}, outputs, run=Run("cpu")), processes
        )

    different = [key(), key(2), key(4), key(stage="train"), key(seed=1), key(out="p"), key(content="others")]
    assert len(set(different)) == len(different) and key() == different[0]


def test_evaluation_measures_the_checkpoint_that_it_names(made, run_stage, tmp_path):
    """The same two networks given the other way round give the figures the other way round."""
    figures = []
    config = {
        "data": {**DIGITS, "test_images": 40},
        "evaluation": {"attack": {"eps": 0.05, "step_size": 0.05, "steps": 1}},
    }
    for sa, ra in (("a", "b"), ("b", "a")):
        metrics = tmp_path / "e.json"
        given = {**config, "compute": {}, "seed": 0}
        assert run_stage("evaluate", given, best_sa=made[sa], best_ra=made[ra], metrics=metrics)[0] == 0
        figures.append(json.loads(metrics.read_text()))
    one, other = figures
    assert (
        one["best_sa"] == other["best_ra"] and one["best_ra"] == other["best_sa"] and one["best_sa"] != one["best_ra"]
    )
