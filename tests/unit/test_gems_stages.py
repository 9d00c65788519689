"""The rare-gems stages as commands on small digits runs: what the paper's rules promise holds in the artifacts."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from conftest import same_artifact

torch = pytest.importorskip("torch")

from winnow.artifacts import read_arrays, read_json, read_metadata  # noqa: E402
from winnow.config.pruning import FOR_IMAGES, LIGHT  # noqa: E402
from winnow.gems.order import draw, read_order  # noqa: E402
from winnow.prune.smart_ratio import layer_counts  # noqa: E402
from winnow.stages import gem_init, gem_sanity, gem_search, gem_ticket, prune, train  # noqa: E402
from winnow.ticket import Ticket  # noqa: E402

DATA = {"dataset": "digits", "val_images": 100, "train_images": 200, "test_images": 100}
MODEL = {"arch": "resnet8", "width": 4, "classifier": "conv1x1", "bn": "non_affine"}
TRAIN = {"epochs": 2, "batch_size": 50, "lr": 0.05, "weight_decay": 1e-4}
SHARED = {"data": DATA, "compute": {}, "seed": 0}
BEST = {**SHARED, "train": TRAIN, "keep": "best", "measure": True}  # how gems and their rivals are trained
SEARCH = {"algo": "hc_iter", "target_sparsity": 10, "iter_period": 1, "lmbda": 1e-4}
SCORES = {"epochs": 5, "batch_size": 50, "lr": 5.0, "schedule": "cosine"}


def run(module, config, folder, **files):
    arguments = [
        "--config",
        json.dumps(config),
        "--scratch",
        str(folder / "scratch"),
        "--log-level",
        "error",
        "--device",
        "cpu",
    ]
    for name, path in files.items():
        arguments += [f"--{name.replace('_', '-')}", str(path)]
    return module.stage.run(arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("gems")
    assert run(gem_init, {"data": DATA, "model": MODEL, "init": {}, "seed": 0}, base, out=base / "init") == 0
    return base


def search(folder, name, search=SEARCH, train=SCORES, **more):
    out = folder / name
    out.mkdir(exist_ok=True)
    files = {"out": out / "mask", "order": out / "order", "levels": out / "levels", "metrics": out / "json"}
    code = run(gem_search, {**SHARED, "search": search, "train": train, **more}, out, init=folder / "init", **files)
    return code, files


@pytest.fixture(scope="module")
def gem(folder):
    code, files = search(folder, "gem")
    assert code == 0
    return files


def test_search_reaches_the_target_by_the_prune_rule(gem):
    ticket = Ticket.load(gem["out"])
    fraction, alive = 1 - 0.1 ** (1 / 4), ticket.total
    levels = sorted(gem["levels"].iterdir())
    assert len(levels) == 4
    for path in levels:
        alive -= math.ceil(fraction * alive)
        assert abs(Ticket.load(path).kept - alive) <= 1
    assert Ticket.load(levels[-1]).kept == ticket.kept
    assert ticket.metadata["method"] == "hc_iter" and ticket.metadata["stage"] == "gem_search"


def test_levels_are_nested_and_drawn_from_the_order(gem, folder):
    tickets = [Ticket.load(p) for p in sorted(gem["levels"].iterdir())]
    assert all(b.is_within(a) for a, b in itertools.pairwise(tickets))
    drawn = folder / "drawn"
    assert run(gem_ticket, {"target_sparsity": 30}, folder, order=gem["order"], out=drawn) == 0
    ticket = Ticket.load(drawn)
    assert ticket.kept == ticket.total - math.ceil(0.7 * ticket.total)
    assert Ticket.load(gem["out"]).is_within(ticket)
    levels, scores = read_order(gem["order"])
    exact = Ticket(draw(levels, scores, tickets[1].kept / tickets[1].total))
    assert all(np.array_equal(exact.arrays[n], tickets[1].arrays[n]) for n in exact.arrays)


def test_search_is_deterministic(gem, folder):
    code, again = search(folder, "again")
    assert code == 0
    for name in ("out", "order"):
        assert same_artifact(again[name], gem[name])


def test_no_frozen_weight_moves_in_a_search(folder, tmp_path):
    from winnow.config.gems import Search
    from winnow.config.parts import Compute, Data, Train
    from winnow.gems.finetune import Task
    from winnow.gems.search import search as library_search
    from winnow.run import Run
    from winnow.schema import parse

    task = Task(parse(Data, DATA), parse(Train, SCORES), Compute(), 0, run=Run("cpu", checkpoints=tmp_path))
    model, _ = task.model(folder / "init")
    state, _ = library_search(
        model,
        task.train_loader,
        config=parse(Search, SEARCH),
        train=task.train,
        compute=Compute(),
        seed=0,
        run=task.run,
    )
    start = read_arrays(folder / "init")
    for name, frozen in state.scored.arrays(state.scored.weights).items():
        np.testing.assert_array_equal(frozen, start[name])
    state.fold()
    parameters = dict(model.named_parameters())
    for name, kept in state.ticket().items():
        values = parameters[name].detach().contiguous().numpy()
        assert set(np.unique(np.abs(values[kept] - start[name][kept]) * (values[kept] != 0))) <= {0.0}
        assert not values[~kept].any()
    assert all(torch.all((s >= 0) & (s <= 1)) for s in state.scored.scores.detach().split(1000))


@pytest.mark.parametrize(
    ("algo", "options"),
    [
        ("hc", {"lmbda": 1e-3}),
        ("ep", {"regularization": None}),
        ("global_ep", {"regularization": None}),
        ("global_ep_iter", {"regularization": None, "rewind_score": True}),
        ("hc_iter", {"prune_type": "LocalBottomK", "round": "prob", "lmbda": 0}),
        ("hc_iter", {"hc_quantized": False, "regularization": "bin_entropy", "score_init": "bimodal"}),
        ("hc_iter", {"unflag_before_finetune": False, "regularization": "var_red_2", "score_init": "half"}),
    ],
)
def test_every_algorithm_gives_a_ticket_at_its_density(folder, algo, options):
    # a high rate drives scores to 1, and ties at a threshold all go: where counts are to be exact, a low one
    train = {**SCORES, "epochs": 3, "lr": 0.1 if "prune_type" in options else SCORES["lr"]}
    code, files = search(folder, f"{algo}-{len(str(options))}", {**SEARCH, "algo": algo, **options}, train)
    assert code == 0
    ticket = Ticket.load(files["out"])
    layers = len(ticket.arrays)
    if algo == "ep":
        for mask in ticket.arrays.values():
            assert mask.sum() == mask.size - int((1 - 0.1) * mask.size)
    elif algo in ("global_ep", "global_ep_iter"):
        assert abs(ticket.kept - 0.1 * ticket.total) <= 2
    elif options.get("prune_type") == "LocalBottomK":
        assert abs(ticket.kept - 0.1 * ticket.total) <= 2 * layers
    else:
        assert 0 < ticket.kept < ticket.total


def test_fix_thresholding_and_a_vanishing_network_go_straight_to_the_target(folder):
    options = {**SEARCH, "prune_type": "FixThresholding", "lmbda": 10.0}
    code, files = search(folder, "vanishing", options, {**SCORES, "lr": 0.1})
    assert code == 0
    metrics, ticket = read_json(files["metrics"]), Ticket.load(files["out"])
    assert metrics["collapsed"] and ticket.metadata["collapsed"]
    assert ticket.kept == ticket.total - math.ceil(0.9 * ticket.total)
    assert len(metrics["epochs"]) < SCORES["epochs"]


def test_inverted_search_keeps_other_weights(folder, gem):
    code, files = search(folder, "inverted", {**SEARCH, "invert": True})
    assert code == 0
    inverted, original = Ticket.load(files["out"]), Ticket.load(gem["out"])
    common = sum(int((inverted.arrays[n] & original.arrays[n]).sum()) for n in original.arrays)
    assert common < 0.1 * original.kept
    assert abs(inverted.kept - original.kept) <= 1


def test_search_can_be_robust_and_in_bf16(folder):
    attack = {"eps": 0.1, "step_size": 0.05, "steps": 2}
    code, files = search(
        folder, "robust", SEARCH, {**SCORES, "epochs": 2}, attack=attack, compute={"precision": "bf16"}
    )
    assert code == 0
    assert abs(Ticket.load(files["out"]).remaining_percent - 10) < 0.1


def test_finetuned_weights_are_zero_wherever_the_mask_is(folder, gem):
    out = {"out": folder / "tuned", "metrics": folder / "tuned.json"}
    assert run(train, BEST, folder, init=folder / "init", mask=gem["out"], **out) == 0
    ticket, weights, start = Ticket.load(gem["out"]), read_arrays(out["out"]), read_arrays(folder / "init")
    for name, mask in ticket.arrays.items():
        assert not weights[name][~mask].any()
    moved = sum(int((weights[n] != start[n])[m].sum()) for n, m in ticket.arrays.items())
    assert moved > 0.9 * ticket.kept
    metrics = read_json(out["metrics"])
    assert 0 <= metrics["acc_before"] <= 100 and metrics["num_classes"] == 10
    assert metrics["remaining_percent"] == pytest.approx(ticket.remaining_percent)


def test_sanity_checks_measure_each_variant(folder, gem):
    _, inverted = search(folder, "inverted", {**SEARCH, "invert": True})
    config = {**SHARED, "train": {**TRAIN, "epochs": 1}, "target_sparsity": 10}
    files = {
        "init": folder / "init",
        "mask": gem["out"],
        "inverted": inverted["order"],
        "metrics": folder / "sanity.json",
    }
    assert run(gem_sanity, config, folder, **files) == 0
    checks = read_json(folder / "sanity.json")["checks"]
    assert set(checks) == {"reinit", "shuffle", "invert"}
    assert all(abs(c["remaining_percent"] - 10) < 0.1 for c in checks.values())
    assert len({c["acc_before"] for c in checks.values()} | {read_json(gem["metrics"])["remaining_percent"]}) > 1


@pytest.mark.parametrize("name", [m for m in FOR_IMAGES if m != "magnitude"])
def test_baselines_at_initialisation_hit_the_target(folder, name):
    looks = {} if name in LIGHT else {"data": DATA}
    config = {"method": name, "remaining_percent": 20, "seed": 0, **looks}
    assert run(prune, config, folder, weights=folder / "init", out=folder / name) == 0
    ticket = Ticket.load(folder / name)
    assert abs(ticket.kept - 0.2 * ticket.total) <= (len(ticket.arrays) if name == "smart_ratio" else 1)
    assert ticket.metadata["method"] == name
    names = read_metadata(folder / "init")["prunable"]
    assert set(ticket.arrays) == set(names)
    if name == "smart_ratio":  # in the model's own order, whatever order a file has
        counts = layer_counts([ticket.arrays[n].size for n in names], ticket.total * 0.2)
        assert [int(ticket.arrays[n].sum()) for n in names] == counts


@pytest.mark.parametrize("rewind", ["warm", "cold", "renda"])
def test_imp_rounds_are_a_nested_chain(folder, rewind):
    base = folder / rewind
    base.mkdir()
    dense = {"out": base / "w0", "rewind": base / "early", "metrics": base / "m0"}
    assert run(train, {**BEST, "rewind_iteration": 3}, base, init=folder / "init", **dense) == 0
    start, early = read_arrays(folder / "init"), read_arrays(base / "early")
    assert any((early[n] != start[n]).any() for n in read_metadata(folder / "init")["prunable"])
    last = {"weights": base / "w0"}
    tickets = []
    for k, percent in ((1, 50), (2, 25)):
        ticket, out = base / f"t{k}", {"out": base / f"w{k}", "metrics": base / f"m{k}"}
        config = {"method": "magnitude", "label": "imp", "round": k, "remaining_percent": percent}
        assert run(prune, config, base, **last, out=ticket) == 0
        begin = {"warm": base / "early", "cold": folder / "init", "renda": last["weights"]}[rewind]
        assert run(train, BEST, base, init=begin, mask=ticket, **out) == 0
        tickets.append(Ticket.load(ticket))
        assert tickets[-1].kept == round(tickets[-1].total * percent / 100)
        assert (tickets[-1].metadata["method"], tickets[-1].metadata["round"]) == ("imp", k)
        last = {"weights": base / f"w{k}", "mask": ticket}
        weights = read_arrays(out["out"])
        assert not any(weights[n][~m].any() for n, m in tickets[-1].arrays.items())
    assert tickets[1].is_within(tickets[0])


def test_rewinding_point_lies_on_the_training_run(folder, tmp_path):
    """The weights of step 8 are those of a training run that ends there."""
    short = {**BEST, "train": {**TRAIN, "epochs": 2}}
    files = {"out": tmp_path / "w", "rewind": tmp_path / "r", "metrics": tmp_path / "m"}
    assert run(train, {**short, "rewind_iteration": 8}, tmp_path, init=folder / "init", **files) == 0
    metrics, early, last = read_json(files["metrics"]), read_arrays(files["rewind"]), read_arrays(files["out"])
    best = max(metrics["epochs"], key=lambda e: (e["val_sa"], -e["epoch"]))
    if best["epoch"] == 2:  # 2 epochs of 4 steps
        for name in read_metadata(folder / "init")["prunable"]:
            np.testing.assert_array_equal(early[name], last[name])


def test_warm_gems_start_from_pretrained_weights(folder, tmp_path):
    fewer = {**DATA, "classes": [0, 1, 2]}
    config = {"data": {**fewer, "val_images": 30, "train_images": 60, "test_images": 30}, "seed": 0}
    assert run(gem_init, config, tmp_path, weights=folder / "init", out=tmp_path / "warm") == 0
    assert read_metadata(tmp_path / "warm")["model"]["num_classes"] == 3
    start, warm = read_arrays(folder / "init"), read_arrays(tmp_path / "warm")
    np.testing.assert_array_equal(warm["conv1.weight"], start["conv1.weight"])
    assert warm["fc.weight"].shape[0] == 3


def test_bad_input_ends_in_one_line(folder, gem, tmp_path, capsys):
    def message(code):
        assert code == 2
        lines = [x for x in capsys.readouterr().err.splitlines() if "error:" in x]
        assert len(lines) == 1
        return lines[0]

    code, _ = search(folder, "short", {**SEARCH, "iter_period": 9})
    assert "config.train.epochs" in message(code) and not (folder / "short/mask").exists()
    code, _ = search(folder, "bad", {**SEARCH, "algo": "ep", "invert": True})
    assert "invert" in message(code)
    code, _ = search(folder, "regularised", {**SEARCH, "algo": "hc", "lmbda": 10.0}, {**SCORES, "lr": 0.1})
    assert "lower lmbda" in message(code)
    assert "stopped at" in message(
        run(gem_ticket, {"target_sparsity": 1}, folder, order=gem["order"], out=tmp_path / "x")
    )
    assert "not a prune order" in message(
        run(gem_ticket, {"target_sparsity": 50}, folder, order=gem["out"], out=tmp_path / "x")
    )
    assert "needs model and init" in message(run(gem_init, {"data": DATA, "seed": 0}, folder, out=tmp_path / "x"))
    sparse = {"method": "smart_ratio", "remaining_percent": 0.1}
    code = run(prune, sparse, folder, weights=folder / "init", out=tmp_path / "x")
    assert "last layer alone" in message(code)
    files = {"init": folder / "init", "mask": gem["out"], "out": tmp_path / "x", "metrics": tmp_path / "y"}
    classes = {**SHARED, "data": {**DATA, "classes": [0, 1], "val_images": 20, "train_images": 40, "test_images": 20}}
    assert "pass it through gem_init first" in message(run(train, {**BEST, **classes}, folder, **files))
    assert not list(tmp_path.iterdir())
