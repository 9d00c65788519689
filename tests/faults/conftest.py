"""Stages on tiny inputs, killed at a chosen step: the process ends itself there, so nothing depends on timing."""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ATTACK, DIGITS, TRAIN

from winnow.artifacts import read_json, sha256_file

TEXT = {"dataset": "embedded", "max_length": 24, "train_examples": 96, "test_examples": 40, "val_fraction": 0.02}
TINY_BERT = {"source": "tiny", "layers": 1, "hidden": 16, "heads": 2, "intermediate": 32}
TEXT_TRAIN = {"epochs": 2, "batch_size": 16, "optimizer": "adamw", "lr": 0.01, "schedule": "linear", "clip_norm": 1.0}
GEMS = {"dataset": "digits", "val_images": 100, "train_images": 200, "test_images": 100}

# What a stage runs under: DRIVER STAGE HOOK HOW N ARGUMENTS. Before call N of the function HOOK something happens to
# the process.
DRIVER = """
import importlib, os, resource, sys
stage, hook, how, at = *sys.argv[1:4], int(sys.argv[4])
module, name = hook.split(":")
module, calls = importlib.import_module(module), 0
real = getattr(module, name)
def counted(*arguments):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), int(how))
    return real(*arguments)
setattr(module, name, counted)
sys.exit(importlib.import_module(f"winnow.stages.{stage}").stage.run(sys.argv[5:]))
"""


@dataclass
class Case:
    """One stage with its tiny inputs: where it is killed, and what its artifacts are called."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, Path]
    outputs: dict[str, str | list[str]]
    kill_at: int
    went_on: str  # what the log of the next run says, with the number of steps, batches or examples done
    hook: str = "winnow.train.loop:lr_factor"  # what is called once before each of them

    def arguments(self, *extra: str, scratch: str | Path = "scratch") -> list[str]:
        """The command line; outputs are named within the working folder."""
        words = ["--config", json.dumps(self.config), "--device", "cpu", "--scratch", str(scratch), *extra]
        for name, path in self.inputs.items():
            words += [f"--{name}", str(path)]
        for name, files in self.outputs.items():
            words += [f"--{name}", *(files if isinstance(files, list) else [files])]
        return words

    def killed(self, folder: Path, how: int, scratch: str | Path = "scratch") -> subprocess.CompletedProcess[str]:
        """A run that is sent the signal `how` before step `kill_at`, having saved its state after every step."""
        words = self.arguments("--checkpoint-seconds", "1e-9", scratch=scratch)
        command = [sys.executable, "-c", DRIVER, self.stage, self.hook, str(int(how)), str(self.kill_at), *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=folder)

    def run(self, folder: Path, *extra: str, scratch: str | Path = "scratch") -> int:
        """The exit code of a run in this process."""
        with contextlib.chdir(folder):
            return run(self.stage, self.arguments(*extra, scratch=scratch))

    def results(self, folder: Path) -> dict[str, Any]:
        """Every artifact by content: sha256 of the files, and the metrics without what differs from run to run."""
        found: dict[str, Any] = {}
        for path in sorted(
            p for p in folder.rglob("*") if p.is_file() and "scratch" not in p.relative_to(folder).parts
        ):
            name = path.relative_to(folder).as_posix()
            metrics = read_json(path) if name == "metrics.json" else None
            found[name] = (
                sha256_file(path) if metrics is None else {k: v for k, v in metrics.items() if k not in ("run", "seal")}
            )
        return found


def run(stage: str, arguments: list[str]) -> int:
    """A stage in this process."""
    return importlib.import_module(f"winnow.stages.{stage}").stage.run(arguments)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, dense: Path) -> Callable[[str], Case]:
    """made(stage): the case of a stage, its inputs made once."""
    folder, cases = tmp_path_factory.mktemp("inputs"), {}

    def make(stage: str, config: dict[str, Any], name: str, **files: Path) -> Path:
        words = ["--config", json.dumps(config), "--device", "cpu", "--scratch", str(folder / "scratch")]
        for key, path in files.items():
            words += [f"--{key}", str(path)]
        (folder / name).parent.mkdir(exist_ok=True)
        assert run(stage, [*words, "--out", str(folder / name)]) == 0
        return folder / name

    def text_model() -> Path:
        path = folder / "pretrained/model.safetensors"
        return path if path.exists() else make("import_text_model", {"model": TINY_BERT, "data": TEXT}, str(path))

    def case(stage: str) -> Case:
        vision = {"data": DIGITS, "train": TRAIN | {"epochs": 3}, "attack": ATTACK, "compute": {}, "seed": 0}
        if stage == "train":
            mask = make("prune", {"method": "magnitude", "remaining_percent": 40}, "round1", weights=dense)
            outputs: dict[str, Any] = {"out": "weights", "metrics": "metrics.json"}
            return Case(
                stage, vision | {"keep": "last"}, {"init": dense, "mask": mask}, outputs, 5, "resumed at step {}"
            )
        if stage == "transfer":
            outputs = {"best-sa": "best_sa", "best-ra": "best_ra", "metrics": "metrics.json"}
            return Case(stage, vision, {"init": dense}, outputs, 5, "resumed at step {}")
        if stage == "evaluate":
            wanted = {"attack": ATTACK | {"restarts": 2}, "l2_attack": ATTACK | {"norm": "l2"}, "batch_size": 20}
            config = {"data": DIGITS, "evaluation": wanted, "compute": {}, "seed": 0}
            models = {"best-sa": dense, "best-ra": dense}
            hook = "winnow.vision.evaluate:evaluation_mode"
            return Case(
                stage, config, models, {"metrics": "metrics.json"}, 31, "{} batches were evaluated before", hook
            )
        if stage == "gem_search":
            model = {"arch": "resnet8", "width": 4, "classifier": "conv1x1", "bn": "non_affine"}
            init = make("gem_init", {"data": GEMS, "model": model, "init": {}, "seed": 0}, "init")
            train = {"epochs": 4, "batch_size": 50, "lr": 5.0, "schedule": "cosine"}
            search = {"algo": "hc_iter", "target_sparsity": 10, "iter_period": 1, "lmbda": 1e-4}
            config = {"search": search, "data": GEMS, "train": train, "compute": {}, "seed": 0}
            outputs = {"out": "mask", "order": "order", "levels": "levels", "metrics": "metrics.json"}
            return Case(stage, config, {"init": init}, outputs, 10, "resumed at step {}")
        if stage == "search_robust_ticket":
            config = {"data": TEXT, "train": TEXT_TRAIN, "masks": {}, "adversary": {"steps": 2}, "keep_epochs": [1, 2]}
            config |= {"compute": {}, "seed": 0}
            outputs = {"scores": ["epoch1", "epoch2"], "metrics": "metrics.json"}
            return Case(stage, config, {"model": text_model()}, outputs, 9, "resumed at step {}")
        attack, hook = {"recipe": "textfooler", "candidates": "embedded"}, "winnow.text.attacks.run:attack_one"
        config = {"data": TEXT, "attack": attack, "examples": 12, "compute": {}}
        outputs = {"out": "rows.jsonl", "metrics": "metrics.json"}
        return Case(stage, config, {"model": text_model()}, outputs, 6, "{} of 12 examples were done before", hook)

    def cached(stage: str) -> Case:
        if stage not in cases:
            cases[stage] = case(stage)
        return cases[stage]

    return cached


@pytest.fixture(scope="session")
def whole(made: Callable[[str], Case], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """whole(stage): the artifacts of an uninterrupted run, made once."""
    found: dict[str, dict[str, Any]] = {}

    def results(stage: str) -> dict[str, Any]:
        if stage not in found:
            folder = tmp_path_factory.mktemp(f"whole-{stage}")
            assert made(stage).run(folder) == 0
            found[stage] = made(stage).results(folder)
        return found[stage]

    return results


SIGNALS = [signal.SIGTERM, signal.SIGKILL]
