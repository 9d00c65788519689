"""Writing the folder: mask, masked weights, card, statement. What comes out is complete, or nothing is there."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow import outside, records
from winnow.artifacts import (
    MODEL_FILE,
    SIDECAR,
    check_sealed,
    read_json,
    read_tensors,
    sha256_file,
    stands_for,
    write_bytes,
    write_json,
)
from winnow.errors import WinnowError
from winnow.share import statement
from winnow.share.card import card, metrics_of
from winnow.ticket import Ticket
from winnow.weights import model_folder, pretrained_files, record_of

MASK, CARD, SPEC, STATE = "ticket.mask.safetensors", "README.md", "model.json", "model.pth"


def export(
    ticket_path: Path,
    to: Path,
    weights: Path | None,
    results: Path,
    key: Path | None = None,
    licence: str | None = None,
) -> list[str]:
    """Write the folder `to`, which must not be there or be empty; returns the names of its files. Raises
    WinnowError.
    """
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise WinnowError(f"{to}: is there already; give a folder that is new or empty")
    outside.regular(ticket_path, missing="give a ticket, for example one that `winnow tickets` lists")
    check_sealed(ticket_path)
    ticket = Ticket.load(ticket_path)
    records.forget()
    weights = weights or _trained_under(ticket_path, results)
    if not weights.exists():
        raise WinnowError(f"{weights}: no such file; give weights that were trained under the ticket")
    check_sealed(weights)
    about = record_of(weights)
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".winnow-export-") as name:
        folder = Path(name) / "folder"
        folder.mkdir()
        shutil.copyfile(ticket_path, folder / MASK)
        if about.get("kind") == "text_model":
            _text(model_folder(weights), ticket, folder)
        elif "model" in about:
            _image(weights, about["model"], ticket, folder)
        else:
            raise WinnowError(
                f"{weights}: not weights that winnow wrote; bring them in with winnow.stages.import_weights"
            )
        found = _measured(weights, results)
        command = next((d["run"]["command"] for _, d in found if "command" in d.get("run", {})), "")
        write_bytes(folder / CARD, card(ticket, about, metrics_of(found), command, licence).encode())
        statement.write(folder, {**ticket.metadata})
        if key is not None:
            statement.sign(folder, key)
        names = sorted(p.name for p in folder.iterdir())
        if to.exists():
            to.rmdir()
        folder.rename(to)
    return names


def _masked(state: Mapping[str, Any], ticket: Ticket, what: str) -> dict[str, Any]:
    """The weights with those that the ticket removes set to zero."""
    ticket.check_fits({name: tuple(value.shape) for name, value in state.items()}, what)
    masks = ticket.masks
    return {name: value.masked_fill(~masks[name], 0.0) if name in masks else value for name, value in state.items()}


def _image(weights: Path, spec: Mapping[str, Any], ticket: Ticket, folder: Path) -> None:
    import torch

    state, buffer = _masked(read_tensors(weights), ticket, str(weights)), io.BytesIO()
    torch.save(state, buffer)
    write_bytes(folder / STATE, buffer.getvalue())
    write_json(folder / SPEC, spec)


def _text(model: Path, ticket: Ticket, folder: Path) -> None:
    from safetensors.torch import save_file

    for file in pretrained_files(model):
        if file.name not in (MODEL_FILE, SIDECAR):
            shutil.copyfile(file, folder / file.name)
    for file in (p for p in model.iterdir() if p.name == "special_tokens_map.json"):
        shutil.copyfile(file, folder / file.name)
    state = _masked(read_tensors(model / MODEL_FILE), ticket, str(model))
    save_file(state, folder / MODEL_FILE, metadata={"format": "pt"})  # what from_pretrained asks for


def _trained_under(ticket: Path, results: Path) -> Path:
    """The weights below `results` that were trained under this ticket; WinnowError unless there is one."""
    digest, found = sha256_file(ticket), []
    if results.is_dir():
        for file in records.artifacts(results):
            is_model = file.name == SIDECAR or (file.suffix == ".safetensors" and file.name != MODEL_FILE)
            if is_model and file != ticket and records.intact(file):
                parents = records.record(file).about.get("parents", {})
                if any(
                    role == "mask" and p["sha256"] == digest for role, p in parents.items()
                ) and not file.name.endswith(MASK[6:]):
                    found.append(file.parent if file.name == SIDECAR else file)
    if len(found) == 1:
        return found[0]
    listed = f": {', '.join(map(str, found[:4]))}{', ...' if len(found) > 4 else ''}" if found else ""
    raise WinnowError(
        f"{ticket}: {len(found)} weights below {results} were trained under it{listed}; name them with --weights"
    )


def _measured(weights: Path, results: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Metrics below `results` of jobs that read or wrote the weights."""
    file = stands_for(weights / MODEL_FILE if weights.is_dir() else weights)
    digest, found = sha256_file(file), []
    for path in records.artifacts(results) if results.is_dir() else []:
        if path.suffix == ".json" and path.name != SIDECAR and records.intact(path):
            about = records.record(path)
            own = {p["sha256"] for p in about.about.get("parents", {}).values()} | set(about.vouched.values())
            document = read_json(path)
            if digest in own and "provenance" in document:
                found.append((path, document))
    return found
