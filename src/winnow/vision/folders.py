"""Image folders <split>/<class>/<...image>, on disk or in an archive: which images, in which class, in which order.

torchvision's ImageFolder has the rules where it has any: classes in the sorted order of their names (so "10" comes
before "2"), links followed, files by their suffix in the sorted order of their folders and names, and no class without
an image. Beyond it: hidden files and folders (a leading dot, `__MACOSX`) are no part of a set, and both splits must
have the same classes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from winnow.errors import WinnowError
from winnow.vision.images import IMAGE_SUFFIXES, is_image

log = logging.getLogger("winnow")
HELD_OUT = ("test", "val", "valid", "validation")  # folders that may be the test split, the first choice first
SHAPE = "train/<class>/ and test/<class>/ or val/<class>/ with images"
LIST = "image_list.txt"  # VisDA-2017: `<image below the split's folder> <class number>` a line


@dataclass
class Tree:
    """What lies in one split: class -> the images' paths below it; images outside of any class folder only count."""

    classes: dict[str, list[str]] = field(default_factory=dict)
    loose: int = 0

    @property
    def filled(self) -> list[str]:
        """Sorted names of the classes that have an image."""
        return sorted(name for name, images in self.classes.items() if images)


def walk(folder: Path) -> Iterator[tuple[str, bool]]:
    """(path below `folder`, whether it is a folder), links followed as torchvision does; a link to a folder above it
    ends there.
    """
    above: dict[str, tuple[str, ...]] = {os.fspath(folder): (os.path.realpath(folder),)}
    for current, folders, files in os.walk(folder, followlinks=True):
        seen = above.pop(current)
        below = "" if current == os.fspath(folder) else os.path.relpath(current, folder) + "/"
        kept = []
        for name in folders:
            path = os.path.join(current, name)  # noqa: PTH118 (a million times)
            real = os.path.realpath(path) if os.path.islink(path) else f"{seen[-1]}/{name}"  # noqa: PTH114
            if not _hidden(name) and real not in seen:
                kept.append(name)
                above[path] = (*seen, real)
                yield below + name, True
        folders[:] = kept
        for name in files:
            yield below + name, False


def splits(entries: Iterable[tuple[str, bool]], anywhere: bool = False) -> dict[str, Tree]:
    """Split name -> its tree, from (path, whether it is a folder). anywhere: a split's folder may lie below others
    (archives).
    """
    found: dict[str, Tree] = {}
    for path, is_folder in entries:
        parts = [p for p in path.split("/") if p not in ("", ".", "..")]
        if any(map(_hidden, parts)):
            continue
        places = range(len(parts)) if anywhere else range(min(1, len(parts)))
        at = next((i for i in places if parts[i] == "train" or parts[i] in HELD_OUT), None)
        if at is None or (at == len(parts) - 1 and not is_folder):
            continue
        tree, inside = found.setdefault(parts[at], Tree()), parts[at + 1 :]
        if is_folder:
            if inside:
                tree.classes.setdefault(inside[0], [])
        elif is_image(inside[-1]):
            if len(inside) == 1:
                tree.loose += 1
            else:
                tree.classes.setdefault(inside[0], []).append(path)
    for tree in found.values():
        for images in tree.classes.values():
            images.sort(key=lambda p: p.rpartition("/")[::2])
    return found


def read(base: Path, hint: str = "") -> Layout:
    """The set in a folder. Where the folders of a held-out split are no classes of train/ but a list beside them gives
    class numbers, as VisDA-2017's test/trunk01/... and test/image_list.txt do, the list decides; numbers count the
    sorted names.

    Raises WinnowError as `layout` does, and for a line of the list that names no image or no class.
    """
    found = splits(walk(base))
    names = found["train"].filled if "train" in found else []
    for name in HELD_OUT:
        file = base / name / LIST
        if names and name in found and not set(found[name].filled) & set(names) and file.is_file():
            found[name] = _listed(file, found[name], names)
    return layout(found, base, hint)


def _listed(file: Path, tree: Tree, names: list[str]) -> Tree:
    """The tree of a split by its list instead of its folders."""
    there = {image for images in tree.classes.values() for image in images}
    made, lines = Tree(), file.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        path, _, label = line.strip().rpartition(" ")
        image = f"{file.parent.name}/{path.strip()}"
        if not path and not label:
            continue
        if not label.isdecimal() or int(label) >= len(names):
            raise WinnowError(f"{file}:{number}: expected an image and a class number below {len(names)}, got {line!r}")
        if image not in there:
            raise WinnowError(f"{file}:{number}: {image} is not there (or stands in two lines); fetch the set again")
        there.remove(image)
        made.classes.setdefault(names[int(label)], []).append(image)
    if there:
        log.info("%s: %d images of its split are not in it, and not used", file, len(there))
    for images in made.classes.values():
        images.sort()
    return made


@dataclass(frozen=True)
class Layout:
    """A set that can be loaded: class names, the trees of its two splits, and the folder that the test split comes
    from.
    """

    names: list[str]
    train: Tree
    test: Tree
    held: str

    def images(self, split: str) -> list[tuple[str, int]]:
        """(path, class number) of the images of `train` or `test`, in loading order."""
        tree = self.train if split == "train" else self.test
        return [(path, label) for label, name in enumerate(self.names) for path in tree.classes[name]]


def layout(found: Mapping[str, Tree], where: object, hint: str = "") -> Layout:
    """Which folders are the two splits. The test split is the first of test/, val/, valid/, validation/ that has
    labels.

    Raises WinnowError: a split that is missing or empty, a class without an image, splits whose classes differ.
    """
    train = found.get("train", Tree())
    others = {name: found[name] for name in HELD_OUT if name in found and (found[name].classes or found[name].loose)}
    if "train" not in found or not others:
        raise WinnowError(f"{where}: expected the folders {SHAPE}{hint}")
    names = train.filled
    if not names:
        raise WinnowError(f"{where}/train: the dataset is empty; expected images in <class>/ folders")
    _no_empty_class(train, f"{where}/train")
    held = next((name for name, tree in others.items() if set(tree.filled) & set(names)), next(iter(others)))
    test = others.pop(held)
    if not test.classes:
        raise WinnowError(
            f"{where}/{held}: {test.loose} images without class folders, so without labels; expected {SHAPE}"
        )
    _no_empty_class(test, f"{where}/{held}")
    if test.filled != names:
        only_test, only_train = _some(set(test.filled) - set(names)), _some(set(names) - set(test.filled))
        raise WinnowError(
            f"{where}: the classes of train/ and {held}/ differ (only in {held}/: {only_test}; only in train/: "
            f"{only_train}); "
            "rename or remove these folders"
        )
    for name in others:
        reason = "is not used" if set(others[name].filled) & set(names) else "has no labels of train/'s classes"
        log.info("%s: the test split is %s/; %s/ %s", where, held, name, reason)
    return Layout(names, train, test, held)


def _no_empty_class(tree: Tree, where: str) -> None:
    empty = sorted(set(tree.classes) - set(tree.filled))
    if empty:
        raise WinnowError(
            f"{where}: no image in class {_some(set(empty))} (suffixes read: {' '.join(IMAGE_SUFFIXES)}); "
            "add images or remove the folder"
        )


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _some(names: set[str], shown: int = 5) -> str:
    ordered = sorted(names)
    return (
        ", ".join(ordered[:shown]) + (f" and {len(ordered) - shown} more" if len(ordered) > shown else "")
    ) or "none"
