"""What no job could do, told before any job starts: data and weights that are at hand and do not fit, names that nobody
knows.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from winnow.config import architectures, own_models
from winnow.config.parts import Corpus, Data, Model, Train
from winnow.config.public_data import PUBLIC
from winnow.config.vision import AutoAttack, WeightsSource
from winnow.errors import WinnowError
from winnow.schema import Origin, Part
from winnow.vision import folders
from winnow.vision.images import is_image

CLASSES = {name: known.classes for name, known in PUBLIC.items()}
IMAGES = {name: known.train for name, known in PUBLIC.items()}
LEAST_CLASSES_TARGETED = 4  # APGD-T aims at one of the other classes after the two most likely ones


def refuse(root: Any, origin: Origin) -> None:
    """Raise WinnowError for the first key that no job could work with."""
    found = (((*steps, *key), text) for steps, part in walk(root, ()) for key, text in problems(part, root))
    for where, text in chain(found, _single_images(root), _unbuildable(root)):
        spelled = "config" + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in where)
        place = origin(where)
        raise WinnowError(f"{spelled}: {text}" + (f" ({place})" if place else ""))


def walk(part: Part, steps: tuple[int | str, ...]) -> Iterator[tuple[tuple[int | str, ...], Part]]:
    """Every configuration object below `part` with the steps to it, itself included."""
    yield steps, part
    for name in type(part).model_fields:
        value = getattr(part, name)
        for i, inner in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(inner, Part):
                yield from walk(inner, (*steps, name, i) if isinstance(value, list) else (*steps, name))


def problems(part: Part, root: Any) -> Iterator[tuple[tuple[Any, ...], str]]:
    """(key within the part, what is wrong and how to mend it)."""
    data = getattr(part, "data", None)
    if isinstance(part, Model) and (text := architectures.unknown(part.arch)):
        yield ("arch",), text
    if isinstance(part, WeightsSource) and part.file and not part.file.startswith("results/"):
        pattern = part.file.replace("{seed}", "*")
        if root.check_data and not Path(part.file).is_file() and not (pattern != part.file and _any(pattern)):
            yield ("file",), f"{part.file}: no such file; correct the path"
    if isinstance(part, Data):
        yield from _data(part, root)
    if isinstance(part, Corpus) and part.path is not None and root.check_data:
        folder = Path(root.data_root) / part.path
        if not any((folder / name).is_file() for name in ("wiki.train.tokens", "train.txt")):
            yield (
                ("path",),
                f"{folder}: holds neither wiki.train.tokens nor train.txt; put the text there, or correct it",
            )
    evaluation = getattr(part, "evaluation", None)
    auto = getattr(evaluation, "autoattack", None)
    if isinstance(data, Data) and isinstance(auto, AutoAttack) and "apgd-t" in auto.attacks:
        classes = _classes(data, root)
        if classes is not None and classes < LEAST_CLASSES_TARGETED:
            yield (
                ("evaluation", "autoattack", "attacks"),
                f"apgd-t needs at least {LEAST_CLASSES_TARGETED} classes, the task has {classes}; leave it out",
            )
    if isinstance(data, Data) and hasattr(part, "branches"):
        yield from _late_rewinding(data, part.branches)
    if isinstance(data, Data) and hasattr(part, "fractions"):
        images = _train_images(data)
        for fraction in part.fractions:
            if images is not None and round(images * fraction) < 2:
                yield ("fractions",), f"{fraction:g} of {images} training images is less than two images; raise it"


def _late_rewinding(data: Data, branches: list[Any]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """IMP that rewinds to a step which its training does not have."""
    images = _train_images(data)
    for i, branch in enumerate(branches):
        imp = getattr(branch, "imp", None)
        if imp is None or imp.rewind != "warm" or images is None:
            continue
        steps = branch.train.epochs * -(-images // branch.train.batch_size)
        if imp.rewind_iteration > steps:
            where = ("branches", i, "imp", "rewind_iteration")
            yield where, f"{imp.rewind_iteration} is beyond the {steps} steps of the training; lower it"


def _single_images(root: Any) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Training on one image at a time where batches are normalised: their statistics would be those of that image."""
    scopes: list[tuple[tuple[int | str, ...], Any, Model]] = []
    if root.double_win is not None:
        scopes.append((("double_win",), root.double_win, root.double_win.source.model))
    for i, experiment in enumerate(root.rare_gems.experiments if root.rare_gems is not None else []):
        scopes.append((("rare_gems", "experiments", i), experiment, experiment.model))
    for steps, scope, model in scopes:
        for where, part in walk(scope, steps):
            if isinstance(part, Train) and part.batch_size == 1 and architectures.normalises_batches(model.arch):
                yield (*where, "batch_size"), f"1, but {model.arch} normalises over batches; take 2 images or more"


def _unbuildable(root: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Networks of one's own that cannot be built; where torch is not installed, their jobs say so."""
    section = root.double_win
    if section is None or not own_models.is_own(section.source.model.arch) or importlib.util.find_spec("torch") is None:
        return
    survey = importlib.import_module("winnow.vision.models.survey")  # by name: no stage depends on it
    try:
        survey.network(section.source.model, _classes(section.source.data, root) or CLASSES["imagenet"])
    except WinnowError as error:
        yield ("double_win", "source", "model", "arch"), str(error).removeprefix("model.arch: ")


def _any(pattern: str) -> bool:
    return next(Path().glob(pattern), None) is not None if not pattern.startswith("/") else True


def _data(data: Data, root: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    if data.dataset in ("imagefolder", "npz", "packed") and data.path is None:
        yield ("path",), f"required for dataset {data.dataset}: a folder or file below data_root"
        return
    folder = Path(root.data_root) / str(data.path)
    if data.dataset in ("imagefolder", "npz") and root.check_data:
        if not folder.exists():
            yield ("path",), f"{folder}: not there; put the data in place, or correct the path or data_root"
            return
        splits = [name for name in ("train", *folders.HELD_OUT) if (folder / name).is_dir()]
        if data.dataset == "imagefolder" and (splits[:1] != ["train"] or len(splits) < 2):
            yield ("path",), f"{folder}: expected the folders {folders.SHAPE}"
            return
    known = _classes(data.having(classes=None), root)
    if data.classes and known is not None and max(data.classes) >= known:
        yield (
            ("classes",),
            f"{max(data.classes)} is no label: {data.path or data.dataset} has the labels 0 to {known - 1}",
        )
    wanted = data.val_images + (data.train_images or 1)
    images = IMAGES.get(data.dataset)
    if data.dataset == "imagefolder" and root.check_data:
        images = sum(1 for _ in islice(_files(folder / "train"), wanted))  # no further: sets are large
    if images is not None and data.classes is None and wanted > images:
        asked = f"val_images {data.val_images}" + (
            f" and train_images {data.train_images}" if data.train_images else ""
        )
        where = data.path or data.dataset
        yield (("val_images",), f"{asked} are more than the {images} training images of {where} allow; lower it")


def _files(split: Path) -> Iterator[str]:
    """Images of a split's classes."""
    return (path for path, is_folder in folders.walk(split) if not is_folder and "/" in path and is_image(path))


def _classes(data: Data, root: Any) -> int | None:
    """Number of classes of a task; None where nothing at hand tells."""
    if data.classes:
        return len(data.classes)
    if data.dataset == "imagefolder" and (folder := Path(root.data_root) / str(data.path) / "train").is_dir():
        return sum(1 for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return CLASSES.get(data.dataset)


def _train_images(data: Data) -> int | None:
    """Images that training may use; None where nothing at hand tells."""
    images = IMAGES.get(data.dataset)
    if images is None or data.classes:
        return data.train_images
    return data.train_images or images - data.val_images
