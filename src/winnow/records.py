"""What artifacts say of themselves, checked: seals, places, parents. NumPy alone, so that trace and verify start at
once.

Every file that a job writes holds a seal (safetensors, JSON records) or is vouched for by a record beside it, which
holds its sha256 (tables, figures, JSONL rows, released formats, the files of a model folder).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from winnow.artifacts import (
    MODEL_FILE,
    SIDECAR,
    read_arrays,
    read_json,
    read_metadata,
    seal_holds,
    sha256_file,
    stands_for,
)
from winnow.errors import WinnowError

SEALED = (".safetensors", ".json")
TIMED = ("speed", "speed_plots", "speed_table")  # stages whose results are wall times: no two runs have the same
NO_ARTIFACTS = {".log", ".tsv", ".html"}  # logs, benchmarks and the report are written anew by every run
PAGE = "README.md"  # of results/, which comes with a checkout


@dataclass(frozen=True)
class Record:
    """A sealed record. `file`: where it stands; `base`: the working folder of its job, None when it is not where it
    belongs.
    """

    file: Path
    base: Path | None
    # path, stage, config, parents, source, versions, device; and the kind of a safetensors file
    about: Mapping[str, Any]
    vouched: Mapping[Path, str] = field(default_factory=dict)  # other files of the job -> sha256
    run: Mapping[str, Any] = field(default_factory=dict)  # of a metrics JSON: wall_seconds, finished

    @property
    def parents(self) -> dict[str, tuple[Path, str]]:
        """Role -> (file, sha256 when it was read)."""
        found = self.about.get("parents", {})
        return {role: (near((self.base or Path()) / p["path"]), p["sha256"]) for role, p in found.items()}

    @property
    def seed(self) -> Any:
        """The seed in the job's configuration; None without one."""
        return self.about.get("config", {}).get("seed")


def near(path: Path) -> Path:
    """`path` as seen from the current folder: one spelling for one file."""
    return Path(os.path.relpath(path))


def artifacts(folder: Path) -> list[Path]:
    """All files below `folder` that jobs wrote, in name order. Raises WinnowError when there is no such folder."""
    if not folder.is_dir():
        raise WinnowError(f"{folder}: no such folder; give the folder with the artifacts (results/)")
    hidden = (p for p in folder.rglob("*") if p.is_file() and p.suffix not in NO_ARTIFACTS and p != folder / PAGE)
    return sorted(p for p in hidden if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def forget() -> None:
    """Look at every file anew from here on; whoever starts a check calls it."""
    for cached in (sha256, intact, record):
        cached.cache_clear()


@cache
def sha256(file: Path) -> str:
    """sha256 of a file or folder, taken once in this process."""
    return sha256_file(file)


@cache
def intact(file: Path) -> bool | None:
    """Whether the seal in `file` holds over a record of winnow's; None without a seal, which only safetensors and JSON
    can carry.
    """
    if file.suffix not in SEALED:
        return None
    try:
        holds = seal_holds(file)
        if holds:
            record(file)
        return holds
    except WinnowError:  # no regular file, too large, or sealed by another hand
        return False


@cache
def record(file: Path) -> Record:
    """The record in a file whose seal holds. Raises WinnowError for one that winnow does not write."""
    document = read_metadata(file) if file.suffix == ".safetensors" else read_json(file)
    about = document.get("provenance", document) if isinstance(document, dict) else None
    outputs, files = ({}, {}) if about is None else (document.get("outputs", {}), document.get("files", {}))
    if not (isinstance(about, dict) and isinstance(document.get("run", {}), dict) and _is_record(about)) or not all(
        isinstance(named, dict) and all(_is_path(n) and isinstance(sha, str) for n, sha in named.items())
        for named in (outputs, files)
    ):
        raise WinnowError(f"{file}: sealed, but no record that winnow writes; delete it and rerun its stage")
    base = _base(file.with_name(MODEL_FILE) if file.name == SIDECAR else file, Path(about.get("path", "")))
    vouched = {near((base or Path()) / path): sha for path, sha in outputs.items()}
    if file.name == SIDECAR:
        vouched = {file.with_name(Path(name).name): sha for name, sha in files.items()}
    return Record(file, base, about, vouched, document.get("run", {}))


def _is_record(about: Mapping[str, Any]) -> bool:
    parents = about.get("parents", {})
    return (
        _is_path(about.get("path", ""))
        and isinstance(about.get("stage", ""), str)
        and isinstance(about.get("config", {}), dict)
        and isinstance(parents, dict)
        and all(
            isinstance(p, dict) and _is_path(p.get("path")) and isinstance(p.get("sha256"), str)
            for p in parents.values()
        )
    )


def _is_path(text: Any) -> bool:
    """Whether the file system can be asked for it."""
    return (
        isinstance(text, str)
        and "\0" not in text
        and len(os.fsencode(text)) < 4096
        and max(map(len, text.split("/"))) < 250
    )


def _base(file: Path, recorded: Path) -> Path | None:
    """The folder that `recorded` is relative to if `file` is that path, else None."""
    if recorded.is_absolute():
        return Path() if file.absolute() == recorded else None  # made outside its working folder, by hand
    here, depth = file.absolute(), len(recorded.parts)
    return near(here.parents[depth - 1]) if depth and here.parts[-depth:] == recorded.parts else None


def record_about(file: Path) -> Record | None:
    """The record in a file, or the one beside it that vouches for it; None when nothing does."""
    if intact(file):
        return record(file)
    sidecar = stands_for(file)
    beside = [sidecar] if sidecar != file else sorted(file.parent.glob("*.json"))
    for other in beside:
        if other != file and intact(other) and file in record(other).vouched:
            return record(other)
    return None


def fault(file: Path) -> str | None:
    """What is wrong with an artifact by itself and in its place; None when it is as its job wrote it."""
    if intact(file) is False:
        return "damaged: its bytes are not those that were written"
    about = record_about(file)
    if about is None:
        return (
            "damaged or foreign: it carries no seal" if file.suffix in SEALED else "no record beside it vouches for it"
        )
    if about.base is None:
        return f"not where it belongs: it was written as {about.about.get('path', 'a file of its own, by no job')}"
    if file in about.vouched and about.vouched[file] != sha256(file):
        return f"damaged: it is not what {about.file} vouches for"
    return None


@dataclass(frozen=True)
class Bad:
    """One bad artifact: what is wrong, what to delete so that its job runs again, and the jobs that follow from it by
    stage.
    """

    file: Path
    reason: str
    delete: list[Path]
    followers: dict[str, int]


def verify(folder: Path) -> tuple[list[Bad], list[str], int]:
    """Check every artifact below `folder`: (bad ones, notes on files that are gone or not winnow's, number of
    artifacts).
    """
    forget()
    files = artifacts(near(folder))
    reasons = {file: reason for file in files if (reason := fault(file))}
    # of a bad record, or a user's own
    loose = [f for f in reasons if f.suffix not in SEALED and record_about(f) is None]
    notes = [f"{f}: {reasons.pop(f)}" for f in loose]
    sealed = [record(f) for f in files if intact(f)]
    records = [r for r in sealed if r.file not in reasons]
    vouchers = {other: r.file for r in records for other in r.vouched}
    for r in records:
        for other, sha in r.vouched.items():
            if not other.exists() and r.file.name == SIDECAR:
                reasons.setdefault(r.file, f"{other} is gone, without which the model does not load")
            elif not other.exists():
                notes.append(f"{r.file}: {other}, which its job wrote too, is gone")
            elif other not in reasons and sha256(other) != sha:
                if _below(other, folder):
                    reasons[other] = f"not what {r.file} vouches for: they are of different runs"
                else:  # what lies elsewhere is not deleted on a record's word
                    reasons.setdefault(r.file, f"{other}, which its job wrote too, is of another run")
    for r in records:
        for parent, sha in r.parents.values():
            if not parent.exists():
                notes.append(f"{r.file}: its parent {parent} is gone and cannot be checked")
            elif parent not in reasons and sha256(parent) != sha:
                reasons.setdefault(r.file, f"made from another version of {parent}")
    children = _children(sealed)
    bad = [Bad(f, why, _triggers(f, vouchers), _followers(f, children)) for f, why in sorted(reasons.items())]
    return bad, notes, len(files)


def _below(file: Path, folder: Path) -> bool:
    """Whether removing `file` removes something that lies in `folder`."""
    return (file.parent.resolve() / file.name).is_relative_to(folder.resolve())


def _triggers(file: Path, vouchers: Mapping[Path, Path]) -> list[Path]:
    """What to delete so that Snakemake runs the job again: the file, and the declared output that stands for it."""
    found = dict.fromkeys([file, *([vouchers[file]] if file in vouchers else [])])
    return list(dict.fromkeys(f.with_name(MODEL_FILE) if stands_for(f).name == SIDECAR else f for f in found))


def _children(records: list[Record]) -> dict[Path, list[Record]]:
    found: dict[Path, list[Record]] = {}
    for r in records:
        for parent, _ in r.parents.values():
            found.setdefault(parent, []).append(r)
    return found


def _followers(file: Path, children: Mapping[Path, list[Record]]) -> dict[str, int]:
    """Stage -> number of artifacts with a record that were made from `file`, directly or not."""
    waiting, seen = [file], {}
    while waiting:
        for child in children.get(stands_for(waiting.pop()), []):
            if child.file not in seen:
                seen[child.file] = child.about.get("stage", "no stage")
                waiting += [child.file, *child.vouched]
    return {stage: list(seen.values()).count(stage) for stage in sorted(set(seen.values()))}


@dataclass(frozen=True)
class Node:
    """One artifact in a tree of parents: how its child calls it, how deep it stands, what is known, whether it was
    shown before.
    """

    role: str
    file: Path
    depth: int
    state: str
    record: Record | None
    repeated: bool


def tree(file: Path) -> Iterator[Node]:
    """`file` and everything that it was made from, depth first, each with its state; each artifact's parents once."""
    seen: set[Path] = set()

    def visit(role: str, file: Path, depth: int, expected: str | None) -> Iterator[Node]:
        if not file.exists():
            yield Node(role, file, depth, "missing", None, False)
            return
        about, repeated = record_about(file), file in seen
        state = "verified" if expected in (None, sha256(file)) else "changed"
        if (
            about is not None or expected is None or intact(file) is False
        ):  # a file from outside is known by its hash alone
            state = fault(file) or state
        if about is not None and file.name == SIDECAR:  # it stands for the whole folder
            torn = (f for f, sha in about.vouched.items() if not f.exists() or sha256(f) != sha)
            state = next((f"damaged: {f} is not what it vouches for" for f in torn), state)
        seen.add(file)
        yield Node(role, file, depth, state, about, repeated)
        if about is not None and not repeated:
            for name, (parent, sha) in about.parents.items():
                yield from visit(name, parent, depth + 1, sha)

    return visit("", near(file), 0, None)


def timed(file: Path) -> bool:
    """Whether a file holds wall times, or is drawn from some."""
    about = record_about(near(file))
    return about is not None and about.about.get("stage") in TIMED


def differences(one: Path, other: Path, tensors: bool = False) -> tuple[list[str], int]:
    """What differs between the artifacts of two runs, apart from when and how long they ran; and how many were
    compared. Measured speeds are not: they differ by nature.

    With `tensors` results alone are compared, and not what artifacts say of their making (configuration, code, parents,
    seals): two versions of the code that compute the same give no difference.
    """
    forget()
    result = _figures if tensors else _result
    names = [{f.relative_to(folder) for f in artifacts(folder) if not timed(f)} for folder in (one, other)]
    found = [f"{name}: only in {one if name in names[0] else other}" for name in sorted(names[0] ^ names[1])]
    common = sorted(names[0] & names[1])
    found += [f"{name}: differs" for name in common if result(one / name) != result(other / name)]
    return sorted(found), len(common)


def _result(file: Path) -> Any:
    """What must be equal in two runs: all bytes, or of a metrics JSON all that it measured and was told to do."""
    if file.suffix != ".json" or "run" not in (document := read_json(file)):
        return sha256(file)
    # hashes of metrics with their own run times
    about = {k: v for k, v in document["provenance"].items() if k != "parents"}
    return {**document, "provenance": about, "run": None, "outputs": sorted(document["outputs"]), "seal": None}


def _figures(file: Path) -> Any:
    """What a file holds apart from its record: tensors, what a metrics JSON measured, all bytes of other formats."""
    if file.suffix == ".safetensors":
        shapes = read_metadata(file).get("shapes")  # of a ticket, whose masks are packed
        return shapes, {name: (str(t.dtype), t.shape, t.tobytes()) for name, t in read_arrays(file).items()}
    if file.name == SIDECAR:
        return None  # a record and nothing else
    if file.suffix == ".json" and isinstance(document := read_json(file), dict) and "provenance" in document:
        return {k: v for k, v in document.items() if k not in ("outputs", "provenance", "run", "seal")}
    return sha256(file)
