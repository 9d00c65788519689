"""Work, requests and the plan: counted against real networks, and in proportion to what the configuration asks for."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import SimpleNamespace

import pytest
from conftest import ATTACK, DIGITS, ROOT, TRAIN

from winnow.config.parts import Model
from winnow.config.text import TextModel
from winnow.pipelines import cost


def work(config, *rest):
    """TMAC of a job with this configuration."""
    return cost.work(json.dumps(config), *rest)


RESNET = Model(arch="resnet20")
TRANSFER = {"data": {**DIGITS, "image_size": None}, "train": TRAIN, "fraction": 1.0, "compute": {}, "seed": 0}


@pytest.fixture(scope="module")
def plan():
    spec = importlib.util.spec_from_file_location("plan", ROOT / "workflow/plan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("arch", [a for a in cost.NETWORKS if not a.startswith(("vgg16", "resnet101", "resnet152"))])
def test_networks_are_counted_as_they_are(arch):
    """Multiply-accumulates of convolutions and linear layers, and parameters, of the network itself at 1000 or 10
    classes.
    """
    torch = pytest.importorskip("torch")
    from winnow.vision.models import build

    macs, side, millions = cost.NETWORKS[arch]
    model = build(Model(arch=arch), 1000 if side == 224 else 10)
    counted = 0

    def count(layer, inputs, output):
        nonlocal counted
        counted += layer.weight[0].numel() * output.numel()

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    assert counted == pytest.approx(macs * 1e6, rel=0.1)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(millions * 1e6, rel=0.1)


def test_work_grows_as_the_configuration_does():
    one = work(TRANSFER, RESNET)
    assert one > 0 and work({**TRANSFER, "train": TRAIN | {"epochs": 4}}, RESNET) == pytest.approx(2 * one)
    assert work({**TRANSFER, "data": {**TRANSFER["data"], "image_size": 32}}, RESNET) == pytest.approx(16 * one)
    assert work(TRANSFER, Model(arch="resnet20", width=32)) == pytest.approx(4 * one)
    train, held_out = 60, 30
    passes = {s: train * (3 + 2 * s) + held_out * (1 + 2 * s) for s in (0, 2)}
    assert work({**TRANSFER, "attack": ATTACK}, RESNET) == pytest.approx(one * passes[2] / passes[0])
    assert work({"method": "magnitude", "remaining_percent": 80}, RESNET) == 0 == work(TRANSFER, None)


def test_attacks_count_where_they_run():
    pgd = {"eps": 0.1, "steps": 10, "restarts": 2}
    data = {**TRANSFER["data"], "test_images": 50}
    config = json.dumps({"data": data, "evaluation": {"attack": pgd, "l2_attack": pgd}})
    passes = {mode: cost.work(config, RESNET, SimpleNamespace(mode=mode)) for mode in ("std", "adv")}
    assert passes["adv"] / passes["std"] == pytest.approx(81 / 41)
    whole, half = (
        cost.work(json.dumps({"data": data, "autoattack": {"attacks": ["apgd-ce"], "images": n}}), RESNET)
        for n in (None, 25)
    )
    assert whole == pytest.approx(2 * half) and whole / passes["std"] == pytest.approx((1 + 0.4 * 200) / 41)


def test_slurm_jobs_and_requests_are_counted(plan):
    pair = [job(rule, TRANSFER, source="x", ticket=t) for t in ("a", "b") for rule in ("transfer_std", "evaluate")]
    packed = {plan.packs.job(j.rule.name, **vars(j.wildcards)): j.wildcards.ticket for j in pair}
    for j in pair:
        j.wildcards = vars(j.wildcards)
    text = plan.submissions(pair, packed)
    assert text.startswith("4 jobs for the cluster in 2 SLURM jobs, about 14 requests")
    assert plan.submissions(pair, {}).startswith("4 jobs for the cluster in 4 SLURM jobs, about 20 requests")
    assert "0.1 h if it counts submissions, 1.1 h if all requests" in plan.submissions(
        [SimpleNamespace(**vars(j)) for j in pair * 15], {}
    )


def test_masks_are_a_bit_a_weight_and_weights_four_bytes():
    weights = cost.parameters(RESNET)
    assert cost.output_bytes(["a.mask.safetensors"], RESNET) == weights / 8
    assert cost.output_bytes(["best_sa.safetensors"], RESNET) == 4 * weights
    assert cost.parameters(TextModel(source="pretrained", path="x")) > 1e8


def job(rule, config, benchmark=None, gpu=1, **wildcards):
    asked = {"mem_mb": 3000, "runtime": 20, "slurm_partition": "main"} | ({"gpu": gpu} if gpu else {})
    return SimpleNamespace(
        rule=SimpleNamespace(name=rule), threads=2, resources=asked, params=SimpleNamespace(config=json.dumps(config)),
        output=["results/x.mask.safetensors"], benchmark=benchmark, wildcards=SimpleNamespace(**wildcards),
    )  # fmt: skip


def test_recorded_times_are_scaled_by_work_and_the_table_says_where_it_guesses(plan, tmp_path):
    section = SimpleNamespace(source=SimpleNamespace(model=RESNET))
    root = SimpleNamespace(rare_gems=None, robust_bert=None, device="auto", double_win=section)
    (tmp_path / "a.tsv").write_text("s\tmax_rss\n3600\t100\n")
    done = job("transfer_std", TRANSFER, tmp_path / "a.tsv", source="x")
    twice = {**TRANSFER, "train": TRAIN | {"epochs": 4}}
    prune = job("imp_prune", {"method": "magnitude", "remaining_percent": 80}, gpu=0, source="x")
    waiting = [job("transfer_std", twice, source="x"), prune, job("imp_train", TRANSFER, source="x")]
    head, *rows, total = plan.table(root, waiting, [done], {"imp_prune"})
    by_rule = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert by_rule["transfer_std"]["GPU h"] == "2.0" and by_rule["transfer_std"]["CPU h"] == "4.0"
    assert by_rule["transfer_std"]["from"] == "1 finished jobs" and by_rule["imp_train"]["from"] == "estimate"
    assert by_rule["imp_prune"]["where"] == "here" and by_rule["imp_prune"]["gpu"] == "0"
    assert total[:4] == ["total", "3", "4.0", "2.0"]


def test_requests_that_no_partition_grants_are_named(plan, tmp_path, monkeypatch):
    sinfo = tmp_path / "sinfo"
    sinfo.write_text("#!/bin/sh\necho 'main|4|2000+|1-00:00:00'\necho 'big|64|64000|infinite'\n")
    sinfo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{sys.prefix}/bin:/usr/bin:/bin")
    wanted = job("pretrain", TRANSFER, source="x")
    assert plan.refused([wanted]) == [
        "pretrain asks for 2 threads, 3000 MB and 20 min: more than a node of partition main gives"
    ]
    wanted.resources["slurm_partition"] = "big"
    assert plan.refused([wanted]) == []
    wanted.resources["slurm_partition"] = "none"
    assert "there is no partition 'none'" in plan.refused([wanted])[0]
    assert plan.minutes("2-03:04:30") == 2 * 1440 + 184.5 and plan.minutes("30:00") == 30
