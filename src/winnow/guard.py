"""A watch over a stage that runs for days: somebody notices when it hangs.

It is a process of its own, which a stopped or stuck stage cannot stop; the stage tells it of every step with `beat()`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

GRACE = 60.0  # seconds between the watch's SIGTERM and its SIGKILL

_WATCH = """
import os, select, signal, sys
pipe, stage, seconds, grace = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
def heard(limit):
    if not select.select([pipe], [], [], limit)[0]:
        return False
    if not os.read(pipe, 4096):
        sys.exit()  # the stage has ended
    return True
heard(None)
while heard(seconds):
    pass
said = f"winnow: no step for {seconds / 60:g} minutes (silent_minutes): told to save and end"
print(said, file=sys.stderr, flush=True)
os.kill(stage, signal.SIGTERM)
os.kill(stage, signal.SIGCONT)
while heard(grace):
    pass
print("winnow: it does not end: killed; the next run goes on from the checkpoint", file=sys.stderr, flush=True)
os.kill(stage, signal.SIGKILL)
"""


_pipe: int | None = None
_last = 0.0


def watch(minutes: float) -> None:
    """From the first `beat()` on: a silence of so many minutes ends this process, first by SIGTERM, at last by
    SIGKILL.
    """
    global _pipe
    reading, _pipe = os.pipe()
    os.set_blocking(_pipe, False)
    words = [sys.executable, "-S", "-E", "-c", _WATCH, str(reading), str(os.getpid()), str(60 * minutes), str(GRACE)]
    # in a session of its own: what stops or ends the stage's group must not reach it
    subprocess.Popen(words, pass_fds=[reading], stdin=subprocess.DEVNULL, start_new_session=True)
    os.close(reading)


def watched(minutes: float | None, folder: Path) -> Path:
    """`folder`, for what is kept while this process is watched; None: it is not."""
    if minutes is not None:
        watch(minutes)
    return folder


def unwatch() -> None:
    """End the watch."""
    global _pipe
    if _pipe is not None:
        os.close(_pipe)
        _pipe = None


def beat() -> None:
    """Tell the watch, if there is one, that a step, a batch or an example is done; at most once a second."""
    global _last
    if _pipe is not None and time.monotonic() - _last >= 1.0:
        _last = time.monotonic()
        with contextlib.suppress(BlockingIOError):  # it has not read what it was told before
            os.write(_pipe, b".")
