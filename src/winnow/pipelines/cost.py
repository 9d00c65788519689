"""What a job costs, from its configuration alone: arithmetic, parameters and bytes, before anything has run.

Work is counted in TMAC, 10^12 multiply-accumulates of convolutions and linear layers. A forward pass is 1, a backward
pass to the weights 2 and one to the image alone 1, so a training step costs 3 and every attack step in it 2 more. The
counts are right to within tens of percent: they scale requests and estimates, they are no measurement.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from winnow.config.architectures import LANGUAGE
from winnow.config.parts import LanguageNetwork, Model
from winnow.config.public_data import OTHER, PUBLIC
from winnow.config.text import TextModel
from winnow.pipelines import named

if TYPE_CHECKING:
    from winnow.config.root import Root

# (10^6 MAC of one image, side it is counted at, 10^6 parameters), from the papers and torchvision's tables
NETWORKS = {
    "resnet8": (12.5, 32, 0.08), "resnet14": (27, 32, 0.17), "resnet20": (41, 32, 0.27), "resnet32": (69, 32, 0.46),
    "resnet44": (98, 32, 0.66), "resnet56": (126, 32, 0.85), "vgg16_cifar": (313, 32, 14.7),
    "mobilenet_v2_cifar": (94, 32, 2.3),
    "wideresnet-28-2": (213, 32, 1.5), "conv4": (98, 32, 2.4), "resnet18": (1820, 224, 11.7),
    "resnet34": (3670, 224, 21.8),
    "resnet50": (4110, 224, 25.6), "resnet101": (7800, 224, 44.5), "resnet152": (11500, 224, 60.2),
    "vgg16": (15470, 224, 138.4), "mobilenet_v2": (300, 224, 3.5),
}  # fmt: skip
OTHER_NETWORK = (4110, 224, 25.6)  # any other torchvision classifier counts as a ResNet-50
# 10^6 weights that a token passes through, 10^6 parameters; what `source: pretrained` counts as
BERT_BASE = (85.0, 110.0)
# training and test words of corpora; those of the user's own count as WikiText-2, and so does their vocabulary
CORPORA, WORDS = {"sentences": (83318, 8345), "wikitext": (2088628, 245569)}, 33278
# forward passes on an image that withstands them
AUTOATTACK = {"apgd-ce": 200, "apgd-t": 1800, "fab-t": 1800, "square": 5000}
WITHSTANDS = 0.4  # of the images; the others leave AutoAttack early
QUERIES = 200  # model calls of a text attack on one example, in the papers' order of magnitude


def model_of(root: Root, wildcards: Any) -> Model | TextModel | None:
    """The network that a job's wildcards stand for; None for jobs without one."""
    if root.rare_gems and hasattr(wildcards, "experiment"):
        return named(root.rare_gems.experiments, wildcards.experiment).model
    if root.robust_bert and hasattr(wildcards, "task"):
        return root.robust_bert.model
    return root.double_win.source.model if root.double_win and hasattr(wildcards, "source") else None


def parameters(model: Model | TextModel) -> float:
    """Number of parameters."""
    if isinstance(model, TextModel):
        own = 12 * model.hidden**2 * model.layers + model.vocabulary * model.hidden
        return BERT_BASE[1] * 1e6 if model.source == "pretrained" else float(own)
    if model.arch in LANGUAGE:
        return float(sum(_language(model)))
    return NETWORKS.get(model.arch, OTHER_NETWORK)[2] * 1e6 * ((model.width or 16) / 16) ** 2


def _language(model: Model) -> tuple[int, int]:
    """Weights that a word passes through, without the embedding, and those of the embedding."""
    c = model.language or LanguageNetwork()
    inputs = [c.size, *[c.hidden] * (c.layers - 1)]
    cells = sum(4 * c.hidden * (n + c.hidden) for n in inputs)
    blocks = c.layers * (3 * c.size**2 + 2 * c.size * c.hidden)
    within, last = (blocks, c.size) if model.arch == "transformer" else (cells, c.hidden)
    return within + last * WORDS, c.size * WORDS


def _forward(model: Model | TextModel, data: dict[str, Any]) -> float:
    """TMAC of one forward pass of one example."""
    if isinstance(model, TextModel):
        passed = BERT_BASE[0] * 1e6 if model.source == "pretrained" else 12 * model.hidden**2 * model.layers
        return passed * data["max_length"] * 1e-12
    if model.arch in LANGUAGE:
        return _language(model)[0] * 1e-12
    macs, side, _ = NETWORKS.get(model.arch, OTHER_NETWORK)
    shown = data["image_size"] or PUBLIC.get(data["dataset"], OTHER).side or 32
    return macs * 1e-6 * ((model.width or 16) / 16) ** 2 * (shown / side) ** 2


def _examples(data: dict[str, Any]) -> tuple[float, float, float]:
    """Training, held-out and test examples."""
    if "window" in data:  # a corpus, counted in words
        train, test = CORPORA[data["dataset"]]
        return min(data["train_words"] or train, train), test, test
    known = PUBLIC.get(data.get("task") or data["dataset"])
    _, train, test, _ = known or OTHER
    held_out = data["val_images"] if "val_images" in data else data["val_fraction"] * train
    left = max(1, train - held_out)
    few, some = (data.get(f"{split}_images") or data.get(f"{split}_examples") for split in ("train", "test"))
    if known is None:  # of a set of the user's own only what is asked for is known
        return few or left, held_out, some or test
    return min(few or left, left), held_out, min(some or test, test)


def work(text: str, model: Model | TextModel | None, wildcards: Any = None) -> float:
    """TMAC of the job with this configuration (the JSON that its stage gets) and wildcards; 0 for jobs that neither
    train nor attack.
    """
    config = json.loads(text)
    pretraining = (config.get("model") or {}).get("pretraining")
    data = config.get("data")
    if model is None or data is None:
        return 0.0
    one = _forward(model, data)
    train, held_out, test = _examples(data)
    attack = config.get("attack") or {}
    if "evaluation" in config:
        return one * test * _evaluation_passes(config["evaluation"], getattr(wildcards, "mode", "adv") == "adv")
    if "autoattack" in config:
        auto = config["autoattack"]
        passes = 1.0 + WITHSTANDS * sum(AUTOATTACK[a] for a in auto["attacks"])
        return one * min(test, auto["images"] or test) * passes
    if "recipe" in attack:
        return one * (test + min(test, config["examples"] or test) * QUERIES)
    if pretraining:
        return 3 * one * pretraining["sentences"] * pretraining["train"]["epochs"]
    if "train" not in config:
        return 0.0
    adversary = config.get("adversary")
    steps = attack.get("steps", 0)
    per_example = 3 * adversary["steps"] if adversary else 3 + 2 * steps
    epoch = train * config.get("fraction", 1.0) * per_example + held_out * (1 + 2 * steps)
    return one * epoch * config["train"]["epochs"] * max(1, len(config.get("checks", [])))


def _evaluation_passes(evaluation: dict[str, Any], adversarial: bool) -> float:
    """Forward passes of an image: PGD on every network, l2 on adversarially trained ones alone."""
    attacks = [evaluation["attack"], evaluation["l2_attack"] if adversarial else None]
    return 1.0 + sum(2 * a["steps"] * a["restarts"] for a in attacks if a)


def output_bytes(paths: list[str], model: Model | TextModel | None) -> float:
    """Bytes of these artifacts: a bit a weight for tickets, four bytes for weights and scores, small change for the
    rest.
    """
    weights = parameters(model) if model else 0.0
    total = 0.0
    for path in paths:
        ticket = path.endswith((".mask.safetensors", ".levels"))
        total += weights / 8 if ticket else 4 * weights if path.endswith((".safetensors", ".pth.tar")) else 2e4
    return total
