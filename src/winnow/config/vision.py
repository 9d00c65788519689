"""Configuration parts of the vision stages alone."""

from __future__ import annotations

from typing import Literal

from winnow.config.parts import Attack, FilePath, Positive
from winnow.schema import Part, key


class AutoAttack(Part):
    """AutoAttack on the first images of the test split."""

    eps: float = key("radius, in pixel units", gt=0, le=1)
    attacks: list[Literal["apgd-ce", "apgd-t", "fab-t", "square"]] = key(
        "its attacks, in order; the four together are the standard version",
        factory=lambda: ["apgd-ce", "apgd-t", "fab-t", "square"],
    )
    images: int | None = key("attack only this many test images (stratified); null: all", None, ge=1)


class ChosenAutoAttack(AutoAttack):
    """AutoAttack, and which tickets' networks it attacks: it costs more than all other measurements together."""

    tickets: list[str] | None = key(
        "tickets whose adversarial transfers are attacked, by kind and round as in file names without the regime: "
        "dense, imp-10, or a "
        "kind alone for all its rounds (imp, omp, a further ticket's name); null: all", None,
    )  # fmt: skip


class Evaluation(Part):
    """What is measured on the test split of a downstream task."""

    attack: Attack = key("PGD for robust accuracy (RA)")
    l2_attack: Attack | None = key(
        "an unseen attack: PGD in l2 on the adversarially trained models; null: not run", None
    )
    corruptions: FilePath | None = key("CIFAR-10-C folder below data_root for corruption accuracy; null: not run", None)
    batch_size: int = key("images per evaluation batch", 256, ge=1)


class TaskEvaluation(Evaluation):
    """What is measured on the test split of a downstream task, and of which networks."""

    autoattack: ChosenAutoAttack | None = key("AutoAttack on the adversarially trained models; null: not run", None)


class Normalisation(Part):
    """The statistics by which a model normalises its input, images in [0,1]."""

    mean: list[float] = key("per-channel mean")
    std: list[Positive] = key("per-channel standard deviation")


class WeightsSource(Part):
    """Pre-trained weights from outside. Exactly one of file, torchvision and hub is set."""

    file: FilePath | None = key("a .pth, .pth.tar, .pt or .safetensors file", None)
    torchvision: str | None = key("weights by torchvision's name, e.g. ResNet50_Weights.IMAGENET1K_V2", None)
    hub: str | None = key(
        "Hugging Face hub id and file, as owner/name:file.safetensors, or owner/name@revision:file.safetensors", None
    )
    entry: str | None = key(
        "key of the file under which the state dict lies (Double-win's IMP files: init, the weights before pruning); "
        "null: the "
        "usual ones", None,
    )  # fmt: skip
    sha256: str | None = key("expected sha256 of the file; a mismatch is an error", None)

    def check(self) -> None:
        """Keys that go together."""
        if sum(v is not None for v in (self.file, self.torchvision, self.hub)) != 1:
            raise ValueError("set exactly one of file, torchvision and hub")
        if self.sha256 is not None and (len(self.sha256) != 64 or set(self.sha256.lower()) - set("0123456789abcdef")):
            raise ValueError(f"sha256 {self.sha256!r} is not 64 hexadecimal digits")
