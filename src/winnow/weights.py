"""Reading the prunable weights of a model artifact without torch: a safetensors file, or a Hugging Face folder.

A Hugging Face folder is named by its `model.safetensors` (what workflow rules declare) or by itself; what winnow
records of it stands in `winnow.json` beside that file.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from winnow.artifacts import MODEL_FILE, SIDECAR, read_arrays, read_json, read_metadata
from winnow.errors import WinnowError, nearest

_MODEL_PARTS = (
    "config.json",
    "*.safetensors",
    "*.bin",
    "*.index.json",
    "tokenizer*.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)


# what transformers writes into a model folder: what may be replaced where a fault has torn the folder's own list
_WRITTEN = ("*.safetensors", "*.json", "*.txt", "*.model")


def model_folder(path: str | Path) -> Path:
    """The Hugging Face folder that `path` (the folder, or its model.safetensors) names."""
    path = Path(path)
    return path if path.is_dir() else path.parent


def pretrained_folder(path: str, data_root: str | Path) -> Path | None:
    """The Hugging Face folder that `model.path` names, as given or below `data_root`; None when it is a hub name."""
    places = [p for p in (Path(path), Path(data_root) / path) if p.is_dir()]
    found = next((p for p in places if (p / "config.json").exists()), None)
    if found is None and places:
        raise WinnowError(
            f"model.path: {places[0]} holds no config.json; give the folder of a Hugging Face model with its tokenizer"
        )
    return found


def pretrained_files(folder: Path) -> list[Path]:
    """The files of a Hugging Face folder that make the model: configuration, weights and tokenizer."""
    return sorted({f for pattern in _MODEL_PARTS for f in folder.glob(pattern) if f.is_file()})


def record_of(path: str | Path) -> dict[str, Any]:
    """What winnow recorded of a model: the sidecar of a folder, or the metadata of a weights file."""
    sidecar = model_folder(path) / SIDECAR
    if Path(path).is_dir() or (Path(path).name == MODEL_FILE and sidecar.exists()):
        return read_json(sidecar)
    return read_metadata(path)


def prunable_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The weights that pruning may touch, by name and in the recorded order; WinnowError when none are recorded."""
    names = record_of(path).get("prunable")
    if not names:
        raise WinnowError(f"{path}: records no prunable weights; bring it in with an import stage of winnow first")
    file = Path(path) / MODEL_FILE if Path(path).is_dir() else Path(path)
    arrays = read_arrays(file)
    for name in names:
        if name not in arrays:
            raise WinnowError(f"{file}: prunable weight {name!r} is missing{nearest(name, arrays)}")
    return {name: arrays[name] for name in names}


def check_replaceable(folder: Path) -> None:
    """Raise WinnowError unless a model folder can be written here: nothing there, or only what a run of winnow wrote
    before.

    What was written before is what the folder's own winnow.json lists (and, where that is torn, what transformers
    writes).
    """
    whole = folder.resolve()
    if whole == Path.cwd() or Path.cwd().is_relative_to(whole):
        raise WinnowError(
            f"{folder / MODEL_FILE}: would replace the working folder; give the model a folder of its own"
        )
    if folder.is_symlink():
        raise WinnowError(f"{folder}: is a link; write the model to the folder itself, or remove the link")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WinnowError(f"{folder}: is a file; give the model a folder of its own")
    others = sorted(p.name for p in folder.iterdir() if not _ours(p, folder))
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise WinnowError(
            f"{folder}: holds files that winnow did not write ({', '.join(others[:3])}{more}); give the model a folder "
            f"of its own"
        )


def _ours(path: Path, folder: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return False
    sidecar = folder / SIDECAR
    if path == sidecar:
        return True
    if not sidecar.is_file():
        return False
    try:
        listed = read_json(sidecar)["files"]
        return path.name in listed if isinstance(listed, dict) else False
    except (WinnowError, KeyError, TypeError):
        return any(path.match(pattern) for pattern in _WRITTEN)


def replace_folder(made: Path, folder: Path) -> None:
    """Rename `made` to `folder`. What stood there is moved aside first and then removed file by file, so that a file
    that came in meanwhile is left. WinnowError when another run wrote the folder at the same time; OSError as
    `Path.rename`.
    """
    check_replaceable(folder)
    aside = made.with_name(made.name + ".old")
    with suppress(FileNotFoundError):
        folder.rename(aside)
    try:
        made.rename(folder)
    except OSError as error:
        if folder.exists():
            raise WinnowError(f"{folder}: was written by another run at the same time; run one of them alone") from None
        raise error
    if aside.exists():
        for path in [p for p in aside.iterdir() if _ours(p, aside)]:
            path.unlink()
        aside.rmdir()


def shapes_of(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a model artifact by name, from the file's header alone."""
    from safetensors import safe_open

    with safe_open(Path(path) / MODEL_FILE if Path(path).is_dir() else Path(path), framework="numpy") as f:
        return {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118  (safetensors' own)
