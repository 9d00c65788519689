"""The options of the released rare-gems code that decide an experiment, with its defaults, and which of them a run
reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from winnow.config.gems import InitName, Regularizer, ScoreInitName
from winnow.pipelines.rare_gems.released_options import ELSEWHERE, NEVER_READ
from winnow.schema import Part, key

Policy = Literal["cosine_lr", "constant_lr", "multistep_lr"]
IMP_ROUNDS = 30


class Published(Part):
    """A released configuration, key by key, as far as it decides an experiment; defaults are those of the released
    parser.
    """

    algo: Literal["hc_iter", "hc", "ep", "global_ep", "global_ep_iter", "imp", "training", "wt"] = key(
        "algorithm", "ep"
    )
    weight_training: bool = key("train the dense network instead", False)
    random_subnet: bool = key("fine-tune a random ticket instead: by the smart ratio if smart_ratio is set", False)
    smart_ratio: float = key("fraction that the smart ratio removes; -1: a uniform random ticket", -1, lt=1)
    sr_version: int = key("version of the smart ratio; only 1 is built", 1)
    iter_period: int = key("epochs between hard prunes; of an IMP round", 5, ge=1)
    arch: str = key("architecture")
    width: float = key("factor on the channels of Conv4", 1.0, gt=0)
    dataset: Literal["CIFAR10", "CIFAR100", "TinyImageNet", "Caltech101", "ImageNet", "FfcvImageNet"] | None = key(
        "dataset; the transformer has its text in data", None
    )
    data: str = key("folder of the transformer's text", "data/datasets/")
    transformer_emsize: int = key("width of the transformer's embeddings", 200)
    transformer_nhid: int = key("width of its feed-forward parts", 200)
    transformer_nlayers: int = key("its blocks", 2)
    transformer_nhead: int = key("its attention heads", 2)
    transformer_dropout: float = key("its dropout", 0.2)
    transformer_bptt: int = key("words that pass through it at once", 35)
    transformer_clip: float = key("largest norm of its gradient", 0.25)
    name: str | None = key("name of the run; names the branch", None)
    optimizer: Literal["sgd", "adam"] = key("optimiser of the search", "sgd")
    lr: float = key("learning rate of the search", 0.001, gt=0)
    lr_policy: Policy | None = key("schedule of the search; null: constant", None)
    lr_gamma: float = key("factor of multistep_lr", 0.1, gt=0)
    nesterov: bool = key("Nesterov momentum", False)
    fine_tune_optimizer: Literal["sgd", "adam"] = key("optimiser of fine-tuning", "sgd")
    fine_tune_lr: float = key("learning rate of fine-tuning", 0.01, gt=0)
    fine_tune_lr_policy: Policy | None = key("schedule of fine-tuning; null: constant", None)
    fine_tune_wd: float = key("weight decay of fine-tuning", 1e-4, ge=0)
    epochs: int = key("epochs of the search, and again of fine-tuning", 10, ge=1)
    wd: float = key("weight decay of the search, on the scores", 5e-4, ge=0)
    momentum: float = key("momentum", 0.9, ge=0, lt=1)
    batch_size: int = key("batch size", 64, ge=1)
    label_smoothing: float | None = key("label smoothing", None, ge=0, lt=1)
    prune_type: Literal["BottomK", "LocalBottomK", "FixThresholding"] = key("hard prune", "FixThresholding")
    prune_rate: float = key(
        "fraction kept (ep) or removed (others), read with override_prune_rate; scales the fans", 0.5
    )
    override_prune_rate: bool = key("prune_rate counts; false: it follows from target_sparsity", False)
    target_sparsity: float = key("percentage of the weights that shall REMAIN", 0.5, gt=0, le=100)
    unflag_before_finetune: bool = key("restore what the regulariser alone removed", False)
    init: InitName = key("initialisation of the weights", "kaiming_normal")
    score_init: ScoreInitName = key("initialisation of the scores; edge-popup has its own", "unif")
    scale_fan: bool = key("multiply the fans by 1 - prune_rate", False)
    round: Literal["naive", "prob"] = key("rounding", "naive")
    hc_quantized: bool = key("round in the forward pass", False)
    quantize_threshold: float = key("rounding threshold", 0.5, ge=0, lt=1)
    regularization: Regularizer | bool | None = key("regulariser of the scores; true names none, so adds none", None)
    lmbda: float = key("its factor", 1e-3, ge=0)
    rewind_score: bool = key("rewind the scores after a prune", False)
    rewind_to_epoch: int = key("epoch whose scores are rewound to; only the start (-1, 0) is built", -1)
    skip_sanity_checks: bool = key("false: run the sanity checks", False)
    bn_type: Literal["NonAffineBatchNorm", "AffineBatchNorm"] = key("batch normalisation", "NonAffineBatchNorm")
    conv_type: Literal["SubnetConv", "DenseConv"] = key("SubnetConv where scores are searched", "SubnetConv")
    freeze_weights: bool = key("weights stay frozen in a search", True)
    noise: bool = key("without effect while noise_ratio is 0", False)
    imp_rewind_iter: int = key("optimisation step that IMP rewinds to", 1000, ge=0)
    imp_no_rewind: bool = key("IMP goes on from what it trained", False)
    imp_rounds: int = key(f"rounds of IMP; -1: {IMP_ROUNDS}", -1, ge=-1)

    def check(self) -> None:
        """Images come from a data set."""
        if self.dataset is None and self.arch != "transformer":
            raise ValueError("dataset: required key is missing (dataset)")

    @property
    def kind(self) -> str:
        """What is run."""
        if self.algo == "imp":
            return "imp"
        if self.random_subnet:
            return "random" if self.smart_ratio < 0 else "smart_ratio"
        return "wt" if self.weight_training or self.algo in ("training", "wt") else "search"


READ_BY = {  # options that only some kinds of run read
    "imp": ("iter_period", "imp_rewind_iter", "imp_no_rewind", "imp_rounds"),
    "wt": (),
    "random": (),
    "smart_ratio": ("sr_version",),
    "search": (
        *(
            "iter_period",
            "override_prune_rate",
            "target_sparsity",
            "score_init",
            "regularization",
            "rewind_score",
            "rewind_to_epoch",
        ),
        *(
            "prune_type",
            "round",
            "hc_quantized",
            "quantize_threshold",
            "lmbda",
            "unflag_before_finetune",
            "skip_sanity_checks",
            "noise",
        ),
    ),
}
SEARCHED = ("fine_tune_optimizer", "fine_tune_lr", "fine_tune_lr_policy", "fine_tune_wd")


def without_effect(document: Mapping[str, Any], p: Published) -> list[str]:
    """What the file says and this run does not read, each with where winnow sets it, if it does."""
    found = [f"{n} ({ELSEWHERE[n]})" if ELSEWHERE.get(n) else n for n in document if n in NEVER_READ or n in ELSEWHERE]
    others = {n for kind in READ_BY.values() for n in kind} - set(READ_BY[p.kind])
    if p.arch == "transformer":
        found = [n for n in found if not n.startswith("data ")]
        others |= {"dataset", "bn_type"} | ({"lr_policy"} if p.kind == "search" else set())
    else:
        others |= {n for n in type(p).model_fields if n.startswith("transformer_")}
    if p.kind == "imp":
        others |= {*SEARCHED, "epochs"}
    if p.kind in ("random", "smart_ratio"):
        others = (others - {"skip_sanity_checks"}) | {"optimizer", "lr", "lr_policy", "wd"}
    if p.kind == "wt":
        others |= set(SEARCHED)
    if p.kind == "search":
        unread = {"hc_iter": (), "hc": ("prune_type",)}.get(
            p.algo,
            ("score_init", "prune_type", "round", "hc_quantized", "quantize_threshold", "unflag_before_finetune"),
        )
        others |= set(unread)
        if p.regularization is True:
            others.add("regularization")
        if not p.override_prune_rate and not p.scale_fan:
            others.add("prune_rate")
        if p.override_prune_rate and p.algo != "hc":
            others.add("target_sparsity")
    return found + [n for n in document if n in others]
