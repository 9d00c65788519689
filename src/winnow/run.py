"""What training, searches and evaluations take from the process around them. The default needs nothing:

history = fit(Fit(model, optimizer, train, batches, step, seed=0))          # no files; on a GPU where there is one
history = fit(Fit(model, ...), Run(checkpoints=Path("state/dense")))        # a killed run goes on from its last
checkpoint
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow import places
from winnow.errors import WinnowError
from winnow.progress import Position

if TYPE_CHECKING:
    import torch


class Stopped(SystemExit):
    """A stop was asked for and the state is safe. Left alone, it ends the process with 143, as SIGTERM would."""

    def __init__(self) -> None:
        super().__init__(143)


class Run:
    """One run of a program that trains or measures.

    device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:N" or a torch device; looked up when it is first
    asked for checkpoints: folder for resumable state, or a function that is asked for it when there is state to keep;
    None: nothing is kept checkpoint_seconds: time between two checkpoints
    workers: processes that load data from files; attacks on texts run in so many processes
    data_root, download: where data sets lie, and whether what is missing may be fetched
    progress: bars on a terminal
    tensorboard: folder for TensorBoard's event files; None: none

    `stop_requested` may be set at any time, by a signal handler for example: the training or evaluation that runs keeps
    its state at its next step and raises Stopped. `processes` lists how many processes trained together; a resumed run
    may add another number.
    """

    def __init__(
        self,
        device: torch.device | str = "auto",
        *,
        checkpoints: Path | Callable[[], Path] | None = None,
        checkpoint_seconds: float = 30.0,
        workers: int = 0,
        data_root: Path = Path("data"),
        download: bool = False,
        progress: bool = True,
        tensorboard: Path | None = None,
    ):
        self._device = device
        self._checkpoints = checkpoints
        self.checkpoint_seconds = checkpoint_seconds
        self.workers = workers
        self.data_root = data_root
        self.download = download
        self.progress = progress
        self.processes: list[int] = []
        self.speeds: list[dict[str, Any]] = []  # of the epochs trained here: examples a second, share of waiting
        self.watchers: list[
            Callable[[Mapping[str, Any], int], None]
        ] = []  # each is told the record of an epoch and its step
        if tensorboard is not None:
            from winnow.train.tensorboard import writer

            self.watchers.append(writer(tensorboard))
        self.position: Position | None = None  # of what is being done
        self.stop_requested = False
        self.stopped_by = ""  # the signal that asked for it
        self.stops_safely = False  # within `stopping_safely`
        self._part = Path()
        self._claimed: set[Path] = set()

    @property
    def device(self) -> torch.device:
        """The torch device. Raises WinnowError when the named one is not there."""
        if isinstance(self._device, str):
            from winnow.train.device import choose_device

            self._device = choose_device(self._device)
        return self._device

    def record_speed(self, **speed: Any) -> None:
        """Keep the speed of an epoch; of a part, with its name."""
        self.speeds.append(speed | ({"part": str(self._part)} if self._part.parts else {}))

    @contextmanager
    def doing(self, what: str, total: int, unit: str, done: int = 0) -> Iterator[Position]:
        """Within: this is what the run is at, `done` of `total` units; what is within it again is told instead of
        it.
        """
        before, self.position = self.position, Position(what, total, unit, done, first=done)
        try:
            yield self.position
        finally:
            self.position = before

    def tell(self, record: Mapping[str, Any], step: int) -> None:
        """Show the record of an epoch to whoever watches."""
        for watcher in self.watchers:
            watcher(record, step)

    @property
    def device_type(self) -> str:
        """The type of the device; "cpu" as long as nothing has asked for the device."""
        return "cpu" if isinstance(self._device, str) else self._device.type

    @property
    def shows_progress(self) -> bool:
        """Whether bars are drawn."""
        return self.progress and sys.stderr.isatty()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Within: checkpoints lie in the subfolder `name`. A run that trains several models gives each a part of its
        own.
        """
        whole, self._part = self._part, self._part / name
        try:
            yield
        finally:
            self._part = whole

    def claim_checkpoints(self) -> Path | None:
        """The folder for the state of one training or evaluation, which only this user can enter.

        Raises WinnowError when another training of this run, another process or another user has it.
        """
        root = self._root()
        if root is None:
            return None
        if (folder := root / self._part) in self._claimed:
            raise WinnowError(
                f"{folder}: holds the checkpoint of another training of this run; put each training into `with "
                f"run.part(NAME):`"
            )
        places.private(root, lock=os.environ.get("RANK", "0") == "0")  # of several processes the first one writes
        self._claimed.add(folder)
        return folder

    @property
    def keeps_state(self) -> bool:
        """Whether a training or an evaluation of this run has a folder for its state."""
        return bool(self._claimed)

    def discard_checkpoints(self) -> None:
        """Delete the state of all parts: the work is done and its results are written."""
        if (root := self._root()) is not None:
            shutil.rmtree(root, ignore_errors=True)
            places.release(root)

    def release(self) -> None:
        """Let other processes have the checkpoints: this run has ended."""
        if self._claimed and (root := self._root()) is not None:
            places.release(root)

    def _root(self) -> Path | None:
        if callable(self._checkpoints):
            self._checkpoints = self._checkpoints()
        return self._checkpoints

    @contextmanager
    def stopping_safely(self) -> Iterator[None]:
        """Within: whoever handles SIGTERM sets `stop_requested` and waits; elsewhere nothing would act on it."""
        before, self.stops_safely = self.stops_safely, True
        try:
            yield
        finally:
            self.stops_safely = before

    def record_processes(self, count: int) -> None:
        """Remember that `count` processes trained together: sums in another order make other bytes."""
        if self.processes[-1:] != [count]:
            self.processes.append(count)


def one_downloads(download: bool) -> AbstractContextManager[None]:
    """Within, when downloads are allowed: the first of several processes goes ahead, the others find what it
    fetched.
    """
    if not download:
        return nullcontext()
    from winnow.train import ranks

    return ranks.rank_0_first()
