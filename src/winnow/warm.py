"""Stages in forks of one process that has its imports done: for runs of hundreds of jobs of a second each, as the
demo's.

    python -m winnow.warm snakemake --cores 2     # `python -m winnow.stages.X` below this starts in 0.1 s instead of 2
    to 7

The command finds a socket in WINNOW_WARM. A stage that starts (winnow/__init__.py asks `hand_over`) sends its
arguments, folder, environment and open files there, waits, passes signals on and ends with the code of the fork, which
computes what it would have computed itself. Without the variable, or when the sources have changed since, a stage runs
by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

VARIABLE = "WINNOW_WARM"
PRELOADED = (
    "numpy", "torch", "pandas", "safetensors.torch", "winnow.compat", "winnow.train.loop", "winnow.vision.training",
    "winnow.vision.evaluate", "winnow.gems.search", "winnow.gems.finetune", "winnow.text.training",
    "winnow.text.search",
    "winnow.tables.figures", "matplotlib.pyplot",
)  # fmt: skip
_STAGES = "winnow.stages."
_SOURCES = str(Path(__file__).resolve().parent)  # another copy of winnow runs its own code


def hand_over() -> None:
    """Let a warm process run this one's stage and end with its exit code; returns when there is none, or this is no
    stage.
    """
    words = sys.orig_argv
    module = next((words[i + 1] for i, word in enumerate(words[:-1]) if word == "-m"), "")
    if not module.startswith(_STAGES) or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(os.environ[VARIABLE])
    except OSError:
        return
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE}  # what the stage itself starts runs by itself
    request = {
        "module": module,
        "sources": _SOURCES,
        "arguments": sys.argv[1:],
        "folder": str(Path.cwd()),
        "environment": environment,
    }
    data = json.dumps(request).encode()
    socket.send_fds(server, [len(data).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(data)
    answers = server.makefile("rb")
    if not (first := answers.readline()):
        return
    pid = int(first)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, _: os.kill(pid, n))
    code = int(answers.readline() or 1)
    if code < 0:  # killed by a signal: end as it did
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


def _state_of_sources() -> float:
    """The newest change of any source file."""
    return max(f.stat().st_mtime for f in Path(__file__).parent.rglob("*.py"))


def serve(listener: socket.socket) -> NoReturn:
    """Import what stages import, then fork for each request until the process is ended."""
    import importlib
    import selectors

    state = _state_of_sources()
    for name in PRELOADED:
        importlib.import_module(name)
    from winnow.text import compat

    compat.transformers()
    compat.textattack()
    running: dict[int, socket.socket] = {}
    awake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watch = selectors.DefaultSelector()
    watch.register(listener, selectors.EVENT_READ)
    watch.register(awake, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in watch.select()}
        if awake in ready:
            os.read(awake, 4096)
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            _tell(running.pop(pid), os.waitstatus_to_exitcode(status))
        if listener in ready:
            client, _ = listener.accept()
            _start(client, listener, state, running)


def _tell(client: socket.socket, code: int) -> None:
    with contextlib.suppress(OSError):  # it was killed meanwhile
        client.sendall(f"{code}\n".encode())
    client.close()


def _start(client: socket.socket, listener: socket.socket, state: float, running: dict[int, socket.socket]) -> None:
    head, files, _, _ = socket.recv_fds(client, 8, 3)
    data = b""
    while len(data) < int.from_bytes(head, "big") and (part := client.recv(1 << 16)):
        data += part
    request = json.loads(data)
    if len(files) != 3 or request["sources"] != _SOURCES or _state_of_sources() != state:
        for file in files:
            os.close(file)
        client.close()  # it runs by itself
        return
    pid = os.fork()
    if pid == 0:
        _child(request, files, [client, listener])
    for file in files:
        os.close(file)
    running[pid] = client
    try:
        client.sendall(f"{pid}\n".encode())
    except OSError:  # whoever asked has been killed meanwhile
        os.kill(pid, signal.SIGTERM)


def _child(request: dict[str, Any], files: list[int], sockets: list[socket.socket]) -> NoReturn:
    import runpy
    import traceback

    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for s in sockets:
            s.close()
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = [request["module"], *request["arguments"]]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(command: list[str]) -> int:
    """Run `command` beside a warm process; returns its exit code."""
    if command[:1] == ["--serve"]:
        serve(socket.socket(fileno=int(command[1])))
    if not command:
        print("usage: python -m winnow.warm COMMAND [ARGUMENT ...]", file=sys.stderr)
        return 2
    from winnow.launch import JOB_ENVIRONMENT

    with tempfile.TemporaryDirectory(prefix="winnow-warm-") as folder:  # readable by this user alone
        address = str(Path(folder) / "socket")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen(64)
        handle = listener.fileno()
        server = subprocess.Popen(
            [sys.executable, "-m", "winnow.warm", "--serve", str(handle)], pass_fds=[handle],
            env=JOB_ENVIRONMENT | os.environ,
            start_new_session=True,  # Ctrl-C reaches the command, which ends its stages
        )  # fmt: skip
        listener.close()
        try:
            process = subprocess.Popen(command, env=os.environ | {VARIABLE: address})
            signal.signal(signal.SIGINT, lambda *_: None)  # it has had the Ctrl-C too, and ends by itself
            signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
            return process.wait()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
