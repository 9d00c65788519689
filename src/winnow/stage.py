"""What every stage command shares: arguments, configuration, logging, signals, provenance and exit codes.

A stage file declares a `Stage` and decorates one function with it. Exit codes: 0 done, 2 bad input (one line on
stderr), 143 ended by SIGTERM after a checkpoint, 1 a defect of winnow (traceback).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from winnow import guard, launch, outside, places, store
from winnow.artifacts import MODEL_FILE, check_sealed, local
from winnow.errors import WinnowError
from winnow.job import C, Job
from winnow.progress import ALWAYS, duration, speaking
from winnow.run import Run, Stopped
from winnow.schema import parse
from winnow.weights import check_replaceable

log = logging.getLogger("winnow")


@dataclass
class Stage(Generic[C]):
    """Declares a stage: configuration class, named inputs and outputs (`name?` optional, `name*` any number of
    files).
    """

    name: str
    config: type[C]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    trains: bool = False  # through train.loop.fit: by several processes if asked, and worth keeping in a store
    also: Callable[[C], list[str]] | None = None  # modules that the configuration chooses and imports do not show
    doc: str = ""
    body: Callable[[Job[C]], None] | None = None

    def __call__(self, body: Callable[[Job[C]], None]) -> Callable[[Job[C]], None]:
        """Decorator: the stage's work."""
        self.body = body
        self.doc = sys.modules[body.__module__].__doc__ or ""
        return body

    def parser(self) -> argparse.ArgumentParser:
        """The stage's command line."""
        summary, _, details = self.doc.partition("\n\n")
        keys = "\n".join(f"  {name}: {field.description}" for name, field in self.config.model_fields.items())
        p = argparse.ArgumentParser(
            prog=f"python -m winnow.stages.{self.name}",
            description=summary,
            epilog=f"{details}\n\nconfiguration keys:\n{keys}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        p.add_argument("--config", required=True, metavar="JSON", help="the stage's configuration as JSON, or @FILE")
        files = p.add_argument_group("files")
        for kind, names in (("read", self.inputs), ("write", self.outputs)):
            for declared, text in names.items():
                name = declared.rstrip("?*")
                files.add_argument(
                    f"--{name.replace('_', '-')}",
                    type=Path,
                    required=declared == name,
                    nargs={"*": "*", "?": "?"}.get(declared[-1]),
                    metavar="PATH",
                    help=f"{kind}: {text}",
                )
        run = p.add_argument_group("run (nothing here changes the result)")
        run.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
        run.add_argument("--processes", type=int, default=1, help="processes that train together, on a GPU each (1)")
        run.add_argument(
            "--workers", type=int, default=0, help="data loading processes for data that is read from files (0)"
        )
        run.add_argument("--data-root", type=Path, default=Path("data"), help="folder with the datasets (data)")
        run.add_argument("--download", action="store_true", help="allow downloads of datasets and models")
        run.add_argument(
            "--scratch", type=Path, default=Path(".winnow/scratch"), help="folder for checkpoints, not outputs"
        )
        run.add_argument(
            "--store", type=Path, help="folder of finished artifacts that other working folders share (none)"
        )
        run.add_argument(
            "--checkpoint-seconds", type=float, default=30.0, help="time between checkpoints, in seconds (30)"
        )
        run.add_argument("--silent-minutes", type=float, help="end, state saved, after so long without a step (never)")
        run.add_argument("--tensorboard", type=Path, help="folder for TensorBoard's event files (none)")
        run.add_argument(
            "--log-level",
            default="info",
            choices=["debug", "info", "warning", "error"],
            help="what the log holds besides where the job is and how it ended (info)",
        )
        return p

    def run(self, argv: Sequence[str] | None = None) -> int:
        """Parse the command line, run the body, translate errors; returns the exit code."""
        args = vars(self.parser().parse_args(argv))
        launch.start_log(args["log_level"])
        job = None
        try:
            job = self._job(args)
            launch.check(self.name, self.trains, args["processes"], args["device"])
            code = self._work(job, sys.argv[1:] if argv is None else argv, args["processes"])
            if job.writes and code == 0 and (self.trains or job.run.keeps_state):
                job.run.discard_checkpoints()
                # what other code or settings left of this output
                places.discard(args["scratch"].glob(f"{job.slot()}-*"))
            if code == 0 and not launch.launched():
                result = f": {job.result}" if job.result else ""
                log.log(ALWAYS, "done in %s%s", duration(time.monotonic() - job.started), result)
            return code
        except WinnowError as error:
            return launch.end(launch.report(f"winnow {self.name}: error: {error}", 2))
        except (Stopped, KeyboardInterrupt):
            saved = job is not None and (job.run.stop_requested or job.run.keeps_state)
            by = (job.run.stopped_by if job else "") or "Ctrl-C"
            log.log(ALWAYS, "stopped by %s%s", by, "; the next run goes on from the checkpoint" if saved else "")
            return launch.end(143)
        except Exception as error:
            if not launch.launched():
                raise
            return launch.end_on(error, job is not None and job.run.stop_requested)
        finally:
            guard.unwatch()
            if job is not None:
                job.run.release()

    def _work(self, job: Job[C], argv: Sequence[str], processes: int) -> int:
        """Take the outputs from the store, or do the work, in this process or in several; returns the exit code."""
        assert self.body is not None
        several, code, entry = processes > 1 and not launch.launched(), 0, None
        if self.trains and job.store and not launch.launched():
            assert job.run.device is not None  # looked up now, for provenance names it
            entry = store.entry_of(job.store, job, processes)
        with launch.signals_stop(job.run), speaking(job.run, log) if job.writes else nullcontext():
            if entry is not None and store.take(entry, job):
                job.result = "taken from the store"
                return 0
            if not several:
                with launch.group(lambda: job.run.device):
                    self.body(job)
        if several:
            code = launch.run(f"winnow.stages.{self.name}", argv, processes)
        if entry is not None and code == 0:
            store.publish(entry, job)
        return code

    def _job(self, args: dict[str, Any]) -> Job[C]:
        config = parse(self.config, _load_config(args["config"]), "config")
        files: dict[str, dict[str, Any]] = {"inputs": {}, "outputs": {}}
        paths: dict[str, list[Path]] = {"inputs": [], "outputs": []}
        for group, names in (("inputs", self.inputs), ("outputs", self.outputs)):
            for declared in names:
                name = declared.rstrip("?*")
                value = files[group][name] = (args[name] or []) if declared.endswith("*") else args[name]
                paths[group] += value if isinstance(value, list) else [value] if value else []
        for path in paths["inputs"]:
            if not path.is_dir():
                outside.regular(path, missing=f"run the stage that writes it first (`snakemake {path}`)")
            check_sealed(path)
        for path in paths["outputs"]:
            if path.name == MODEL_FILE:
                check_replaceable(path.parent)
            places.sweep(path.parent if path.name == MODEL_FILE else path)
        also = tuple(self.also(config)) if self.also else ()
        launch.share_compiled(args["scratch"])
        job = Job(
            self.name,
            config,
            files["inputs"],
            files["outputs"],
            store=args["store"],
            scratch=args["scratch"],
            also=also,
        )
        first = next(iter(paths["outputs"]), None) if self.trains and launch.rank() == 0 else None
        job.run = Run(
            launch.device_name(args["device"]),
            checkpoints=lambda: guard.watched(args["silent_minutes"], args["scratch"] / f"{job.slot()}-{job.key()}"),
            tensorboard=args["tensorboard"] / local(first).replace("/", "-") if args["tensorboard"] and first else None,
            **{k: args[k] for k in ("workers", "data_root", "download", "checkpoint_seconds")},
        )
        return job


def _load_config(text: str) -> Any:
    if text.startswith("@"):
        from winnow.artifacts import read_json

        return read_json(text[1:])
    try:
        return outside.parse_json(text)
    except ValueError as error:
        raise WinnowError(f"--config: not JSON ({error}); pass an object in quotes, or @FILE") from None
