"""Shared fixtures: tiny configurations, and a runner for stages as commands."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from winnow.artifacts import read_arrays, read_metadata

ROOT = Path(__file__).resolve().parent.parent


def shared_folder() -> Path | None:
    """The folder with reference trajectories and real data, which users do not have."""
    candidates = [os.environ.get("WINNOW_SHARED"), ROOT / "../shared", ROOT / "../../shared"]
    return next((Path(c).resolve() for c in candidates if c and (Path(c) / "golden").is_dir()), None)


def copy_of_project(folder: Path, origin: Path = ROOT) -> Path:
    """A copy of everything that decides what runs, with files that are new: what a fresh clone gives. Returns its
    Snakefile.
    """
    for name in ("config", "envs", "profiles", "src", "workflow"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(origin / name, folder / name, copy_function=shutil.copyfile, ignore=ignored)
    return Path(shutil.copyfile(origin / "Snakefile", folder / "Snakefile"))


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if folder is None:
        pytest.skip("the reference data (WINNOW_SHARED, or ../shared) is not there")
    return folder


def same_artifact(one: Path, other: Path) -> bool:
    """Whether two safetensors artifacts are the same but for the names that they were written under."""
    records = [{k: v for k, v in read_metadata(p).items() if k not in ("path", "seal")} for p in (one, other)]
    arrays = [{k: (str(v.dtype), v.shape, v.tobytes()) for k, v in read_arrays(p).items()} for p in (one, other)]
    return records[0] == records[1] and arrays[0] == arrays[1]


DIGITS = {
    "dataset": "digits",
    "classes": [0, 1, 2],
    "train_crop": "pad",
    "crop_padding": 1,
    "val_images": 30,
    "train_images": 60,
}
MODEL = {"arch": "resnet8", "width": 4}
TRAIN = {"epochs": 2, "batch_size": 16, "lr": 0.05, "weight_decay": 5e-4}
ATTACK = {"eps": 0.1, "step_size": 0.05, "steps": 2}


@pytest.fixture
def pretrain_config() -> dict[str, Any]:
    return {"method": "std", "data": DIGITS, "model": MODEL, "train": TRAIN, "compute": {}, "seed": 0}


@pytest.fixture
def run_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """run_stage("pretrain", config, out=path, ...) -> (exit code, stderr); runs in the test's own folder."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, config: Any, *extra: str, **files: Any) -> tuple[int, str]:
        module = importlib.import_module(f"winnow.stages.{name}")
        arguments = ["--config", config if isinstance(config, str) else json.dumps(config), "--device", "cpu", *extra]
        for key, value in files.items():
            values = value if isinstance(value, list) else [value]
            arguments += [f"--{key.replace('_', '-')}", *map(str, values)]
        code = module.stage.run(arguments)
        return code, capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dense weights of a tiny model, trained once for the session."""
    folder = tmp_path_factory.mktemp("dense")
    module = importlib.import_module("winnow.stages.pretrain")
    config = {"method": "std", "data": DIGITS, "model": MODEL, "train": TRAIN, "compute": {}, "seed": 0}
    out = folder / "dense.safetensors"
    arguments = [
        "--config",
        json.dumps(config),
        "--out",
        str(out),
        "--metrics",
        str(folder / "dense.json"),
        "--device",
        "cpu",
    ]
    assert module.stage.run([*arguments, "--scratch", str(folder / "scratch")]) == 0
    return out
