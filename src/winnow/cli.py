"""The command `winnow`: everything that a user does, each a word. It knows the stages' commands and starts the
workflow.

`winnow run` is Snakemake with winnow's Snakefile: a configuration may stand for `--configfile` it, every other argument
is passed on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from winnow import project
from winnow.errors import WinnowError

QUIET = ("--quiet", "rules", "host", "reason")
ENDS = (
    "--cores",
    "-c",
    "--jobs",
    "-j",
    "--profile",
    "--executor",
    "-e",
    "--dry-run",
    "-n",
    "--unlock",
    "--summary",
    "--touch",
)


def _stage(name: str) -> Callable[[list[str]], int]:
    def run(arguments: list[str]) -> int:
        import importlib

        return importlib.import_module(f"winnow.stages.{name}").main(arguments)

    return run


def demo(arguments: list[str]) -> int:
    """Run the three pipelines at toy size, on digits and generated sentences; a report, and the tables in this
    terminal.

    Takes any option of snakemake. What is there already is not run again.
    """
    code = _snakemake([*QUIET, *_with_cores(arguments, "2")], warm=True)
    if code:
        return code
    for command in (["winnow.stages.report"], ["winnow.tables.show", "results/tables"]):
        code = code or subprocess.call([sys.executable, "-m", *command])
    print("report: results/report.html")
    return code


def run(arguments: list[str]) -> int:
    """Run what is not done yet: winnow run [my.yaml] [TARGET ...] [any option of snakemake]

    my.yaml stands for --configfile my.yaml; without it, the embedded default runs. Without --cores or a profile all
    cores are used. `--profile slurm` submits to a cluster. Ctrl-C lets running jobs save their state; the next run goes
    on.
    """
    return _snakemake(_with_cores(_configured(arguments), "all"))


def plan(arguments: list[str]) -> int:
    """Tell what a run would cost: winnow plan [my.yaml] [TARGET ...] [--each] [any option of snakemake]

    Jobs, CPU and GPU hours and disk of every rule for what is not done yet; --each: a line a job with what it asks for.
    """
    root = project.workflow()
    script = [sys.executable, str(root / "workflow/plan.py"), "--snakefile", str(root / "Snakefile")]
    return subprocess.call([*script, *_profiled(_configured(arguments))])


def config(arguments: list[str]) -> int:
    """Print the configuration that results: winnow config [my.yaml ...]

    Each key with the file and line that set it; without a file, the embedded default.
    """
    from winnow.config.document import main as show

    return show(arguments or ["--default"])


def _later(module: str, name: str) -> Callable[[list[str]], int]:
    def command(arguments: list[str]) -> int:
        import importlib

        return getattr(importlib.import_module(module), name)(arguments)

    return command


def verify(arguments: list[str]) -> int:
    """The artifacts of a run; or a folder that `winnow export` wrote, which is known by its statement."""
    if any((Path(word) / "statement.intoto.json").is_file() for word in arguments):
        return _later("winnow.share.command", "verify")(arguments)
    return _stage("verify")(arguments)


COMMANDS: dict[str, tuple[str, Callable[[list[str]], int]]] = {
    "demo": ("run the three pipelines at toy size, and show what they give", demo),
    "plan": ("jobs, hours and disk of a run, before anything runs", plan),
    "run": ("run what is not done yet: my.yaml, targets, options of snakemake", run),
    "config": ("the configuration that results, each key with its origin", config),
    "status": ("running, failed and finished jobs, what is left and how long", _later("winnow.status", "main")),
    "tickets": ("the tickets below a folder; of one ticket, its layers", _later("winnow.tickets", "main")),
    "evaluate": ("accuracy of weights, or of a model folder, on its task", _later("winnow.measure", "evaluate")),
    "attack": ("accuracy of the same under attack", _later("winnow.measure", "attack")),
    "survive": (
        "a ticket beside dense: 1/10 data, corruptions, AutoAttack",
        _later("winnow.survive", "main"),
    ),
    "verify": ("check every artifact of a run, or an exported folder", verify),
    "trace": ("what an artifact was made from, every hash checked", _stage("trace")),
    "report": ("results as one HTML file: verdicts, tables, figures, tickets", _stage("report")),
    "export": ("a ticket with its weights, card and statement, to share", _later("winnow.share.command", "main")),
}


def usage() -> str:
    """What `winnow --help` prints; it fits a screen of 24 lines."""
    rows = "\n".join(f"  {name:<9} {text}" for name, (text, _) in COMMANDS.items())
    return (
        "usage: winnow COMMAND [ARGUMENT ...]\n\nFinds, transfers and attacks lottery tickets: sparse subnetworks.\n\n"
        f"{rows}\n\nwinnow COMMAND --help explains a command. Exit codes: 0 done, 2 bad input."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("--help", "-h", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        from winnow.fingerprint import versions

        print(f"winnow {versions().get('winnow', 'of a checkout that is not installed')}")
        return 0
    name, arguments = words[0], words[1:]
    try:
        if name not in COMMANDS:
            from winnow.errors import nearest

            raise WinnowError(f"{name!r} is no command{nearest(name, COMMANDS)}")
        command = COMMANDS[name][1]
        if arguments[:1] in (["--help"], ["-h"]) and command in (demo, run, plan, config):
            print(_dedented(command.__doc__ or ""))
            return 0
        return command(arguments)
    except WinnowError as error:
        print(f"winnow {name}: error: {error}" if name in COMMANDS else f"winnow: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"winnow {name}: stopped by Ctrl-C", file=sys.stderr)
        return 143
    except BrokenPipeError:  # `winnow tickets | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dedented(text: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in text.strip().splitlines())


def _configured(arguments: Sequence[str]) -> list[str]:
    """Leading configuration files as --configfile; WinnowError for one that is not there."""
    files = []
    rest = list(arguments)
    while rest and rest[0].endswith((".yaml", ".yml")):
        files.append(rest.pop(0))
    missing = [f for f in files if not Path(f).is_file()]
    if missing:
        raise WinnowError(f"{missing[0]}: no such file; give a configuration, for example one of config/examples")
    return [*rest, "--configfile", *files] if files else rest


def _profiled(arguments: Sequence[str]) -> list[str]:
    """The same with `--profile slurm` as the one that comes with winnow where the working folder has none of that
    name.
    """
    words = list(arguments)
    for i, word in enumerate(words[:-1]):
        own = project.workflow() / "profiles" / words[i + 1]
        if word == "--profile" and not Path(words[i + 1]).exists() and own.is_dir():
            words[i + 1] = str(own)
    return words


def _with_cores(arguments: Sequence[str], cores: str) -> list[str]:
    words = _profiled(arguments)
    given = any(word.partition("=")[0] in ENDS or word[:2] in ("-c", "-j") for word in words)
    return words if given else [*words, "--cores", cores]


def _snakemake(arguments: Sequence[str], warm: bool = False) -> int:
    """Run winnow's workflow here; afterwards one line for every job that failed. Returns the exit code."""
    import time

    command = [sys.executable, "-m", "snakemake", "--snakefile", str(project.workflow() / "Snakefile"), *arguments]
    if warm:
        command = [sys.executable, "-m", "winnow.warm", *command]
    begun = time.time()
    process = subprocess.Popen(command)
    # a Ctrl-C reaches snakemake and its jobs by itself; SIGTERM is passed on, and both wait for what they save
    previous = {n: signal.signal(n, h) for n, h in (
        (signal.SIGINT, lambda *_: None), (signal.SIGTERM, lambda n, _: process.send_signal(n)))}  # fmt: skip
    try:
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if code:
        from winnow.status import jobs

        ended = jobs(Path("results"), since=begun - 1)
        for job in ended:
            if job.state == "failed":
                print(f"{job.file}: {job.line}", file=sys.stderr)
        if stopped := sum(job.state == "stopped" for job in ended):
            print(
                f"{stopped} jobs were stopped and have saved their state; the same command goes on from there",
                file=sys.stderr,
            )
    return 128 - code if code < 0 else code
