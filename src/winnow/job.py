"""One run of a stage: its files, and artifacts that tell where they came from."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from winnow import launch
from winnow.artifacts import local, sha256_file, sha256_text, stands_for, write_record, write_tensors
from winnow.digests import remembered
from winnow.errors import WinnowError
from winnow.fingerprint import source_hash, versions
from winnow.progress import figures
from winnow.run import Run
from winnow.schema import Part, canonical_json, plain
from winnow.surroundings import surroundings
from winnow.ticket import Ticket

log = logging.getLogger("winnow")
C = TypeVar("C", bound=Part)


@dataclass
class Job(Generic[C]):
    """One run of a stage: its checked configuration, its files, and how to write artifacts that tell where they came
    from.
    """

    stage: str
    config: C
    inputs: dict[str, Path | list[Path] | None]
    outputs: dict[str, Path]
    run: Run = field(default_factory=Run)
    store: Path | None = None
    scratch: Path = Path(".winnow/scratch")
    also: tuple[str, ...] = ()  # modules beyond the stage's imports that decide its result
    started: float = field(default_factory=time.monotonic)
    result: str = ""  # in words, for the last line of the log
    _digests: dict[Path, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Path:
        """The path of a required input or output."""
        path = self.outputs.get(name) or self.inputs.get(name)
        assert isinstance(path, Path), name
        return path

    def paths(self, name: str) -> list[Path]:
        """The paths of an input or output that takes several files."""
        value = self.inputs[name] if name in self.inputs else self.outputs[name]
        return value if isinstance(value, list) else [value] if value else []

    def files(self, output: str) -> list[Path]:
        """The files that an output consists of: itself, or those in it (a folder, named by itself or by its
        model.safetensors).
        """
        found: list[Path] = []
        for path in self.paths(output):
            folder = path.parent if stands_for(path) != path else path
            inside = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
            found += inside if folder.is_dir() else [path]
        return found

    def read(self, role: str, paths: list[Path]) -> None:
        """Declare files that the configuration, not the command line, names: they are parents too. Raises
        WinnowError.
        """
        missing = [p for p in paths if not p.exists()]
        if missing:
            raise WinnowError(
                f"{missing[0]}: no such file ({len(missing)} of {len(paths)} missing); run the stage that writes it"
            )
        self.inputs[role] = paths

    @property
    def writes(self) -> bool:
        """False in all but the first of several processes: what they would write is the same."""
        return launch.rank() == 0

    def data_digests(self) -> list[str]:
        """The sha256 of the data files below data_root that the configuration names; public sets are known by name."""
        data = getattr(self.config, "data", None)
        names = [getattr(data, name, None) for name in ("dataset", "path", "train_path", "test_path")]
        files = [f for f in (self.run.data_root / name for name in names if name) if f.exists()]
        return [remembered(f, self.scratch / "digests") for f in files]

    def parents(self) -> dict[str, Any]:
        """Role -> {path, sha256} of every input; a model folder is named by its sidecar, which vouches for its other
        files.
        """
        record: dict[str, Any] = {}
        for role, value in sorted(self.inputs.items()):
            for i, path in enumerate(map(stands_for, self.paths(role))):
                label = f"{role}[{i}]" if isinstance(value, list) else role
                if path not in self._digests:
                    self._digests[path] = sha256_file(path)
                record[label] = {"path": local(path), "sha256": self._digests[path]}
        return record

    def provenance(self, path: Path) -> dict[str, Any]:
        """What the artifact at `path` says of itself and its making; nothing in it differs between two runs of the same
        job.
        """
        return {
            "path": local(path),
            "stage": self.stage,
            "config": plain(self.config),
            "parents": self.parents(),
            "source": source_hash(self.stage, self.also),
            "versions": versions(),
            "device": self.run.device_type,
            **({"processes": self.run.processes} if max(self.run.processes, default=1) > 1 else {}),
        }

    def key(self) -> str:
        """Identifies this job's work: configuration, code, input contents and outputs. Checkpoints are kept under
        it.
        """
        contents = [f"{role}={p['sha256']}" for role, p in self.parents().items()]
        contents += [f"{name}:{local(path)}" for name in sorted(self.outputs) for path in self.paths(name)]
        return sha256_text(self.stage, canonical_json(self.config), source_hash(self.stage, self.also), *contents)[:32]

    def slot(self) -> str:
        """Names the place of the first output, whatever is computed for it: its checkpoints' names begin with it."""
        first = next(path for name in self.outputs for path in self.paths(name))
        own = self.scratch.absolute().is_relative_to(Path.cwd())  # else folders of several projects may share it
        return f"{self.stage}-{sha256_text(local(first) if own else str(first.absolute()))[:16]}"

    def write_ticket(self, name: str, ticket: Ticket, **metadata: Any) -> None:
        """Write a ticket output with this job's provenance."""
        if not self.writes:
            return
        ticket.save(self[name], **metadata, **self.provenance(self[name]))
        self.result = f"{ticket.remaining_percent:.3f} % of {ticket.total} weights remain"
        log.info(
            "%s: %d of %d weights remain (%.3f %%)", self[name], ticket.kept, ticket.total, ticket.remaining_percent
        )

    def write_weights(self, name: str, state: Mapping[str, Any], **metadata: Any) -> None:
        """Write a state dict output with this job's provenance."""
        if not self.writes:
            return
        write_tensors(self[name], state, {"kind": "weights", **metadata, **self.provenance(self[name])})
        log.info("%s written", self[name])

    def write_metrics(self, name: str, metrics: Mapping[str, Any]) -> None:
        """Write a metrics JSON: the job's provenance, the sha256 of its other outputs, and apart what differs from run
        to run.

        Called last: it vouches for outputs that cannot hold a seal of their own (tables, figures, rows, released
        formats).
        """
        if not self.writes:
            return
        run = {
            "wall_seconds": round(time.monotonic() - self.started, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **surroundings(),
            **({"epochs": self.run.speeds} if self.run.speeds else {}),
        }
        others = [f for key in self.outputs if key != name for f in self.files(key)]
        outputs = {local(f): sha256_file(f) for f in others}
        self.result = figures(metrics) or self.result
        write_record(self[name], {**metrics, "outputs": outputs, "provenance": self.provenance(self[name]), "run": run})
