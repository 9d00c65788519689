"""How a stage's process starts and ends: signals, exit codes, and several processes on one machine under torchrun's
agent.

With several, the process that is called parses and checks, starts the others and waits. Each of those runs the whole
stage; what it has to say of its end goes through a file, so that one line comes out whatever number of processes fails.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from winnow.errors import WinnowError, printable
from winnow.run import Run, Stopped

_REPORTS = "WINNOW_REPORTS"
# What every job of the workflow has in its environment: large tensors in huge pages, 3 to 8 % of a step on the CPU
JOB_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
SAFE_PATH = "PYTHONSAFEPATH"  # with it, Python imports nothing from the working folder


def launched() -> bool:
    """True in a process that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """This process, counted from 0; 0 when it is alone."""
    return int(os.environ["RANK"]) if launched() else 0


def share_compiled(scratch: Path) -> None:
    """What torch.compile makes lies in the scratch folder: one job compiles, the others of the grid find it there."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(scratch.absolute() / "compiled"))


class _Printable(logging.Formatter):
    """Lines in which no name can drive a terminal; tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        return printable(super().formatMessage(record))


def start_log(level: str) -> None:
    """Write the log to stderr, each line with its time; of several processes the first one alone tells more than
    errors.
    """
    chosen = getattr(logging, level.upper()) if rank() == 0 else logging.ERROR
    logging.basicConfig(level=chosen, stream=sys.stderr, force=True)
    logging.root.handlers[0].setFormatter(_Printable("%(asctime)s %(message)s", datefmt="%H:%M:%S"))


def device_name(name: str) -> str:
    """The device of this process: of several on GPUs, each takes the one of its number."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if launched() and name in ("cuda", "auto") and _gpus() else name


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def check(stage: str, trains: bool, processes: int, device: str) -> None:
    """WinnowError when this stage cannot run as so many processes here."""
    if processes < 1:
        raise WinnowError(f"--processes: {processes} is not a number of processes; give 1 or more")
    several = processes > 1 or (launched() and int(os.environ["WORLD_SIZE"]) > 1)
    if not several:
        return
    if not trains:
        raise WinnowError(f"--processes: {stage} does not train and runs as one process; ask for one GPU (gpu=1)")
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    if nodes > 1 or (launched() and os.environ["WORLD_SIZE"] != os.environ["LOCAL_WORLD_SIZE"]):
        raise WinnowError(
            "--processes: several machines are not supported yet; ask for GPUs of one (nodes=1, or a smaller gpu)"
        )
    if device.startswith("cuda:"):
        raise WinnowError(f"--device: {device} is one GPU for {processes} processes; use cuda or auto")
    if device != "cpu" and not launched() and 0 < (there := _gpus()) < processes:
        raise WinnowError(f"--processes: {processes} processes need a GPU each, {there} are visible; lower gpu")


def report(text: str, code: int, consequence: bool = False) -> int:
    """Tell why this process ends with `code`: on stderr, or to the process that started it, which prints the first
    cause.
    """
    if _REPORTS in os.environ:
        record = {"text": text, "code": code, "order": [consequence, time.time()]}
        Path(os.environ[_REPORTS], f"{rank()}.json").write_text(json.dumps(record))
    else:
        print(text, file=sys.stderr)
    return code


@contextmanager
def signals_stop(run: Run) -> Iterator[None]:
    """Within: SIGTERM and Ctrl-C ask a loop that checkpoints to stop at its next step; without one, or asked twice, it
    ends.

    Twice means the same signal again: whoever starts stages may pass a Ctrl-C on as SIGTERM.
    """

    def request(number: int, _frame: Any) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        again, run.stopped_by = run.stopped_by == name, run.stopped_by or name
        if not run.stops_safely or (again and not launched()):  # several processes may be told twice
            raise Stopped
        run.stop_requested = True

    previous = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, request)
    except ValueError:  # not the main thread (a test calling the stage as a function)
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def group(device: Callable[[], Any]) -> Iterator[None]:
    """Within: this process trains with the others that torchrun started, if it did."""
    if not launched():
        yield
        return
    from winnow.train import ranks

    ranks.join(device())
    yield
    ranks.leave()


def end(code: int) -> int:
    """`code`; one of several processes ends with it at once, and waits for nothing that the others leave unfinished on
    the GPU.
    """
    if launched():
        sys.stderr.flush()
        os._exit(code)
    return code


def end_on(error: Exception, stopping: bool) -> int:
    """End one of several processes on an unforeseen error: a lost peer is no cause of its own."""
    from winnow.train.ranks import PeerLostError

    lost = isinstance(error, PeerLostError)
    text = "".join(traceback.format_exception(error)).rstrip()
    return end(143 if lost and stopping else report(text, 1, consequence=lost))


def run(module: str, argv: Sequence[str], processes: int) -> int:
    """Run `python -m module argv` as `processes` processes to their end; returns the exit code and prints the first
    cause.

    SIGTERM is passed on, and the processes have half a minute to save their state.
    """
    os.environ[SAFE_PATH] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads are set by the configuration
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what it would say of a failure is said below, once
    logging.getLogger("winnow").info("%d processes", processes)
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        os.environ[_REPORTS] = folder
        config = LaunchConfig(
            1, 1, processes, run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0, logs_specs=DefaultLogsSpecs(log_dir=folder),
        )  # fmt: skip
        code, killed = 0, None
        try:
            elastic_launch(config, sys.executable)("-m", module, *argv)
        except SignalException:
            code = 128 + signal.SIGTERM
        except ChildFailedError as error:
            codes = [failure.exitcode for failure in error.failures.values()]
            killed = next((c for c in codes if c < 0 and c not in (-signal.SIGTERM, -signal.SIGINT)), None)
            stopped = (signal.SIGTERM, signal.SIGINT, 128 + signal.SIGTERM)
            code = 128 + signal.SIGTERM if all(abs(c) in stopped for c in codes) else 1
        finally:
            del os.environ[_REPORTS]
        reports = sorted((json.loads(p.read_text()) for p in Path(folder).glob("*.json")), key=lambda r: r["order"])
    if reports and not reports[0]["order"][0]:
        print(reports[0]["text"], file=sys.stderr)
        return int(reports[0]["code"])
    if killed is not None:
        print(
            f"{module}: one of {processes} processes was killed by signal {-killed} (out of memory?)", file=sys.stderr
        )
        return 128 - killed
    if code == 1 and reports:
        print(reports[0]["text"], file=sys.stderr)
    return code
