"""The released rare-gems configurations (YAML, flat, in the paper's own words), checked and translated into an experiment.

Every key of those files is known here: it is translated, or it must have the one value that winnow's arithmetic stands for, or
it only says where and how to run. Anything else is refused with the nearest known key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from winnow.config.gems import InitName, Regularizer, ScoreInitName, SearchOptions
from winnow.errors import WinnowError
from winnow.pipelines.rare_gems.config import Experiment, RareGems
from winnow.schema import Part, key, parse

Policy = Literal["cosine_lr", "constant_lr", "multistep_lr"]
PROJECT = Path(__file__).resolve().parents[4]  # paths of released files may be relative to it
CIFAR = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
ARCHS = {"vgg16": "vgg16_cifar", "MobileNetV2": "mobilenet_v2_cifar", "WideResNet28": "wideresnet-28-2", "Conv4": "conv4"}


class Published(Part):
    """A released configuration, key by key."""

    # what is searched, and how
    algo: Literal["hc_iter", "hc", "ep", "global_ep", "global_ep_iter", "wt"] = key("algorithm")
    iter_period: int = key("epochs between hard prunes", 5, ge=1)
    arch: str = key("architecture")
    dataset: Literal["CIFAR10", "CIFAR100", "TinyImageNet", "Caltech101"] = key("dataset")
    name: str = key("name of the run; names the branch")
    optimizer: Literal["sgd", "adam"] = key("optimiser of the search", "sgd")
    lr: float = key("learning rate of the search", gt=0)
    lr_policy: Policy = key("schedule of the search", "cosine_lr")
    gamma: float = key("factor of multistep_lr", 0.1, gt=0)
    nesterov: bool = key("Nesterov momentum", False)
    fine_tune_optimizer: Literal["sgd", "adam"] = key("optimiser of fine-tuning", "sgd")
    fine_tune_lr: float = key("learning rate of fine-tuning", 0.01, gt=0)
    fine_tune_lr_policy: Policy = key("schedule of fine-tuning", "multistep_lr")
    fine_tune_wd: float = key("weight decay of fine-tuning", 1e-4, ge=0)
    epochs: int = key("epochs of the search, and again of fine-tuning", ge=1)
    wd: float = key("weight decay of the search", 0.0, ge=0)
    momentum: float = key("momentum", 0.9, ge=0, lt=1)
    batch_size: int = key("batch size", 128, ge=1)
    prune_type: Literal["BottomK", "LocalBottomK", "FixThresholding"] = key("hard prune", "BottomK")
    target_sparsity: float = key("percentage of the weights that shall REMAIN", gt=0, lt=100)
    unflag_before_finetune: bool = key("restore what the regulariser alone removed", True)
    init: InitName = key("initialisation of the weights", "signed_constant")
    score_init: ScoreInitName = key("initialisation of the scores", "unif")
    scale_fan: bool = key("scale the fans by what remains", False)
    round: Literal["naive", "prob"] = key("rounding", "naive")
    hc_quantized: bool = key("round in the forward pass", True)
    quantize_threshold: float = key("rounding threshold", 0.5, ge=0, lt=1)
    regularization: Regularizer | None = key("regulariser of the scores", None)
    lmbda: float = key("its factor", 1e-4, ge=0)
    rewind_score: bool = key("rewind the scores after a prune", False)
    skip_sanity_checks: bool = key("false: run the sanity checks", False)
    bn_type: Literal["NonAffineBatchNorm", "AffineBatchNorm"] = key("batch normalisation", "NonAffineBatchNorm")
    # fixed by what winnow computes
    conv_type: Literal["SubnetConv", "DenseConv"] = key("SubnetConv where scores are searched, DenseConv for wt", "SubnetConv")
    freeze_weights: Literal[True] = key("weights stay frozen in a search", True)
    bias: Literal[False] = key("layers have no bias", False)
    noise: bool = key("without effect while noise_ratio is 0", False)
    noise_ratio: float = key("noise on the rounded mask; only 0 is supported", 0.0, ge=0, le=0)
    differentiate_clamp: Literal[False] = key("the clamp is a projection, not a layer", False)
    project_freq: int = key("steps between projections; only 1 is supported", 1, ge=1, le=1)
    # where and how to run; changes no result
    subfolder: str | None = key("folder of the run; winnow has its own layout", None)
    seed: int | None = key("seed of the run; see the section's seeds", None)
    workers: int = key("loader processes; see the root's workers", 0, ge=0)
    gpu: int | None = key("GPU number; see the root's device", None)
    checkpoint_at_prune: bool = key("winnow always writes a ticket for every hard prune", False)


def milestones(epochs: int) -> list[int]:
    """The released multistep schedule: 100 epochs 50/80, 150 and 160 80/120, 200 100/150, 300 150/250, else 1/2 and 2/3."""
    known = {100: [50, 80], 150: [80, 120], 160: [80, 120], 200: [100, 150], 300: [150, 250]}
    return known.get(epochs, [epochs // 2, 2 * epochs // 3])


def _train(p: Published, optimizer: str, lr: float, policy: str, weight_decay: float) -> dict[str, Any]:
    schedule = policy.removesuffix("_lr")
    return {
        "epochs": p.epochs,
        "batch_size": p.batch_size,
        "optimizer": optimizer,
        "lr": lr,
        "momentum": p.momentum,
        "nesterov": p.nesterov,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "milestones": milestones(p.epochs) if schedule == "multistep" else [],
        "gamma": p.gamma,
    }


def _task(p: Published) -> tuple[dict[str, Any], dict[str, Any]]:
    """Data and model."""
    affine = p.bn_type == "AffineBatchNorm"
    model: dict[str, Any] = {"arch": ARCHS.get(p.arch, p.arch), "bn": "affine" if affine else "non_affine"}
    if p.dataset == "Caltech101":
        crop = {"image_size": 224, "train_crop": "resized", "test_resize": 256, "flip": True}
        return {"dataset": "imagefolder", "path": "caltech101", "val_images": 606, **crop}, {**model, **IMAGENET}
    small = {"train_crop": "pad", "flip": True, "val_images": 5000}
    model = {**model, "classifier": "conv1x1", "imagenet_stem": False}
    if p.dataset == "TinyImageNet":
        return {"dataset": "imagefolder", "path": "tiny-imagenet-200", **small}, {**model, **IMAGENET}
    return {"dataset": p.dataset.lower(), **small}, {**model, **CIFAR}


def translate(document: Any, name: str, path: str) -> Experiment:
    """The experiment `name` of a released configuration; raises WinnowError naming `path` and the key."""
    p = parse(Published, document, path)
    if (p.conv_type == "DenseConv") != (p.algo == "wt"):
        raise WinnowError(f"{path}.conv_type: {p.conv_type} does not go with algo {p.algo}; SubnetConv is for searches")
    data, model = _task(p)
    searched = p.algo != "wt"
    branch: dict[str, Any] = {
        "name": p.name.replace("-", "_"),
        "algo": p.algo,
        "train": _train(p, p.optimizer, p.lr, p.lr_policy, p.wd),
    }
    if searched:
        branch["search"] = {name: getattr(p, name) for name in SearchOptions.model_fields}
        branch["sanity"] = not p.skip_sanity_checks
    experiment = {
        "name": name,
        "dataset": p.dataset,
        "data": data,
        "model": model,
        "targets": [p.target_sparsity],
        "init": {"init": p.init, "scale_fan": p.scale_fan, "target_sparsity": p.target_sparsity if p.scale_fan else 100.0},
        "finetune": _train(p, p.fine_tune_optimizer, p.fine_tune_lr, p.fine_tune_lr_policy, p.fine_tune_wd),
        "branches": [branch],
    }
    return parse(Experiment, experiment, path)


def read_published(path: str) -> Experiment:
    """The experiment of a released YAML file, named after the file."""
    import yaml

    file = next((p for p in (Path(path), PROJECT / path) if p.is_file()), Path(path))
    if not file.is_file():
        raise WinnowError(f"config.rare_gems.from_files: {path}: no such file, neither here nor below {PROJECT}")
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WinnowError(f"{path}: not a readable YAML file ({error})") from None
    return translate(document, file.stem.replace("-", "_"), path)


def with_published(section: RareGems) -> RareGems:
    """The section with the experiments of its `from_files` added to its own."""
    added = [read_published(path) for path in section.from_files]
    if not added:
        return section
    try:
        return section.having(experiments=[*section.experiments, *added], from_files=[])
    except ValueError as error:
        raise WinnowError(f"config.rare_gems.from_files: {error}") from None
