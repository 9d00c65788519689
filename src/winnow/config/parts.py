"""Configuration parts that several stages share."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from winnow.config import architectures, own_models
from winnow.schema import Part, key


def expand(path: str) -> str:
    """`path` with ~ and $VARIABLES replaced; ValueError for a variable that is not set."""
    made = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111  (Path would drop a last slash)
    if missing := re.search(r"\$\{?(\w+)|^~\w*", made):
        raise ValueError(f"{path}: {missing[0]} stands for nothing here; set it, or write the path out")
    return made


FilePath = Annotated[str, AfterValidator(expand)]
Count = Annotated[int, Field(ge=0)]
Ordinal = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Percent = Annotated[float, Field(gt=0, lt=100)]


class Compute(Part):
    """Numerical settings. All of them fix the bytes of the result; the device does not belong here."""

    threads: int = key("CPU threads of torch; part of what fixes the bytes", 1, ge=1)
    precision: Literal["float32", "tf32", "bf16"] = key(
        "bf16: autocast to bfloat16 in forward and backward passes; tf32: matrix products of a GPU with 10-bit "
        "mantissas",
        "float32",
    )
    compile: bool = key(
        "compile the model with torch.compile, in the stages that train; scores, searches and evaluations run as they "
        "are",
        False,
    )
    sync_batchnorm: bool = key(
        "batch statistics over the batches of all GPUs together (papers: of each by itself)", False
    )
    deterministic: bool = key("refuse nondeterministic kernels (same bytes from run to run, on a GPU too)", True)


def check_uncompiled(compute: Compute, what: str) -> None:
    """ValueError for a stage that would not compile although it is told to."""
    if compute.compile:
        raise ValueError(f"compute.compile: {what} runs uncompiled; set it to false")


class Train(Part):
    """One training run."""

    epochs: int = key("passes over the training split", ge=0)
    batch_size: int = key("global batch size, whatever the number of GPUs", ge=1)
    micro_batch: int | None = key(
        "examples that pass through the network at once on each GPU, for batches that do not fit into its memory: the "
        "gradient is the mean over the whole batch all the same, but batch normalisation sees, and averages, the "
        "micro-batches; null: no limit",
        None, ge=2,
    )  # fmt: skip
    optimizer: Literal["sgd", "adam", "adamw"] = key("optimiser", "sgd")
    lr: float = key("peak learning rate", gt=0)
    momentum: float = key("momentum of SGD", 0.9, ge=0, lt=1)
    nesterov: bool = key("Nesterov momentum", False)
    weight_decay: float = key("weight decay (decoupled for adamw)", 0.0, ge=0)
    schedule: Literal["constant", "multistep", "cosine", "linear"] = key("learning rate after warm-up", "constant")
    milestones: list[Count] = key("epochs at which multistep multiplies the rate by gamma", factory=list)
    gamma: float = key("factor of multistep", 0.1, gt=0)
    schedule_epochs: int | None = key("epochs over which cosine falls to 0; null: epochs", None, ge=1)
    warmup_fraction: float = key("fraction of all steps over which the rate rises linearly from 0", 0.0, ge=0, lt=1)
    clip_norm: float | None = key("clip the gradient's global l2 norm", None, gt=0)
    label_smoothing: float = key("label smoothing of the cross-entropy", 0.0, ge=0, lt=1)


class Attack(Part):
    """A gradient attack in pixel space [0,1]; the model normalises its own input."""

    norm: Literal["linf", "l2"] = key("norm of the perturbation", "linf")
    eps: float = key("radius, in pixel units (linf: at most 1)", gt=0)
    step_size: float = key("step, in pixel units", gt=0)
    steps: int = key("number of steps", ge=1)
    random_start: bool = key("start at a uniform point of the ball", True)
    restarts: int = key("independent starts; an example counts as robust when it withstands all", 1, ge=1)
    batch_statistics: bool = key(
        "in training, attack the network as it trains: statistics of the batch, and running statistics that every step "
        "of the "
        "attack moves (Double-win's code); false: the network in evaluation mode, as it is measured", False,
    )  # fmt: skip
    backend: Literal["winnow", "advertorch"] = key("winnow's batched PGD, or advertorch as the reference", "winnow")

    def check(self) -> None:
        """Keys that go together."""
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(
                f"eps {self.eps:g} exceeds 1, the whole pixel range; attacks are in [0,1] (8/255 = 0.0314)"
            )


class Data(Part):
    """One image classification task."""

    dataset: Literal["digits", "cifar10", "cifar100", "svhn", "imagenet", "imagefolder", "npz", "packed"] = key(
        "which loader"
    )
    path: FilePath | None = key("imagefolder, packed, npz: folder or file below data_root", None)
    classes: list[Count] | None = key("keep these labels only, renumbered 0.. in this order", None)
    image_size: int | None = key("side of the square images that the model sees; null: as stored", None, ge=4)
    train_crop: Literal["none", "pad", "resized"] = key(
        "pad: zero-pad and crop; resized: RandomResizedCrop (area 8-100 %, ratio 3/4-4/3)", "none"
    )
    crop_padding: int = key("pixels of padding for train_crop pad", 4, ge=0)
    flip: bool = key("random horizontal flips in training", False)
    test_resize: int | None = key("resize the short side to this before the centre crop of image_size", None, ge=4)
    val_images: int = key("images held out of the training split for selection (stratified)", ge=1)
    train_images: int | None = key("use only this many training images (stratified); null: all", None, ge=1)
    test_images: int | None = key("use only this many test images (stratified); null: all", None, ge=1)
    split_seed: int = key("fixes the held-out split and the subsets, whatever the run's seed", 0)


class Corpus(Part):
    """Running text, whose next word a network shall foretell: language modelling as the rare-gems code does it."""

    dataset: Literal["sentences", "wikitext"] = key(
        "sentences: generated, no download; wikitext: files of words (wiki.train.tokens, wiki.valid.tokens, "
        "wiki.test.tokens, or train.txt and so on)"
    )
    path: FilePath | None = key("wikitext: folder below data_root", None)
    window: int = key("words that pass through the network at once", 35, ge=2)
    train_words: int | None = key("use only so many words from the start of the training text; null: all", None, ge=100)

    def check(self) -> None:
        """Keys that go together."""
        if self.dataset == "wikitext" and self.path is None:
            raise ValueError("path: required for dataset wikitext: a folder below data_root")


AnyData = Annotated[Data | Corpus, Field(discriminator="dataset")]


class LanguageNetwork(Part):
    """Sizes of a transformer or an lstm; the defaults are those of the rare-gems code."""

    size: int = key("width of embeddings and layers", 200, ge=4)
    hidden: int = key("width within the transformer's feed-forward parts, or of the lstm's cells", 200, ge=4)
    layers: int = key("blocks of the transformer, or layers of the lstm", 2, ge=1)
    heads: int = key("attention heads of the transformer", 2, ge=1)
    dropout: float = key("fraction dropped in training", 0.2, ge=0, lt=1)
    decoder_stays: bool = key("the last layer has scores, but no prune removes its weights and none count them", False)

    def check(self) -> None:
        """Heads share the width."""
        if self.size % self.heads:
            raise ValueError(f"size {self.size} is not a multiple of heads {self.heads}")


class PrunedLayers(Part):
    """Which weights tickets may remove. The classification head, the last layer, is none of them."""

    kinds: list[Literal["conv", "linear"]] = key("kinds of layers; linear: attention's too", factory=lambda: ["conv"])
    include: list[str] = key("patterns (* ? []) of weight names, one of which must match", factory=lambda: ["*"])
    exclude: list[str] = key("patterns of weight names, none of which may match", factory=list)


Option = bool | int | float | str | list[int] | list[float]


class Model(Part):
    """A classifier with the input normalisation inside."""

    arch: str = key(
        "resnet8/14/20/32/44/56, vgg16_cifar, mobilenet_v2_cifar, wideresnet-28-2, conv4 (CIFAR); a released "
        "rare-gems network: Conv4, cResNet18, MobileNetV2, ResNet50, ResNet101, resnet32_double, TinyResNet18, "
        "tinyvgg16, WideResNet28; a torchvision classifier; or, over a corpus, transformer or lstm. One of your own: "
        "python:path/file.py:Class (called with num_classes), timm:NAME, hf:FOLDER or hf:OWNER/NAME"
    )
    options: dict[str, Option] = key(
        "keyword arguments of a torchvision classifier or one of your own ({image_size: 64}); hf: keys of its "
        "configuration",
        factory=dict,
    )
    language: LanguageNetwork | None = key("sizes of transformer and lstm; null: the defaults", None)
    layers: PrunedLayers = key(
        "what double_win's tickets may remove (rare_gems: every convolution and linear layer)", factory=PrunedLayers
    )
    code: str | None = key(
        "stamp of the code of python:, or of the config.json of an hf: folder; read from there, so that an edit counts",
        None,
    )
    width: int | None = key("channels of the first stage of a CIFAR ResNet (16) or Conv4 (64)", None, ge=1)
    mean: list[float] = key("per-channel mean of the normalisation", factory=lambda: [0.5, 0.5, 0.5])
    std: list[Positive] = key("per-channel standard deviation of the normalisation", factory=lambda: [0.5, 0.5, 0.5])
    classifier: Literal["linear", "conv1x1"] = key(
        "conv1x1: the last layer has no bias (rare gems); in CIFAR ResNets it is a convolution", "linear"
    )
    bn: Literal["affine", "non_affine"] = key("batch normalisation with or without scale and shift", "affine")
    dropout: float = key("fraction of the features dropped before the last layer in training", 0.0, ge=0, lt=1)
    imagenet_stem: bool = key("torchvision ResNets: false replaces the 7x7/2 stem and pooling by 3x3/1", True)

    @model_validator(mode="before")
    @classmethod
    def _stamped(cls, values: Any) -> Any:
        """With the stamp of the code that is there now, where none is given."""
        if not isinstance(values, dict) or values.get("code") is not None:
            return values
        arch = values.get("arch")
        stamp = (
            own_models.code_of(arch)
            if isinstance(arch, str) and own_models.is_own(arch) and not own_models.unknown(arch)
            else None
        )
        return values if stamp is None else {**values, "code": stamp}

    def check(self) -> None:
        """Keys that go together."""
        own = own_models.is_own(self.arch)
        if own and (self.width is not None or not self.imagenet_stem):
            raise ValueError(f"{'imagenet_stem' if self.width is None else 'width'}: {self.arch} has none; use options")
        if self.arch in architectures.LANGUAGE:
            if self.options:
                raise ValueError(f"options: {self.arch} takes none; its sizes are in language")
        elif self.language is not None:
            raise ValueError(f"language: sizes of {' and '.join(architectures.LANGUAGE)}; {self.arch} sees images")
        elif self.options and not own and architectures.is_winnows(self.arch):
            raise ValueError(
                f"options: {self.arch} takes none; they are for torchvision's classifiers, python:, timm: and hf:"
            )


def check_names(kind: str, names: list[str]) -> None:
    """Names become folders: ValueError for one that is empty, repeated or not plain."""
    for name in names:
        if not name or not all(c.isalnum() or c in "_." for c in name) or name.startswith("."):
            raise ValueError(f"{kind}: name {name!r} must be letters, digits, _ and .")
    if len(set(names)) != len(names):
        raise ValueError(f"{kind}: name {next(n for n in names if names.count(n) > 1)!r} appears twice")


def check_seeds(seeds: list[int]) -> None:
    """ValueError unless there is at least one seed and none twice."""
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds: {seeds} must be at least one, and different")
