"""The released rare-gems configurations (YAML, flat, in the paper's own words), checked and translated into an
experiment.

Options mean what the released code makes of them, with its defaults: `prune_rate` counts only with
`override_prune_rate`, `wd` and not `weight_decay` is the weight decay, without `lr_policy` the rate is constant. What
it does not read there is logged; what winnow does not do is refused with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.config.gems import EDGE_POPUP, ITERATIVE, SearchOptions, prune_count
from winnow.errors import WinnowError, nearest
from winnow.pipelines.rare_gems.config import Experiment, RareGems
from winnow.pipelines.rare_gems.published import IMP_ROUNDS, Policy, Published, without_effect
from winnow.pipelines.rare_gems.released_options import DATASETS, ELSEWHERE, NETWORKS, NEVER_READ, REFUSED
from winnow.project import ROOT
from winnow.schema import parse

log = logging.getLogger("winnow")
PROJECT = ROOT  # paths of released files may be relative to it
STATISTICS = {
    "CIFAR10": {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]},
    "CIFAR100": {"mean": [0.5071, 0.4867, 0.4408], "std": [0.2675, 0.2565, 0.2761]},
    "TinyImageNet": {"mean": [0.4802, 0.4481, 0.3975], "std": [0.2302, 0.2265, 0.2262]},
    "ImageNet": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}
SIX_EPOCHS = 150  # a run of 6 epochs is scheduled as one of so many


def milestones(epochs: int) -> list[int]:
    """The released multistep schedule: 100 epochs 50/80, 150 and 160 80/120, 200 100/150, 300 150/250, else 1/2 and
    2/3.
    """
    known = {6: [80, 120], 100: [50, 80], 150: [80, 120], 160: [80, 120], 200: [100, 150], 300: [150, 250]}
    return known.get(epochs, [epochs // 2, 2 * epochs // 3])


def _train(
    p: Published, optimizer: str, lr: float, policy: Policy | None, weight_decay: float, epochs: int
) -> dict[str, Any]:
    schedule = (policy or "constant_lr").removesuffix("_lr")
    words = p.arch == "transformer"
    return {
        "epochs": epochs,
        "batch_size": p.batch_size,
        "optimizer": optimizer,
        "lr": lr,
        "momentum": p.momentum,
        "nesterov": p.nesterov,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "milestones": [] if schedule != "multistep" else [3] if words and epochs == 6 else milestones(epochs),
        "clip_norm": p.transformer_clip if words else None,
        "gamma": p.lr_gamma,
        "schedule_epochs": SIX_EPOCHS if schedule == "cosine" and epochs == 6 else None,
        "label_smoothing": p.label_smoothing or 0.0,
    }


def _task(p: Published, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Data and model."""
    if p.arch == "transformer":
        options = {
            "size": p.transformer_emsize, "hidden": p.transformer_nhid, "layers": p.transformer_nlayers,
            "heads": p.transformer_nhead, "dropout": p.transformer_dropout, "decoder_stays": True,
        }  # fmt: skip
        data = {"dataset": "wikitext", "path": Path(p.data).name, "window": p.transformer_bptt}
        return data, {"arch": p.arch, "language": options}
    model: dict[str, Any] = {
        "arch": {"vgg16": "vgg16_cifar"}.get(p.arch, p.arch),
        "bn": "affine" if p.bn_type == "AffineBatchNorm" else "non_affine",
        "classifier": "conv1x1",
        **STATISTICS.get(str(p.dataset), STATISTICS["ImageNet"]),
    }
    if p.width != 1:
        if not p.arch.startswith("Conv4"):
            raise WinnowError(f"{path}.width: {p.width:g} is for Conv4; {p.arch} has its own width")
        model["width"] = round(64 * p.width)
    if p.dataset == "Caltech101":
        return {"dataset": "imagefolder", "path": "caltech101", "image_size": 224, "val_images": 606}, {
            **model,
            "dropout": 0.4,
        }
    if p.dataset in ("ImageNet", "FfcvImageNet"):
        view = {"image_size": 224, "train_crop": "resized", "test_resize": 256, "flip": True, "val_images": 10000}
        return {"dataset": "imagenet", **view}, model
    small = {"train_crop": "pad", "flip": True, "val_images": 5000}
    if p.dataset == "TinyImageNet":
        return {"dataset": "imagefolder", "path": "tiny-imagenet-200", **small}, model
    return {"dataset": str(p.dataset).lower(), **small}, model


def remaining_percent(p: Published, path: str) -> float:
    """What the search leaves: of each layer for ep, of all weights otherwise.

    Without override_prune_rate the rate is p = 1 - (target / 100)^(1/n) with n = floor((epochs - 1) / iter_period): ep
    keeps 1 - p of each layer, global_ep removes p once, hc_iter and global_ep_iter remove p of what is left n times.
    Raises WinnowError for n = 0.
    """
    prunes = prune_count(p.epochs, p.iter_period)
    if (
        p.algo in (*ITERATIVE, *EDGE_POPUP)
        and prunes == 0
        and not (p.override_prune_rate and p.algo in ("ep", "global_ep"))
    ):
        raise WinnowError(
            f"{path}.epochs: {p.epochs} epochs hold no prune with iter_period {p.iter_period}, and the released code "
            f"divides by their "
            "number; take iter_period + 1 epochs or more"
        )
    if p.override_prune_rate and p.algo != "hc":
        if not 0 < p.prune_rate < 1:
            raise WinnowError(f"{path}.prune_rate: {p.prune_rate:g} must lie between 0 and 1")
        kept = p.prune_rate if p.algo == "ep" else 1 - p.prune_rate
        return 100 * (kept**prunes if p.algo in ITERATIVE else kept)
    if p.target_sparsity == 100:
        raise WinnowError(f"{path}.target_sparsity: 100 must be < 100")
    return 100 * (p.target_sparsity / 100) ** (1 / prunes) if p.algo in ("ep", "global_ep") else p.target_sparsity


def _branch(p: Published, path: str) -> tuple[dict[str, Any], list[float]]:
    """The branch of the table, and its targets."""
    name = "".join(c if c.isalnum() or c in "_." else "_" for c in p.name or p.kind)
    policy = "constant_lr" if p.arch == "transformer" and p.kind == "search" else p.lr_policy
    training = _train(p, p.optimizer, p.lr, policy, p.wd, p.epochs)
    if p.kind == "imp":
        training = _train(p, p.optimizer, p.lr, p.lr_policy, p.wd, p.iter_period)
        if not 0 < p.prune_rate < 1:
            raise WinnowError(f"{path}.prune_rate: {p.prune_rate:g} must lie between 0 and 1: what a round removes")
        rounds = IMP_ROUNDS if p.imp_rounds == -1 else p.imp_rounds
        rewind = "renda" if p.imp_no_rewind else "warm" if p.imp_rewind_iter else "cold"
        imp = {
            "rounds": rounds, "prune_percent": 100 * p.prune_rate, "rewind": rewind, "ranked": "last",
            "rewind_iteration": p.imp_rewind_iter,
        }  # fmt: skip
        return {"name": name, "algo": "imp", "train": training, "imp": imp}, [
            float(f"{100 * (1 - p.prune_rate) ** k:.6g}") for k in range(1, rounds + 1)
        ]
    if p.kind == "wt":
        return {"name": name, "algo": "wt", "train": training}, [50.0]
    if p.kind in ("random", "smart_ratio"):
        removed = p.prune_rate if p.kind == "random" else p.smart_ratio
        if not 0 < removed < 1:
            raise WinnowError(
                f"{path}: smart_ratio {p.smart_ratio:g} and prune_rate {p.prune_rate:g} leave open how much goes; set "
                f"one"
            )
        return {"name": name, "algo": p.kind, "sanity": not p.skip_sanity_checks}, [100 * (1 - removed)]
    search = {n: getattr(p, n) for n in SearchOptions.model_fields}
    search |= {
        "regularization": p.regularization if isinstance(p.regularization, str) else None,
        "score_init": None if p.algo in EDGE_POPUP else p.score_init,
    }
    found = {"name": name, "algo": p.algo, "train": training, "search": search, "sanity": not p.skip_sanity_checks}
    return found, [remaining_percent(p, path)]


def _fans(p: Published, path: str) -> dict[str, Any]:
    """Initialisation; fans are scaled by 1 - prune_rate as the file says it: the network is built before another rate
    is worked out.
    """
    if not p.scale_fan:
        return {"init": p.init}
    if p.prune_rate >= 1:
        raise WinnowError(
            f"{path}.scale_fan: fans times 1 - prune_rate = {1 - p.prune_rate:g} cannot be; lower prune_rate"
        )
    return {"init": p.init, "scale_fan": True, "target_sparsity": 100 * (1 - p.prune_rate)}


def _known(document: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The options that decide an experiment; what winnow refuses is refused here, and what nobody knows."""
    if "algo" not in document and {"num_epochs", "pruning_strategy"} & set(document):
        raise WinnowError(
            f"{path}: a configuration of the greedy program, which is not built; take a search of main.py"
        )
    for option, reasons in (("arch", NETWORKS), ("dataset", DATASETS)):
        if (reason := reasons.get(str(document.get(option)))) is not None:
            raise WinnowError(f"{path}.{option}: {document[option]}: {reason}; choose another")
    own: dict[str, Any] = {}
    for name, value in document.items():
        if name in Published.model_fields:
            own[name] = value
        elif name in REFUSED:
            harmless, reason = REFUSED[name]
            if not any(value is v or value == v for v in harmless):
                raise WinnowError(f"{path}.{name}: {value!r}: {reason}")
        elif name not in NEVER_READ and name not in ELSEWHERE:
            raise WinnowError(
                f"{path}.{name}: unknown key{nearest(str(name), [*Published.model_fields, *REFUSED, *ELSEWHERE])}"
            )
    return own


def translate(document: Any, name: str, path: str) -> Experiment:
    """The experiment `name` of a released configuration; raises WinnowError naming `path` and the key.

    What the file says and the run does not read is logged in one line.
    """
    p = parse(Published, _known(document, path) if isinstance(document, dict) else document, path)
    if p.kind == "search" and (p.conv_type == "DenseConv" or not p.freeze_weights):
        said = "conv_type: DenseConv" if p.conv_type == "DenseConv" else "freeze_weights: False"
        raise WinnowError(
            f"{path}.{said} does not go with algo {p.algo}: scores are searched over frozen weights; train with algo wt"
        )
    if p.rewind_score and p.rewind_to_epoch > 0:
        raise WinnowError(f"{path}.rewind_to_epoch: {p.rewind_to_epoch}: scores are rewound to their start; set 0")
    if p.kind == "smart_ratio" and p.sr_version != 1:
        raise WinnowError(
            f"{path}.sr_version: {p.sr_version}: only the published smart ratio, version 1, is built; set 1"
        )
    data, model = _task(p, path)
    branch, targets = _branch(p, path)
    tuned = _train(p, p.fine_tune_optimizer, p.fine_tune_lr, p.fine_tune_lr_policy, p.fine_tune_wd, p.epochs)
    experiment = {
        "name": name,
        "dataset": data["path"] if p.arch == "transformer" else p.dataset,
        "data": data,
        "model": model,
        "targets": targets,
        "init": _fans(p, path),
        "finetune": tuned,
        "branches": [branch],
    }
    made = parse(Experiment, experiment, path)
    if unread := without_effect(document, p):
        log.warning("%s: without effect: %s", path, ", ".join(unread))
    return made


def experiment_name(path: str) -> str:
    """The name of a file's experiment: its folders below `configs`, or its folder, and itself, joined by dots."""
    parts = Path(path).with_suffix("").parts
    below = parts[parts.index("configs") + 1 :] if "configs" in parts[:-1] else parts[-2:]
    plain = (
        "".join(c if c.isalnum() or c == "_" else "_" for c in part) for part in below if part not in ("/", ".", "..")
    )
    return ".".join(plain)


def read_published(path: str) -> Experiment:
    """The experiment of a released YAML file, named after the file and its folder."""
    import yaml

    file = next((p for p in (Path(path), PROJECT / path) if p.is_file()), Path(path))
    if not file.is_file():
        raise WinnowError(f"config.rare_gems.from_files: {path}: no such file, neither here nor below {PROJECT}")
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WinnowError(f"{path}: not a readable YAML file ({error})") from None
    return translate(document, experiment_name(path), path)


def with_published(section: RareGems) -> RareGems:
    """The section with the experiments of its `from_files` added to its own."""
    added = [read_published(path) for path in section.from_files]
    if not added:
        return section
    keys = {name: getattr(section, name) for name in RareGems.model_fields}
    joined = {**keys, "experiments": [*section.experiments, *added], "from_files": []}
    return parse(RareGems, joined, "config.rare_gems.from_files")
