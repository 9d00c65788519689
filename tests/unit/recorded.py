"""Stand-ins for what a stage is given and what it calls."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from winnow import Ticket
from winnow.run import Run
from winnow.schema import parse


class FakeJob:
    """A job that keeps what it is given to write."""

    def __init__(self, config: Any, files: dict[str, Any], writes: bool = True):
        self.config, self.files, self.inputs, self.outputs, self.writes = config, files, files, files, writes
        self.run, self.written = Run("cpu", data_root=Path("root"), download=True, workers=3), {}

    def __getitem__(self, name: str) -> Any:
        return self.files[name]

    def paths(self, name: str) -> list[Path]:
        return self.files[name]

    def provenance(self, path: Path) -> dict[str, str]:
        return {"made": str(path)}

    def write_ticket(self, name: str, ticket: Ticket, **about: Any) -> None:
        self.written[name] = (ticket, about)

    def write_weights(self, name: str, state: Any, **about: Any) -> None:
        self.written[name] = (state, about)

    def write_metrics(self, name: str, metrics: dict[str, Any]) -> None:
        self.written[name] = metrics


def play(name: str, config: dict[str, Any], files: dict[str, Any], writes: bool = True) -> FakeJob:
    stage = importlib.import_module(f"winnow.stages.{name}").stage
    job = FakeJob(parse(stage.config, config), files, writes)
    stage.body(job)
    return job


@pytest.fixture
def record(monkeypatch):
    """record("module.function", result): calls are kept as (arguments, keywords); the result is given back."""

    def stand_in(name: str, result: Any = None) -> list[tuple[tuple, dict]]:
        calls: list[tuple[tuple, dict]] = []

        def called(*arguments, **keys):
            calls.append((arguments, keys))
            return result

        monkeypatch.setattr(f"winnow.{name}", called)
        return calls

    return stand_in
