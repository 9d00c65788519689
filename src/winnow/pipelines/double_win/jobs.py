"""What the stages of the double-win pipeline get."""

from __future__ import annotations

from typing import Literal

from winnow.config.parts import Attack, Compute, Data, Model, Train, check_uncompiled
from winnow.config.vision import AutoAttack, Evaluation, Normalisation
from winnow.schema import Part, key


class Pretrain(Part):
    """Dense training on the source task (stage pretrain)."""

    method: Literal["std", "fast_adv", "adv"] = key(
        "std; fast_adv: FGSM with random start (Wong et al., ICLR 2020); adv: PGD"
    )
    data: Data = key("source task")
    model: Model = key("architecture")
    train: Train = key("optimisation")
    attack: Attack | None = key("adversary of fast_adv (one step) and adv", None)
    compute: Compute = key("numerical settings")
    seed: int = key("initialisation, order, augmentation, attack starts", ge=0)

    def check(self) -> None:
        """An attack where the method has one; fast_adv takes one step."""
        if (self.method == "std") != (self.attack is None):
            raise ValueError(f"method {self.method} {'takes no' if self.method == 'std' else 'needs an'} attack")
        if self.method == "fast_adv" and self.attack and self.attack.steps != 1:
            raise ValueError(f"attack.steps: {self.attack.steps}, but fast_adv takes one step; use method adv for more")


class Transfer(Part):
    """Training on a downstream task (stage transfer)."""

    data: Data = key("downstream task")
    fraction: float = key("stratified fraction of the training split that is used", 1.0, gt=0, le=1)
    train: Train = key("optimisation")
    attack: Attack | None = key("adversary; null: standard transfer", None)
    selection_attack: Attack | None = key("attack of the validation RA; null: `attack`", None)
    normalisation: Normalisation | None = key("statistics of the input; null: those of the pre-trained model", None)
    imagenet_stem: bool = key("false: a new 3x3/1 convolution in place of the 7x7/2 one and pooling, left dense", True)
    compute: Compute = key("numerical settings")
    seed: int = key("new head, order, augmentation, subset, attack starts", ge=0)


class Evaluate(Part):
    """Measurements on the test split of a downstream task (stage evaluate)."""

    data: Data = key("downstream task")
    evaluation: Evaluation = key("what is measured")
    compute: Compute = key("numerical settings")
    seed: int = key("attack starts", ge=0)

    def check(self) -> None:
        """An evaluation is not compiled."""
        check_uncompiled(self.compute, "an evaluation")


class AutoAttacked(Part):
    """AutoAttack on an adversarially trained network (stage autoattack)."""

    data: Data = key("downstream task")
    autoattack: AutoAttack = key("its radius, attacks and images")
    batch_size: int = key("images per batch", ge=1)
    compute: Compute = key("numerical settings")
    seed: int = key("starts of the attacks", ge=0)

    def check(self) -> None:
        """An evaluation is not compiled."""
        check_uncompiled(self.compute, "an evaluation")
