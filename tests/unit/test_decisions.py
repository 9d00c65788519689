"""Where results are decided by one comparison: boundaries, counts and schedules against references, on inputs that sit
on the edge.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from winnow import Ticket, WinnowError
from winnow.artifacts import write_tensors
from winnow.config.parts import Train
from winnow.gems.order import draw, read_order
from winnow.gems.pruning import above_smallest, bottom_k, edge_popup_count, keep_top, local_bottom_k
from winnow.pipelines.rare_gems.config import PublishedGem
from winnow.pipelines.rare_gems.grid import Cell
from winnow.pipelines.rare_gems.table import measured, table
from winnow.schema import parse
from winnow.train.optim import lr_factor, make_optimizer


def train(**keys) -> Train:
    return parse(Train, {"epochs": 6, "batch_size": 8, "lr": 0.2, **keys}, "train")


def rates(scheduler, optimizer, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"] / 0.2)
        optimizer.step()
        scheduler.step()
    return found


def test_schedules_are_torchs_own():
    weight = [torch.nn.Parameter(torch.ones(1))]
    steps, per_epoch = 24, 4
    of = torch.optim.lr_scheduler
    sgd = torch.optim.SGD(weight, lr=0.2)
    config = train(schedule="multistep", milestones=[2, 4], gamma=0.3)
    expected = rates(of.MultiStepLR(sgd, [2, 4], gamma=0.3), sgd, 6)
    assert [lr_factor(config, s, per_epoch) for s in range(steps)] == pytest.approx(
        [r for r in expected for _ in range(per_epoch)]
    )
    assert [lr_factor(train(schedule="constant"), s, per_epoch) for s in range(steps)] == [1.0] * steps
    sgd = torch.optim.SGD(weight, lr=0.2)
    config = train(schedule="linear", warmup_fraction=0.25)
    linear = of.LambdaLR(sgd, lambda s: s / 6 if s < 6 else max(0.0, (24 - s) / 18))
    assert [lr_factor(config, s, per_epoch) for s in range(steps)] == pytest.approx(rates(linear, sgd, steps))
    assert lr_factor(config, steps, per_epoch) == 0.0
    assert lr_factor(train(schedule="linear", warmup_fraction=0.0625), 1, per_epoch) == pytest.approx(1 / 1.5)
    for keys, whole in (({}, 6), ({"schedule_epochs": 9}, 9), ({"schedule_epochs": 1}, 1)):
        sgd = torch.optim.SGD(weight, lr=0.2)
        expected = rates(of.CosineAnnealingLR(sgd, whole), sgd, 6)
        config = train(schedule="cosine", **keys)
        found = [lr_factor(config, s, per_epoch) for s in range(steps)]
        assert found == pytest.approx([r for r in expected for _ in range(per_epoch)], abs=1e-6), keys


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.9, False), (0.0, True)])
def test_nesterov_goes_with_momentum_alone(momentum, nesterov):
    made = make_optimizer(
        train(optimizer="sgd", momentum=momentum, nesterov=nesterov), [torch.nn.Parameter(torch.ones(1))]
    )
    assert made.param_groups[0]["nesterov"] is (nesterov and momentum > 0)


def test_a_ticket_lies_within_another_or_not():
    small, large = {"a": np.array([True, False, False])}, {"a": np.array([True, True, False])}
    assert Ticket(small).is_within(Ticket(large)) and Ticket(large).is_within(Ticket(large))
    assert not Ticket(large).is_within(Ticket(small))
    assert not Ticket(small).is_within(Ticket({"b": large["a"]})) and not Ticket(small).is_within(
        Ticket({**large, "b": large["a"]})
    )
    rows = Ticket({**large, "b": np.array([True] * 5)}).report()
    assert [r["remaining_percent"] for r in rows] == pytest.approx([200 / 3, 100.0, 700 / 8])
    assert [(r["total"], r["kept"]) for r in rows] == [(3, 2), (5, 5), (8, 7)]


def test_hard_prunes_on_the_edge():
    scores, alive = torch.tensor([0.4, 0.1, 0.3, 0.2, 0.9]), torch.tensor([True, True, True, True, False])
    none, threshold = bottom_k(scores, alive, 0.0)
    assert none.tolist() == alive.tolist() and threshold == -math.inf
    kept, threshold = bottom_k(scores, alive, 0.3)  # ceil(1.2) = 2 of 4 go
    assert kept.tolist() == [True, False, True, False, False] and threshold == pytest.approx(0.2)
    assert bottom_k(scores, torch.zeros(5, dtype=torch.bool), 0.5)[0].tolist() == [False] * 5


@pytest.mark.parametrize("count", range(-1, 8))
def test_the_largest_are_kept_ties_to_earlier_positions(count):
    values = torch.tensor([0.5, 0.1, 0.5, 0.9, 0.5, 0.2])
    kept = keep_top(values, count)
    order = sorted(range(6), key=lambda i: (-float(values[i]), i))[: max(count, 0)]
    assert kept.dtype == torch.bool and kept.tolist() == [i in order for i in range(6)]


@pytest.mark.parametrize("count", range(1, 5))
def test_the_largest_are_kept_among_some(count):
    values, among = torch.tensor([0.9, 0.1, 0.5, -0.2, 0.5, 0.7]), torch.tensor([False, True, True, True, True, False])
    order = sorted((i for i in range(6) if among[i]), key=lambda i: (-float(values[i]), i))[:count]
    assert keep_top(values, count, among).tolist() == [i in order for i in range(6)]


def test_edge_popup_by_hand():
    values = torch.tensor([0.4, -0.1, 0.3, 0.3, 0.9, 0.0])
    for removed, kept, threshold in ((0.0, [1] * 6, -math.inf), (0.2, [1, 0, 1, 1, 1, 0], -0.0 + float(values[5])),
                                     (0.5, [1, 0, 0, 0, 1, 0], 0.3), (1.0, [0] * 6, 0.9)):  # fmt: skip
        found, at = above_smallest(values, removed)
        assert found.int().tolist() == kept and float(at) == pytest.approx(threshold)
    assert [edge_popup_count(10, r) for r in (1.0, 0.5, 0.31, 0.05)] == [10, 5, 4, 1]  # int((1 - k) * n) go
    sizes = [3, 3]
    kept, threshold = local_bottom_k(values, torch.tensor([True] * 5 + [False]), 0.4, sizes)
    assert kept.tolist() == [True, False, False, False, True, False] and threshold == pytest.approx(0.3)


def test_an_order_is_read_as_such_alone(tmp_path):
    arrays = {"a.level": np.array([1, 2], np.int16), "a.score": np.array([0.5, 0.25], np.float32)}
    write_tensors(tmp_path / "order.safetensors", arrays, {"kind": "prune_order"})
    levels, scores = read_order(tmp_path / "order.safetensors")
    assert levels["a"].tolist() == [1, 2] and scores["a"].tolist() == [0.5, 0.25]
    write_tensors(tmp_path / "weights.safetensors", arrays, {"kind": "weights"})
    with pytest.raises(WinnowError, match="not a prune order"):
        read_order(tmp_path / "weights.safetensors")


def test_an_order_gives_up_weights_level_by_level():
    levels, scores = (
        {"a": np.array([1, 2, 3, 1, 2, 3], np.int16)},
        {"a": np.array([0.1, 0.5, 0.9, 0.2, 0.4, 0.8], np.float32)},
    )
    kept = {n: draw(levels, scores, n / 6)["a"].nonzero()[0].tolist() for n in range(2, 7)}
    assert kept == {2: [2, 5], 3: [1, 2, 5], 4: [1, 2, 4, 5], 5: [1, 2, 3, 4, 5], 6: [0, 1, 2, 3, 4, 5]}


def cell(**keys) -> Cell:
    return Cell(
        **{
            "experiment": "e",
            "dataset": "d",
            "arch": "r",
            "branch": "b",
            "algo": "hc",
            "target": 5.0,
            "round": 1,
            "sanity": True,
            "seed": 0,
        }
        | keys
    )


def gems(before: float, after: float, checks: dict[str, float] | None, margin: float = 2.0, above: float = 3.0):
    """The row of one ticket of a task with 10 classes."""
    metrics = {
        "remaining_percent": 5.0,
        "acc_before": before,
        "acc_after": after,
        "acc_last": after - 1,
        "num_classes": 10,
    }
    found = {"checks": {k: {"acc_after": v, "acc_before": v / 2} for k, v in (checks or {}).items()}}
    made = cell(sanity=checks is not None)
    return table([made], lambda path: metrics if path == made.metrics else found, margin, above, []).iloc[0]


def test_what_makes_a_gem():
    checks = {"reinit": 70.0, "shuffle": 71.0, "invert": 60.0}
    # above the best check by more than the margin; at chance and 3 points
    assert gems(13.0, 73.1, checks)["is_gem"] == 1
    assert gems(13.0, 73.0, checks)["is_gem"] == 0  # by the margin alone
    assert gems(12.9, 73.1, checks)["is_gem"] == 0
    row = gems(13.0, 80.0, checks)
    assert (row["reinit_acc"], row["shuffle_acc"], row["invert_acc"], row["acc_last_mean"]) == (70, 71, 60, 79)
    assert (row["reinit_acc_before"], row["acc_before"], row["seeds"]) == (35, 13, 1) and math.isnan(
        row["robust_acc_before"]
    )


def test_rows_are_means_and_spreads_of_their_own_columns_beside_the_published():
    figures = {0: (10.0, 40.0, 30.0), 1: (14.0, 46.0, 31.0)}  # before, after, last

    def read(path):
        seed = int(path.split("/s")[1][0])
        before, after, last = figures[seed]
        if "sanity" in path:
            checks = {"reinit": (20.0, 1.0), "shuffle": (22.0, 2.0), "invert": (24.0, 3.0)}
            return {"checks": {n: {"acc_after": a + seed, "acc_before": b + seed} for n, (a, b) in checks.items()}}
        return {"acc_before": before, "acc_after": after, "acc_last": last, "remaining_percent": 5.0 + seed,
                "num_classes": 10, "robust_acc_before": before / 2, "robust_acc_after": after / 2,
                "perplexity_before": 100 + before, "perplexity_after": after + seed}  # fmt: skip

    published = [parse(PublishedGem, {"experiment": "e", "branch": "b", "remaining_percent": 5.0, "acc_before": 33.0,
                                      "acc_after": 44.0})]  # fmt: skip
    cells = [cell(branch=b, seed=s) for b in ("z", "b") for s in (0, 1)]
    rows = table(cells, read, 2.0, 3.0, published)
    assert list(rows["branch"]) == ["z", "b"]  # the grid's order
    assert rows.iloc[0][["published_acc_before", "published_acc_after"]].isna().all()
    row = rows.iloc[1].drop(["experiment", "dataset", "arch", "branch", "algo"])
    assert dict(row) == pytest.approx({
        "target_remaining_percent": 5.0, "remaining_percent": 5.5, "seeds": 2, "acc_before": 12.0,
        "acc_before_std": 8**0.5, "acc_after_mean": 43.0, "acc_after_std": 18**0.5, "acc_last_mean": 30.5,
        "reinit_acc": 20.5, "shuffle_acc": 22.5, "invert_acc": 24.5, "reinit_acc_std": 0.5**0.5,
        "shuffle_acc_std": 0.5**0.5, "invert_acc_std": 0.5**0.5, "reinit_acc_before": 1.5, "shuffle_acc_before": 2.5,
        "invert_acc_before": 3.5, "robust_acc_before": 6.0, "robust_acc_after_mean": 21.5, "is_gem": 0,
        "is_gem_seeds": 2, "is_gem_margin_se": (12 - 10 - 3) / 2, "published_acc_before": 33.0,
        "published_acc_after": 44.0, "perplexity_before": 112.0, "perplexity_before_std": 8**0.5,
        "perplexity_after_mean": 43.5, "perplexity_after_std": 24.5**0.5,
    }, abs=1e-5)  # fmt: skip


def test_the_columns_of_one_run():
    metrics = {"remaining_percent": 5.0, "acc_before": 1.0, "acc_after": 2.0, "acc_last": 3.0, "num_classes": 4}
    assert measured(metrics, None) == {
        "remaining_percent": 5.0,
        "acc_before": 1.0,
        "acc_after": 2.0,
        "acc_last": 3.0,
        "chance": 25.0,
    }
    robust = measured(
        metrics | {"robust_acc_before": 6.0, "robust_acc_after": 7.0},
        {"checks": {"reinit": {"acc_after": 8.0, "acc_before": 9.0}}},
    )
    assert (
        robust["robust_acc_before"],
        robust["robust_acc_after"],
        robust["reinit_acc"],
        robust["reinit_acc_before"],
    ) == (
        6,
        7,
        8,
        9,
    )
