"""Every artifact is made from what it must be made from: a workflow in which no two stages are told the same, run once.

The meaning of the grid is written down in wiring_meaning.py, apart from the code. A stage's record says what it read;
that it used what it read is checked on the tensors here, and stage by stage in tests/unit/test_wiring_stages.py.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest

from winnow import Ticket
from winnow.artifacts import read_arrays, read_metadata

from .wiring_grid import CONFIG, SEEDS, figures, table_parents, transfer_folder, transfers
from .wiring_meaning import differences, meaning_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def records(wired) -> dict[str, dict[str, Any]]:
    """Path -> what the artifact says of its making, for every artifact that has a record."""
    found = {}
    for path in sorted((wired / "results").rglob("*")):
        name = path.relative_to(wired).as_posix()
        if path.suffix == ".safetensors" and not path.with_name("winnow.json").exists():
            found[name] = read_metadata(path)
        elif path.name == "winnow.json":
            found[name] = json.loads(path.read_text())
        elif path.suffix == ".json" and not path.with_name("winnow.json").exists():
            found[name] = json.loads(path.read_text())["provenance"]
    return found


@pytest.mark.parametrize("pipeline", ["double_win", "robust_bert", "rare_gems"])
def test_each_artifact_is_made_from_the_right_parents_with_the_right_settings(records, pipeline):
    wrong, known = [], 0
    for path, about in records.items():
        if not path.startswith(f"results/{pipeline}/"):
            continue
        meaning = meaning_of(CONFIG, path)
        if meaning is None:
            wrong.append(f"{path}: nobody knows what it means")
            continue
        known += 1
        parents = {role: p["path"] for role, p in about["parents"].items()}
        found = [f"parent {d}" for d in differences(meaning.parents, parents)]
        found += [f"parent {role}: {parents[role]}, must be absent" for role in set(parents) - set(meaning.parents)]
        found += differences(meaning.config, about["config"])
        if about["stage"] != meaning.stage:
            found.append(f"stage: {about['stage']}, must be {meaning.stage}")
        wrong += [f"{path}: {d}" for d in found]
    assert not wrong, f"{len(wrong)} differences:\n" + "\n".join(wrong[:30])
    assert known >= 100


def test_the_tables_are_made_of_every_run_and_of_nothing_else(records):
    read = {
        t: {p["path"] for p in records[f"results/tables/{t}.json"]["parents"].values()}
        for t in CONFIG
        if t != "checkpoint_seconds"
    }
    assert read == table_parents()


def kept_by_magnitude(
    weights: dict[str, np.ndarray], names: list[str], count: int, within: Ticket | None, sign: int = 1
) -> dict[str, np.ndarray]:
    """The `count` largest magnitudes of all layers together, as plainly as it can be said (no ties in drawn floats);
    sign -1: the smallest.
    """
    sizes = {n: sign * np.abs(weights[n]) for n in names}
    sizes = {n: np.where(within.arrays[n], s, -np.inf) if within else s for n, s in sizes.items()}
    threshold = np.sort(np.concatenate([s.reshape(-1) for s in sizes.values()]))[-count]
    return {n: s >= threshold for n, s in sizes.items()}


def test_tickets_rank_the_weights_that_they_name_as_parents(wired, records):
    seen = set()
    for path, about in records.items():
        if about["stage"] != "prune" or about["config"]["method"] != "magnitude":
            continue
        parents = {role: wired / p["path"] for role, p in about["parents"].items()}
        file = parents["weights"]
        weights = read_arrays(file.with_name("model.safetensors") if file.name == "winnow.json" else file)
        ticket, last = Ticket.load(wired / path), Ticket.load(parents["mask"]) if "mask" in parents else None
        config = about["config"]
        assert ticket.kept == round(config["remaining_percent"] / 100 * ticket.total), path
        sign = -1 if config["label"] == "imp_inverted" else 1
        expected = kept_by_magnitude(weights, list(ticket.arrays), ticket.kept, last, sign)
        different = sum(int((ticket.arrays[n] != expected[n]).sum()) for n in expected)
        assert different == 0, (path, different)
        seen.add((path.split("/")[1], config["label"]))
    assert seen == {
        ("double_win", "imp"), ("double_win", "omp"), ("robust_bert", "magnitude"), ("rare_gems", "imp"),
        ("rare_gems", "imp_inverted"),
    }  # fmt: skip


def test_drawn_text_tickets_keep_the_highest_scores_of_their_epoch(wired, records):
    checked = 0
    for path, about in records.items():
        if about["stage"] == "draw_ticket":
            scores, ticket = read_arrays(wired / about["parents"]["scores"]["path"]), Ticket.load(wired / path)
            lowest = min(float(scores[n][m].min()) for n, m in ticket.arrays.items() if m.any())
            highest = max(float(scores[n][~m].max()) for n, m in ticket.arrays.items() if not m.all())
            assert lowest >= highest and ticket.kept == ticket.total - round(
                about["config"]["removed_fraction"] * ticket.total
            )
            epoch, seed = int(path.rpartition("robust-")[2][0]), int(path.split("/")[4].removeprefix("s"))
            assert (ticket.metadata["search_epoch"], ticket.metadata["search_seed"]) == (epoch, seed)
            checked += 1
    assert checked == 2 * 2 * 2 * 2
    first, second = (
        read_arrays(wired / f"results/robust_bert/tiny_bert/short/s3/scores/epoch-{e}.safetensors") for e in (1, 2)
    )
    assert any(not np.array_equal(first[n], second[n]) for n in first)


def test_trained_weights_are_zero_where_the_ticket_that_they_name_removes(wired, records):
    checked = dict.fromkeys(("train", "transfer", "finetune_text"), 0)
    for path, about in records.items():
        if about["stage"] not in checked or path.endswith(".mask.safetensors") or "mask" not in about["parents"]:
            continue
        file = wired / path
        if file.name == "winnow.json":
            file = file.with_name("model.safetensors")
        if file.suffix == ".safetensors":
            weights, ticket = read_arrays(file), Ticket.load(wired / about["parents"]["mask"]["path"])
            for name, mask in ticket.arrays.items():
                assert not weights[name][~mask].any(), (path, name)
            moved = sum(int(np.count_nonzero(weights[n][m])) for n, m in ticket.arrays.items())
            assert moved >= 0.999 * ticket.kept, path
            checked[about["stage"]] += 1
    assert all(checked.values()), checked


def test_figures_are_of_the_split_they_say(wired):
    """43 of 43 held-out images are no 31 of 31 test images: the sizes of the splits are told apart by the figures
    themselves.
    """

    def is_of(size: int, values: list[float]) -> bool:
        return all(abs(v * size / 100 - round(v * size / 100)) < 1e-6 for v in values)

    held, test = [], []
    for p, s, d, f, t, mode in transfers():
        folder = transfer_folder(p, s, d, f, t, mode)
        data = next(x["data"] for x in CONFIG["double_win"]["downstreams"] if x["name"] == d)
        transfer, evaluation = figures(wired, f"{folder}/transfer.json"), figures(wired, f"{folder}/evaluation.json")
        assert transfer["train_images"] == round(data["train_images"] * f / 100)
        epochs = [e[k] for e in transfer["epochs"] for k in ("val_sa", *(["val_ra"] if mode == "adv" else []))]
        measured = [
            v
            for k in ("best_sa", "best_ra")
            if k in evaluation
            for n, v in evaluation[k].items()
            if n in ("sa", "ra", "l2_ra")
        ]
        assert evaluation["test_images"] == data["test_images"]
        assert is_of(data["val_images"], epochs) and is_of(data["test_images"], measured)
        assert transfer["best"] == {m: max(e[m] for e in transfer["epochs"]) for m in transfer["best"]}
        held += [(data["test_images"], v) for v in epochs]
        test += [(data["val_images"], v) for v in measured]
    # and they are not so by chance: of the other split most would not be
    assert np.mean([is_of(*(n, [v])) for n, v in held]) < 0.5 and np.mean([is_of(n, [v]) for n, v in test]) < 0.5
    for file in (wired / "results/rare_gems/one").rglob("tuned/*.json"):
        found = json.loads(file.read_text())
        assert is_of(31, [v for k, v in found.items() if "acc_" in k]) and is_of(
            43, [e["val_sa"] for e in found["epochs"]]
        )
        watch = "val_ra" if "robust_acc_after" in found else "val_sa"
        assert found["val_best"] == max(e[watch] for e in found["epochs"]) and found["num_classes"] == 4
    for s, p in product(SEEDS, ("plain", "fast", "pgd")):
        found = figures(wired, f"results/double_win/src/{p}/s{s}/dense.json")
        assert is_of(31, [found["test_sa"]]) and is_of(43, [e["val_sa"] for e in found["epochs"]])


def test_a_random_ticket_has_its_twin_s_counts_and_another_seed_other_positions(wired):
    found = []
    for s in SEEDS:
        folder = wired / f"results/double_win/src/plain/s{s}/tickets"
        imp, drawn = (Ticket.load(folder / f"{n}-std-2.mask.safetensors") for n in ("imp", "random"))
        assert {n: int(m.sum()) for n, m in imp.arrays.items()} == {n: int(m.sum()) for n, m in drawn.arrays.items()}
        assert any((imp.arrays[n] != m).any() for n, m in drawn.arrays.items())
        found.append(drawn)
    assert any((found[0].arrays[n] != found[1].arrays[n]).any() for n in found[0].arrays)


def test_a_released_ticket_is_the_one_that_was_exported_and_its_weights_are_those_beside_it(wired):
    for s in SEEDS:
        chain = wired / "results/double_win/src"
        names = (f"plain/s{s}/tickets/imp-std-2", f"imported/s{s}/tickets/extra-released")
        own, back = (Ticket.load(chain / f"{n}.mask.safetensors") for n in names)
        assert all((own.arrays[n] == back.arrays[n]).all() for n in own.arrays)
        dense, again = (read_arrays(chain / f"{p}/s{s}/dense.safetensors") for p in ("plain", "imported"))
        assert all((dense[n] == again[n]).all() for n in dense)
