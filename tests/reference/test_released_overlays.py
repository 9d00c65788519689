"""The papers' overlays against the released settings, so that no value of theirs drifts: rates, batches, epochs, decay,
lambda, init.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from winnow.config.root import load_files
from winnow.pipelines.rare_gems import grid
from winnow.pipelines.rare_gems.released import milestones, translate

PAPER = Path(__file__).resolve().parents[2] / "config/paper"
H, P = "configs/hypercube", "configs/param_tuning"
GEMS = {  # experiment -> target -> released file
    "resnet20_cifar10": {
        0.59: f"{H}/resnet20/resnet20_sparsity_0_59_unflagT_real.yml",
        1.44: f"{P}/resnet20_1_44/conf1.yml",
        3.72: f"{H}/resnet20/resnet20_sparsity_3_72_unflagT_real.yml",
    },
    "vgg16_cifar10": {
        0.5: f"{P}/vgg_0_5/conf2.yml",
        1.4: f"{P}/vgg_1_4/conf1.yml",
        2.5: f"{P}/vgg_2_5/conf1.yml",
        5: f"{P}/vgg_5/conf3.yml",
    },
    "mobilenet_v2_cifar10": {
        50: "configs/final_hc/mobilenet_50.yml",
        20: "configs/final_hc/mobilenet_20.yml",
        5: "configs/final_hc/mobilenet_5.yml",
        1.4: f"{P}/mobile_1_4/conf1.yml",
    },
    "wideresnet_28_2_cifar10": {
        1.4: f"{P}/wideresnet28_1_4/conf6.yml",
        2.3: f"{P}/wideresnet28_2_3/conf5.yml",
        5.5: f"{P}/wideresnet28_5_5/conf4.yml",
        20: f"{P}/wideresnet28_20/conf5.yml",
    },
    "resnet18_tinyimagenet": {0.5: f"{P}/tinyimgnet/resnet18_0_5/conf1.yml", 5: f"{P}/tinyimgnet/resnet18_5/conf1.yml"},
    "resnet50_tinyimagenet": {
        0.5: f"{P}/tinyimgnet/resnet50_0_5/conf1.yml",
        1.4: f"{P}/tinyimgnet/resnet50_1_4/conf1.yml",
    },
    "resnet50_caltech101": {2: f"{P}/caltech101/resnet50_2/conf1.yml", 5: f"{P}/caltech101/resnet50_5/conf1.yml"},
    "resnet32_cifar100": {
        2: f"{H}/resnet32/half_width_configs/resnet32_sparsity_2.yml",
        5: f"{H}/resnet32/half_width_configs/resnet32_sparsity_5_v2.yml",
    },
    "resnet18_cifar10": {
        0.5: f"{H}/resnet18/cifar10/sparsity_0_5_85lam6_iter_20_adam.yml",
        5: f"{H}/resnet18/cifar10/sparsity_5_3lam6_iter_20_adam.yml",
    },
}
POPUPS = {
    "resnet20_cifar10": "configs/ep/resnet20/resnet20_sc_ep.yml",
    "vgg16_cifar10": "configs/ep/vgg/vgg16_sc_ep.yml",
    "mobilenet_v2_cifar10": "configs/ep/mobilenetV2/cifar10_mobileV2_ep_sparsity_20.yml",
    "wideresnet_28_2_cifar10": "configs/ep/wideresnet28/wideresnet28_ep_target_sparsity_0_5.yml",
    "resnet18_tinyimagenet": "configs/ep/tinyImageNet/resnet18/sparsity_5.yml",
    "resnet18_cifar10": "configs/ep/resnet18/resnet18_sc_ep.yml",
}
GLOBAL_POPUPS = {
    "global_ep": "configs/ablation_ep_gm_resnet20_059/ks_global_ep.yml",
    "global_ep_iter": "configs/ablation_ep_gm_resnet20_059/ks_global_ep_iter.yml",
}
RANDOM = {
    "resnet20_cifar10": "configs/sr/resnet20/resnet20_sr.yml",
    "vgg16_cifar10": "configs/sr/vgg_sr.yml",
    "resnet18_tinyimagenet": "configs/sr/tiny_sr.yml",
    "resnet50_tinyimagenet": "configs/sr/tiny_sr_resnet50.yml",
    "resnet18_cifar10": "configs/sr/resnet18/cifar10_resnet18_sr.yml",
}
IMP = {
    "vgg16_cifar10": "configs/imp/vgg.yml",
    "mobilenet_v2_cifar10": "configs/imp/mobilenet.yml",
    "resnet18_tinyimagenet": "configs/imp/resnet18.yml",
    "resnet50_tinyimagenet": "configs/imp/resnet50.yml",
    "resnet32_cifar100": "configs/imp/resnet32_cifar100.yml",
}
DENSE = {
    "vgg16_cifar10": "configs/training/vgg16/vgg_WT.yml",
    "resnet18_tinyimagenet": "configs/training/resnet18/tiny_resnet18_training_preproc2_v3.yml",
    "resnet50_tinyimagenet": "configs/training/resnet50/tiny_resnet50_training_adam.yml",
    "resnet32_cifar100": "configs/training/resnet32/cifar100_resnet32_training.yml",
    "resnet18_cifar10": "configs/training/resnet18/cifar10_resnet18_training.yml",
}


ABLATION = {  # branch -> released file
    "edge_popup": "configs/ablation_ep_gm_resnet20_059/ep.yml",
    "global_ep": "configs/ablation_ep_gm_resnet20_059/ks_global_ep.yml",
    "global_ep_iter": "configs/ablation_ep_gm_resnet20_059/ks_global_ep_iter.yml",
    "global_ep_iter_with_reg": "configs/ablation_ep_gm_resnet20_059/ks_global_ep_iter_with_reg.yml",
    "gem_miner": f"{H}/resnet20/resnet20_sparsity_0_59_unflagT_real.yml",
}
WARM = {
    "warm_gem": "configs/warm_gm/resnet20/resnet20_sp1_44_warm_gm.yml",
    "warm_gem_strong": "configs/warm_gm/resnet20/resnet20_sp1_44_warm_gm_highreg.yml",
    "gem_miner": f"{P}/resnet20_1_44/conf1.yml",
}


@pytest.fixture(scope="module")
def released(shared):
    lines = (shared / "golden/released/configs.jsonl").read_text().splitlines()
    return {r["file"]: r["settings"] for r in map(json.loads, lines)}


@pytest.fixture(scope="module")
def gems():
    return load_files([PAPER / "rare_gems.yaml"], {"check_data": False})[0].rare_gems


def trained(train, s, *, epochs="epochs", weight_decay=5e-4, prefix=""):
    """The settings of a job's training are those of the released file."""
    policy = s.get(f"{prefix}lr_policy", "constant_lr").removesuffix("_lr")
    assert (train.lr, train.batch_size) == (s.get(f"{prefix}lr", 0.01 if prefix else 0.001), s["batch_size"])
    assert train.optimizer == (s.get("fine_tune_optimizer", "sgd") if prefix else s["optimizer"])
    assert (train.epochs, train.schedule, train.momentum) == (s[epochs], policy, s["momentum"])
    assert train.weight_decay == s.get(f"{prefix}wd", weight_decay)
    if train.optimizer == "sgd":
        assert train.nesterov == s.get("nesterov", False)
    if policy == "multistep":
        assert train.milestones == milestones(train.epochs) and train.gamma == s.get("lr_gamma", 0.1)


def fans(init, s):
    assert (init.init, init.scale_fan) == (s["init"], s.get("scale_fan", False))
    if init.scale_fan:
        assert init.target_sparsity == pytest.approx(100 * (1 - s.get("prune_rate", 0.5)))


def started(gems, experiment, branch):
    """The job that makes a branch's initial weights."""
    e, b = grid.find(gems, experiment, branch)
    return grid.init(gems, experiment, grid.init_name(e, b), "0").init


def test_gem_miner(gems, released):
    for experiment, files in GEMS.items():
        for target, file in files.items():
            s, name, spelled = released[file], f"gem_miner_{target:g}".replace(".", "_"), f"{target:g}"
            job = grid.search(gems, experiment, name, spelled, "search", "0")
            trained(job.train, s)
            assert job.search.target_sparsity == s["target_sparsity"] == target
            kept = (
                job.search.lmbda,
                job.search.regularization,
                job.search.iter_period,
                job.search.unflag_before_finetune,
            )
            assert kept == (
                s["lmbda"],
                s["regularization"],
                s["iter_period"],
                s.get("unflag_before_finetune", False),
            ), file
            assert (job.search.prune_type, job.search.round, job.search.hc_quantized) == (
                s["prune_type"],
                s["round"],
                True,
            )
            assert job.search.start == s["score_init"] and job.search.quantize_threshold == s["quantize_threshold"]
            trained(grid.finetune(gems, experiment, name, "0").train, s, weight_decay=1e-4, prefix="fine_tune_")
            if experiment != "resnet50_caltech101":  # which starts from ImageNet's weights
                fans(started(gems, experiment, name), s)


def test_edge_popup(gems, released):
    rows = [
        (e, b.name, f)
        for e, f in POPUPS.items()
        for b in next(x for x in gems.experiments if x.name == e).branches
        if b.algo == "ep"
    ]
    rows += [("resnet20_cifar10", name, file) for name, file in GLOBAL_POPUPS.items()]
    for experiment, name, file in rows:
        s = released[file]
        e, b = grid.find(gems, experiment, name)
        for target in grid.targets_of(e, b):
            job = grid.search(gems, experiment, name, f"{target:g}", "search", "0")
            trained(job.train, s)
            trained(grid.finetune(gems, experiment, name, "0").train, s, weight_decay=1e-4, prefix="fine_tune_")
            assert job.search.start == "kaiming_uniform" and not (job.search.regularization and job.search.lmbda)
            # files say one target each, the table has several
            kept = s.get("prune_rate", 0.5) if b.algo != "ep" else target / 100
            fans(started(gems, experiment, name), {**s, "prune_rate": kept})
            if b.algo == "global_ep_iter":
                assert job.search.iter_period == s["iter_period"]


def test_random_tickets(gems, released):
    for experiment, file in RANDOM.items():
        for name in ("random", "smart_ratio"):
            trained(
                grid.finetune(gems, experiment, name, "0").train, released[file], weight_decay=1e-4, prefix="fine_tune_"
            )
            fans(started(gems, experiment, name), released[file])


def test_imp(gems, released):
    for experiment, file in IMP.items():
        s = released[file]
        for name in ("imp_warm", "imp_cold", "imp_renda"):
            for number in ("0", "7"):
                job = grid.imp_train(gems, experiment, name, number, "0")
                trained(job.train, s, epochs="iter_period")
                assert job.keep == "last"
                assert job.rewind_iteration == (s["imp_rewind_iter"] if (name, number) == ("imp_warm", "0") else 0)
            assert grid.prune(gems, experiment, name, "round1", "0").remaining_percent == pytest.approx(
                100 * (1 - s["prune_rate"])
            )
            fans(started(gems, experiment, name), s)


def test_dense(gems, released):
    for experiment, file in DENSE.items():
        trained(grid.imp_train(gems, experiment, "dense", "0", "0").train, released[file])
        fans(started(gems, experiment, "dense"), released[file])


def test_networks_and_statistics(gems):
    archs = {e.name: e.model.arch for e in gems.experiments}
    assert archs == {
        "resnet20_cifar10": "resnet20", "vgg16_cifar10": "vgg16_cifar", "mobilenet_v2_cifar10": "MobileNetV2",
        "wideresnet_28_2_cifar10": "WideResNet28", "resnet18_tinyimagenet": "TinyResNet18",
        "resnet50_tinyimagenet": "ResNet50",
        "resnet50_caltech101": "ResNet50", "resnet32_cifar100": "resnet32_double",
        "resnet18_cifar10": "cResNet18",
    }  # fmt: skip
    from winnow.pipelines.rare_gems.released import STATISTICS

    for e in gems.experiments:
        assert {"mean": e.model.mean, "std": e.model.std} == STATISTICS.get(e.dataset, STATISTICS["ImageNet"])
        assert e.model.bn == ("affine" if e.name == "resnet50_caltech101" else "non_affine")


def test_caltech(gems, released):
    """Data and network as the released file's; the weights are ImageNet's, as the paper says."""
    for target, file in GEMS["resnet50_caltech101"].items():
        e, branch = grid.find(gems, "resnet50_caltech101", f"gem_miner_{target}")
        theirs = translate(released[file], "x", file)
        assert (e.data, e.model) == (theirs.data, theirs.model)
        assert (e.data.train_crop, e.data.flip, e.data.test_resize, e.data.image_size) == ("none", False, None, 224)
        assert (e.model.dropout, e.model.classifier) == (0.4, "conv1x1")
        assert branch.imported.torchvision == "ResNet50_Weights.IMAGENET1K_V1" and branch.imported_classes == 1000


def test_every_experiment_has_edge_popup_at_every_target(gems):
    for e in gems.experiments:
        popups = [t for b in e.branches if b.algo == "ep" for t in grid.targets_of(e, b)]
        assert sorted(popups) == sorted(e.targets), e.name


@pytest.mark.parametrize(("overlay", "files"), [("rare_gems_ablation", ABLATION), ("rare_gems_warm", WARM)])
def test_ablation_and_warm_gems(overlay, files, released):
    """Each branch is a released file's experiment, job for job."""
    section = load_files([PAPER / f"{overlay}.yaml"], {"check_data": False})[0].rare_gems
    (e,) = section.experiments
    assert {b.name for b in e.branches} - {"dense"} == set(files)
    for name, file in files.items():
        theirs = translate(released[file], "x", file)
        (their_branch,) = theirs.branches
        _, branch = grid.find(section, e.name, name)
        (target,) = grid.targets_of(e, branch)
        assert target == pytest.approx(theirs.targets[0]) and (e.data, e.model) == (theirs.data, theirs.model)
        assert branch.train == their_branch.train and (branch.finetune or e.finetune) == theirs.finetune
        ours, their_search = (grid.search(s, n, b, "5", "search", "0").search for s, n, b in (
            (section, e.name, name), (section.having(experiments=[theirs]), "x", their_branch.name)))  # fmt: skip
        unread = {"lmbda": 0} if ours.regularization is None else {}
        read = ("algo", "start", "regularization", "lmbda", *(["iter_period"] if ours.iterative else []))
        if ours.algo == "hc_iter":
            read += ("prune_type", "round", "hc_quantized", "quantize_threshold", "unflag_before_finetune")
        assert all(getattr(ours.having(**unread), n) == getattr(their_search.having(**unread), n) for n in read)
        if branch.weights is None:
            fans(started(section, e.name, name), released[file])
        else:
            source = grid.init_source(section, e.name, f"from-{name}", 3)
            assert source == f"results/rare_gems/{e.name}/dense/s3/imp/round0.safetensors"
