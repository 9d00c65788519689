"""The one evaluation loop: accuracy on clean, attacked and corrupted images. Accuracies are percentages.

All randomness of a batch is seeded by its number, so an evaluation that was cut off goes on after its last finished
batch.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.config.parts import Attack, Compute, Data
from winnow.config.vision import AutoAttack
from winnow.errors import WinnowError
from winnow.guard import beat
from winnow.language.corpus import Windows
from winnow.rng import seed_of
from winnow.run import Run, Stopped
from winnow.train import ranks
from winnow.train.checkpoint import Checkpoints
from winnow.train.device import autocast, explained
from winnow.vision import arrays
from winnow.vision.attack import check_pixels, evaluation_mode, perturb
from winnow.vision.batches import Loader
from winnow.vision.sources import Split, chosen_classes

log = logging.getLogger("winnow")
# Hendrycks and Dietterich (ICLR 2019), appendix B: "extra" corruptions, held out of the benchmark's mean
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
Transform = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Tally:
    """Right answers of the finished batches of one measurement; `after_batch()` is called as soon as one more is in
    it.
    """

    right: list[int]
    after_batch: Callable[[], None]
    name: str = ""
    run: Run | None = None


@contextmanager
def tallies(run: Run) -> Iterator[Callable[..., Tally]]:
    """Within: tallies by checkpoint and measurement, with what an earlier, killed run counted.

    They are kept in the run's checkpoint. When the run is asked to stop, they are saved and Stopped is raised.
    """
    checkpoints = Checkpoints.of(run)
    found: dict[str, list[int]] = checkpoints.load() or {}
    if found:
        log.info("%d batches were evaluated before", sum(map(len, found.values())))

    def after_batch() -> None:
        if run.stop_requested or checkpoints.due(run.checkpoint_seconds):
            checkpoints.save(found)
        if run.stop_requested:
            raise Stopped

    with run.stopping_safely():
        yield lambda *names: Tally(found.setdefault("/".join(names), []), after_batch, "/".join(names), run)


def accuracy(
    model: nn.Module, loader: Loader, compute: Compute, attacked: Transform | None = None, tally: Tally | None = None
) -> float:
    """Percentage of the split that `model` classifies correctly, its images first passed through `attacked(x, y)`."""

    def right(batch: int, x: Tensor, y: Tensor) -> int:
        x = attacked(x, y) if attacked else x
        with torch.no_grad():
            return int((model(x).argmax(1) == y).sum())

    return _percentage(model, loader, compute, right, tally)


def robust_accuracy(
    model: nn.Module, loader: Loader, attack: Attack, compute: Compute, seed: int, tally: Tally | None = None
) -> float:
    """Percentage correct under the worst of `attack.restarts` attacks; what one start fools is not attacked again."""

    def survivors(batch: int, x: Tensor, y: Tensor) -> int:
        check_pixels(x)
        for restart in range(attack.restarts):
            if len(y) == 0:
                break
            torch.manual_seed(seed_of(seed, "evaluate", batch, restart))
            adversarial = perturb(model, x, y, attack)
            with torch.no_grad():
                robust = (model(adversarial).argmax(1) == y).nonzero().squeeze(1)
            x, y = x[robust], y[robust]
        return len(y)

    return _percentage(model, loader, compute, survivors, tally)


@torch.no_grad()
def loss_and_accuracy(model: nn.Module, loader: Loader | Windows, compute: Compute) -> tuple[float, float]:
    """Mean cross-entropy over a split, and the percentage that is foretold correctly: of images, or of words."""
    loss, right, count = 0.0, 0, 0
    for x, y in loader.once():
        with autocast(compute, loader.device), evaluation_mode(model):
            logits = model(x).float()
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        right += int((logits.argmax(1) == y).sum())
        count += y.numel()
        beat()
    return loss / count, 100.0 * right / count


def _percentage(
    model: nn.Module,
    loader: Loader,
    compute: Compute,
    right: Callable[[int, Tensor, Tensor], int],
    tally: Tally | None,
) -> float:
    """Of all images, those that `right(batch number, x, y)` counts; of several processes each takes its turns."""
    counts = tally.right if tally else []
    turns, batches = ranks.turns(len(counts)), -(-len(loader.split) // loader.batch_size)
    run = (tally.run if tally else None) or Run()
    with run.doing(tally.name if tally else "evaluating", batches, "batch", len(counts)) as position:
        for batch, (x, y) in zip(itertools.count(turns.start, turns.step), loader.once(turns), strict=False):
            smaller = (
                f"evaluate fewer than {len(y)} images at once (evaluation.batch_size; in training train.micro_batch)"
            )
            with autocast(compute, loader.device), evaluation_mode(model), explained(smaller):
                counts.append(right(batch, x, y))
            beat()
            position.done = len(counts)
            if tally:
                tally.after_batch()
    percentage = 100.0 * ranks.total(sum(counts)) / len(loader.split)
    if tally and tally.name:
        log.info("%s: %.2f %% of %d images", tally.name, percentage, len(loader.split))
    return percentage


def autoattack_accuracy(
    model: nn.Module, loader: Loader, config: AutoAttack, num_classes: int, seed: int, tally: Tally | None = None
) -> float:
    """Percentage correct under AutoAttack (Croce and Hein, ICML 2020), the authors' own code as packaged in
    pyautoattack.

    Targeted attacks aim at min(9, classes - 1) classes. Runs in float32, as the reference does.
    """
    from pyautoattack import AutoAttack as Reference

    if num_classes < 4 and "apgd-t" in config.attacks:
        raise WinnowError(
            f"autoattack.attacks: apgd-t needs at least 4 classes, the task has {num_classes}; leave it out"
        )
    adversary = Reference(
        model,
        norm="Linf",
        eps=config.eps,
        seed=seed_of(seed, "autoattack") % 2**31,
        version="standard",
        device=loader.device,
    )
    adversary.attacks_to_run = list(config.attacks)
    adversary.apgd_targeted.n_target_classes = min(9, num_classes - 1)
    adversary.fab.n_target_classes = min(9, num_classes - 1)

    def attacked(x: Tensor, y: Tensor) -> Tensor:
        check_pixels(x)
        with torch.enable_grad():
            return adversary.run_standard_evaluation(x.contiguous(), y, batch_size=len(y))[0]

    return accuracy(model, loader, Compute(), attacked, tally)  # type: ignore[call-arg]


def corruption_accuracy(
    model: nn.Module,
    folder: Path,
    data: Data,
    compute: Compute,
    device: torch.device,
    batch_size: int,
    tally: Callable[[str], Tally] | None = None,
) -> dict[str, float]:
    """Percentage correct per corruption of a CIFAR-10-C folder (<name>.npy with 5 severities, labels.npy).

    The benchmark's fifteen: its mean does not count the four extra ones that its authors distribute for validation. Of
    `data.classes` the images and numbers are those of the task.
    """
    names = sorted({p.stem for p in folder.glob("*.npy")} - {"labels", *EXTRA_CORRUPTIONS})
    if not names or not (folder / "labels.npy").is_file():
        raise WinnowError(
            f"{folder}: expected CIFAR-10-C's <corruption>.npy and labels.npy (Hendrycks and Dietterich, 2019)"
        )
    labels = arrays.as_numbers([_array(folder / "labels.npy")], [str(folder / "labels.npy")])[0]
    found = {}
    for name in names:
        stored = _array(folder / f"{name}.npy")
        if len(stored) != len(labels):
            raise WinnowError(f"{folder / name}.npy: {len(stored)} images, labels.npy holds {len(labels)} labels")
        kept, numbers = (slice(None), labels) if data.classes is None else chosen_classes(labels, data.classes)
        if len(numbers) == 0:
            raise WinnowError(f"{folder}: labels.npy names no image of data.classes {data.classes}")
        split = Split(arrays.as_images(stored[kept], f"{folder / name}.npy"), numbers)
        loader = Loader(split, data, batch_size, device)
        found[name] = accuracy(model, loader, compute, tally=tally(name) if tally else None)
    return found


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise WinnowError(f"{path}: not a readable .npy array ({error}); fetch it again") from None
