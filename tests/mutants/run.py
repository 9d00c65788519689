"""Wrong code, one mistake at a time: does the suite notice? `make mutants`.

modules.yaml lists the modules that decide results, with the tests that must notice their mistakes. For each module,
mistakes (changes.py) are drawn from a seed and put into a copy of the sources one by one; the tests that run the
changed lines run on the copy, the fastest file first, up to the first that fails. What no test notices is printed with
its place. `--write` keeps the score in docs/mutants.json and writes docs/mutants.md from it, with the explanation that
modules.yaml has for each mistake that was not noticed.

A script of our own and no mutmut or cosmic-ray: both start Python anew for each mistake, which with torch takes longer
than the tests do; here each mistake is a fork of one process that has torch imported.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import importlib
import inspect
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mutants.changes import Mutant, mutants
from mutants.page import page

ROOT = Path(__file__).resolve().parents[2]

LISTED = yaml.safe_load((ROOT / "tests/mutants/modules.yaml").read_text(encoding="utf-8"))
HANGS = 900.0  # seconds after which tests are taken to wait for ever


class Watch:
    """Of each test how long it takes, and which lines of which modules it runs (in this process)."""

    def __init__(self, sources: Path):
        self.sources, self.lines, self.seen = f"{sources}/", dict[str, set[int]](), {}

    def _call(self, frame: Any, event: str, argument: Any) -> Any:
        body = frame.f_code.co_flags & inspect.CO_OPTIMIZED  # of a function: what a module does is done once for all
        return self._line if body and frame.f_code.co_filename.startswith(self.sources) else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        self.lines.setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
        return self._line

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.lines, begun = {}, time.process_time()
        sys.settrace(self._call)
        yield
        sys.settrace(None)
        lines = {name.removeprefix(self.sources): sorted(found) for name, found in self.lines.items()}
        self.seen[item.nodeid] = [time.process_time() - begun, lines]


class Choice:
    """Of the tests those that run the changed lines (all, where none does), the fastest file first."""

    def __init__(self, seen: dict[str, Any], module: str, mutant: Mutant):
        reached = range(mutant.line, mutant.last + 1)
        touching = {n for n, (_, lines) in seen.items() if not set(reached).isdisjoint(lines.get(module, ()))}
        self.seconds = {n: s for n, (s, _) in seen.items() if n in (touching or seen)}
        self.files = sorted({n.split("::")[0] for n in self.seconds})

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [i for i in items if i.nodeid in self.seconds]
        files: dict[str, float] = {}
        for name, seconds in self.seconds.items():
            files[name.split("::")[0]] = files.get(name.split("::")[0], 0.0) + seconds
        items.sort(key=lambda i: (files[i.nodeid.split("::")[0]], i.nodeid.split("::")[0], self.seconds[i.nodeid]))


def tested(copied: Path, tests: list[str], plugin: Any, seconds: float = HANGS, kept: Path | None = None) -> bool:
    """Whether a test fails on the copied sources, or does not end within `seconds` of computing, in a fork of this
    process.

    `kept`: where what the plugin has seen is put.
    """
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(copied)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.environ["PYTHONPATH"] = str(copied / "src")
        sys.path.insert(0, str(copied / "src"))
        if kept is None:  # compiled files know times by the second: a change within one would not be seen
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
        code = 1
        with contextlib.suppress(BaseException):
            options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "pytest_timeout", "-p", "no:unraisableexception"]
            code = pytest.main([*options, f"--basetemp={copied / 'pt'}", *tests], plugins=[plugin])
            if kept is not None:
                kept.write_text(json.dumps(plugin.seen))
        os._exit(int(code))
    until = time.monotonic() + HANGS
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def calm(copied: Path, test: str) -> dict[str, Any]:
    """What `Watch` sees in the tests of one file on the code as it is; kept until the sources or the file change."""
    digest = hashlib.sha256()
    for file in sorted([*(copied / "src").rglob("*.py"), *(copied / "tests").rglob("conftest.py"), copied / test]):
        digest.update(file.read_bytes())
    kept = Path(tempfile.gettempdir(), f"winnow-mutants-{os.geteuid()}", f"{digest.hexdigest()}.json")
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    if not kept.exists():
        found = copied / "seen.json"
        if tested(copied, [test], Watch(copied / "src/winnow"), kept=found):
            raise RuntimeError(f"{test} fails without any mistake; mend it first")
        shutil.move(found, kept)
    return json.loads(kept.read_text())


def check(
    module: str, tests: list[str], each: int, seed: int, known: dict[str, Any] | None = None
) -> tuple[int, list[Mutant]]:
    """How many mistakes were put into a module, and those that no test noticed; of a `known` score those alone that it
    holds are tried again.
    """
    source = (ROOT / "src/winnow" / module).read_text(encoding="utf-8")
    chosen = mutants(source)
    if each and len(chosen) > each:
        chosen = sorted(random.Random(f"{seed} {module}").sample(chosen, each), key=lambda m: m.start)
    tried = len(chosen)
    if known is not None:
        places = [(m["in"], m["old"], m["new"]) for m in known["unnoticed"]]
        tried, chosen = known["tried"], [m for m in chosen if m.place in places]
        if {m.place for m in chosen} != set(places):
            raise RuntimeError(f"{module}: has changed since its score was taken; try all of its mistakes anew")
    tests = [f"tests/{t if '/' in t else f'unit/{t}'}.py" for t in tests]
    with tempfile.TemporaryDirectory(prefix="winnow-mutants-", ignore_cleanup_errors=True) as name:
        copied = Path(name)
        for part in ("src", "tests", "config", "envs", "workflow", "profiles"):
            shutil.copytree(ROOT / part, copied / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for file in ("pyproject.toml", "Snakefile", "README.md", "Makefile"):
            shutil.copyfile(ROOT / file, copied / file)
        target = copied / "src/winnow" / module
        seen = {name: found for test in tests for name, found in calm(copied, test).items()}
        for compiled in (target.parent / "__pycache__").glob(f"{target.stem}.*"):
            compiled.unlink()
        survivors, data = [], source.encode()
        for mutant in chosen:
            target.write_bytes(data[: mutant.start] + mutant.new.encode() + data[mutant.end :])
            choice = Choice(seen, module, mutant)
            if not tested(copied, choice.files, choice, 30 + 5 * sum(choice.seconds.values())):
                survivors.append(mutant)
                print(f"  {module}:{mutant.line}: {mutant.place[1]!r:.90} -> {mutant.place[2]!r:.90}", flush=True)
    return tried, survivors


def warm() -> list[Any]:
    """Import what takes long and is not ours; returns what must stay alive."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what is not needed takes longer to load than most tests
    for name in (
        "torch",
        "numpy",
        "pytest_timeout",
        "safetensors.torch",
        "hypothesis",
        "pandas",
        "matplotlib.pyplot",
        "pydantic",
    ):
        importlib.import_module(name)
    kept = [importlib.import_module("winnow.compat"), importlib.import_module("winnow.text.compat")]
    kept[0].advertorch_attacks()
    kept[1].textattack()
    for name in [n for n in sys.modules if n.split(".")[0] == "winnow"]:
        del sys.modules[name]
    gc.freeze()  # or each fork looks through all of it when it ends
    return kept


def write(score: dict[str, Any]) -> None:
    """docs/mutants.json and docs/mutants.md, modules in the order of modules.yaml."""
    score = {m: score[m] for m in LISTED["modules"] if m in score}
    (ROOT / "docs/mutants.json").write_text(json.dumps(score, indent=1) + "\n", encoding="utf-8")
    (ROOT / "docs/mutants.md").write_text(page(score, LISTED["explained"]), encoding="utf-8")


def main() -> int:
    """Try, print, and with --write keep the score."""
    p = argparse.ArgumentParser(prog="make mutants", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--each", type=int, default=15, help="mistakes a module, drawn; 0: all (15)")
    p.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    p.add_argument("--write", action="store_true", help="keep the score in docs/mutants.json and write docs/mutants.md")
    p.add_argument("--again", action="store_true", help="try those alone again that were not noticed; needs --write")
    p.add_argument("--page", action="store_true", help="write docs/mutants.md anew from docs/mutants.json, try nothing")
    p.add_argument("modules", nargs="*", help="below src/winnow (all that are listed)")
    args = p.parse_args()
    kept = ROOT / "docs/mutants.json"
    score = json.loads(kept.read_text(encoding="utf-8")) if (args.write or args.page) and kept.exists() else {}
    alive, failed = [] if args.page else warm(), False
    for module in () if args.page else args.modules or LISTED["modules"]:
        if args.again and not score.get(module, {}).get("unnoticed"):
            continue
        begun = time.monotonic()
        try:
            known = score[module] if args.again else None
            tried, survivors = check(module, LISTED["modules"][module], args.each, args.seed, known)
        except RuntimeError as error:
            failed = True
            print(error, flush=True)
            continue
        print(f"{module}: {tried - len(survivors)} of {tried} noticed, {time.monotonic() - begun:.0f} s", flush=True)
        places = [dict(zip(("in", "old", "new"), m.place, strict=True)) for m in survivors]
        score[module] = {"tried": tried, "unnoticed": places}
        if args.write:
            write(score)
    if args.page:
        write(score)
    tried, lives = sum(s["tried"] for s in score.values()), sum(len(s["unnoticed"]) for s in score.values())
    print(f"{tried - lives} of {tried} noticed ({100 * (tried - lives) / max(tried, 1):.1f} %)")
    del alive
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
