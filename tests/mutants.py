"""Wrong code, one mistake at a time: does the suite notice? `python tests/mutants.py [--each N] [--write] [MODULE
...]`.

For each module that decides results, mistakes are drawn from a seed (a comparison turned, an operator exchanged, a
number off by one, a condition negated, a branch or a statement left out, two arguments exchanged, a keyword argument
dropped), put into a copy of the sources one by one, and the tests named here for that module run on the copy. What no
test notices is printed with its place.

A script of our own and no mutmut or cosmic-ray: both start Python anew for each mistake, which with torch takes longer
than the tests do; here each mistake is a fork of one process that has torch imported.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# module -> test files that must notice its mistakes
MODULES = {
    "prune/counts.py": ["test_prune.py", "test_prune_methods.py"],
    "prune/layers.py": ["test_layers.py", "test_prune_methods.py"],
    "prune/erk.py": ["test_prune_methods.py"],
    "prune/lamp.py": ["test_prune_methods.py"],
    "prune/snip.py": ["test_prune_methods.py", "test_prune_models.py"],
    "prune/synflow.py": ["test_prune_methods.py", "test_prune_models.py"],
    "prune/grasp.py": ["test_prune_methods.py", "test_prune_models.py"],
    "prune/smart_ratio.py": ["test_prune.py", "test_prune_methods.py"],
    "ticket.py": ["test_decisions.py", "test_ticket.py"],
    "rng.py": ["test_training.py", "test_vision_data.py"],
    "gems/order.py": ["test_decisions.py", "test_gems_library.py"],
    "gems/pruning.py": ["test_decisions.py", "test_gems_library.py"],
    "gems/regularizers.py": ["test_gems_library.py"],
    "gems/scores.py": ["test_gems_library.py", "test_wiring_gems.py"],
    "vision/attack.py": ["test_attack.py", "test_wiring_attacks.py"],
    "vision/geometry.py": ["test_wiring_augment.py", "test_vision_data.py"],
    "text/hard_concrete.py": ["test_text_masks.py"],
    "text/freelb.py": ["test_text_masks.py", "test_wiring_text.py", "test_text_settings.py"],
    "train/optim.py": ["test_decisions.py", "test_wiring_optim.py"],
    "train/masking.py": ["test_training.py", "test_wiring_stages.py"],
    "pipelines/double_win/table.py": ["test_tables.py", "test_flags.py"],
    "pipelines/rare_gems/table.py": ["test_decisions.py", "test_flags.py"],
    "pipelines/robust_bert/table.py": ["test_robust_bert_table.py", "test_tables.py"],
    "artifacts.py": ["test_artifacts.py", "test_outside.py"],
    "store.py": ["test_store.py", "test_store_trust.py"],
}
COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATE = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
SILENT = (
    "log",
    "logging",
    "warnings",
    "WinnowError",
    "ValueError",
    "cast",
    "Literal",
    "TypeVar",
    "dataclass",
    "key",
    "print",
)


@dataclass(frozen=True)
class Mutant:
    """One mistake: the text from `start` to `end` (bytes of the source) becomes `new`."""

    line: int
    start: int
    end: int
    old: str
    new: str


def _places(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes whose change can change a result: no docstrings, types, messages, logs."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] in SILENT:
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.keyword) and node.arg in ("strict", "sort"):
            continue
        yield node
        skipped = [getattr(node, name, None) for name in ("annotation", "returns", "decorator_list", "bases")]
        for name, value in ast.iter_fields(node):
            if any(value is s for s in skipped) or (name == "type_params"):
                continue
            waiting += [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST)]


def _changes(node: ast.AST) -> Iterator[ast.AST | str]:
    """Wrong versions of a node."""
    wrong = copy.deepcopy(node)
    if isinstance(wrong, ast.Compare) and len(wrong.ops) == 1 and type(wrong.ops[0]) in COMPARE:
        wrong.ops = [COMPARE[type(wrong.ops[0])]()]
        yield wrong
    elif isinstance(wrong, ast.BinOp) and type(wrong.op) in OPERATE:
        wrong.op = OPERATE[type(wrong.op)]()
        yield wrong
    elif isinstance(wrong, ast.Constant) and isinstance(wrong.value, bool):
        yield ast.Constant(not wrong.value)
    elif isinstance(wrong, ast.Constant) and isinstance(wrong.value, int | float):
        yield ast.Constant(wrong.value + 1 if isinstance(wrong.value, int) else wrong.value * 2 + 1e-3)
    elif isinstance(wrong, ast.UnaryOp) and isinstance(wrong.op, ast.USub | ast.Not | ast.Invert):
        yield wrong.operand
    elif isinstance(wrong, ast.BoolOp):
        wrong.op = ast.And() if isinstance(wrong.op, ast.Or) else ast.Or()
        yield wrong
    elif isinstance(wrong, ast.IfExp):
        wrong.body, wrong.orelse = wrong.orelse, wrong.body
        yield wrong
    elif isinstance(wrong, ast.Call):
        if len(wrong.args) == 2 and ast.unparse(wrong.func).split(".")[-1] not in (
            "min",
            "max",
            "mul",
            "maximum",
            "minimum",
        ):
            swapped = copy.deepcopy(wrong)
            swapped.args.reverse()
            yield swapped
        # these guard, or choose where: the last to go
        wrong.keywords.sort(key=lambda k: k.arg in ("strict", "out", "observed"))
        if wrong.keywords and wrong.keywords[0].arg and wrong.keywords[0].arg not in ("strict", "out", "observed"):
            wrong.keywords.pop(0)
            yield wrong
    elif isinstance(wrong, ast.AugAssign) or (isinstance(wrong, ast.Expr) and isinstance(wrong.value, ast.Call)):
        yield "pass"


def mutants(source: str) -> list[Mutant]:
    """Every mistake that is put into a module, in the order of its lines."""
    lines = [0]
    for line in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    found, data = [], source.encode()
    for node in _places(ast.parse(source)):
        for wrong in _changes(node):
            start = lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
            end = lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
            new = wrong if isinstance(wrong, str) else ast.unparse(wrong)
            new = new if isinstance(wrong, str) else f"({new})"
            found.append(Mutant(node.lineno, start, end, data[start:end].decode(), new))  # type: ignore[attr-defined]
    return sorted(found, key=lambda m: (m.start, m.end, m.new))


def noticed(copied: Path, tests: list[str], seconds: float) -> bool:
    """Whether a test fails (or does not end) on the copied sources, in a fork of this process."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(copied)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.environ["PYTHONPATH"] = str(copied / "src")
        sys.path.insert(0, str(copied / "src"))
        sys.dont_write_bytecode = True
        code = 1
        with contextlib.suppress(BaseException):
            code = importlib.import_module("pytest").main(
                [
                    "-q",
                    "-x",
                    "-p",
                    "no:cacheprovider",
                    "-p",
                    "no:xdist",
                    "--timeout",
                    str(int(seconds)),
                    *(f"tests/unit/{t}" for t in tests),
                ]
            )
        os._exit(int(code))
    until = time.monotonic() + seconds + 30
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def check(module: str, tests: list[str], each: int, seed: int) -> tuple[int, list[Mutant]]:
    """Number of mistakes tried in a module, and those that no test noticed."""
    source = (ROOT / "src/winnow" / module).read_text()
    chosen = mutants(source)
    if each and len(chosen) > each:
        chosen = sorted(random.Random(f"{seed} {module}").sample(chosen, each), key=lambda m: m.start)
    with tempfile.TemporaryDirectory(prefix="winnow-mutants-") as name:
        copied = Path(name)
        for part in ("src", "tests", "config", "envs", "workflow", "profiles"):
            shutil.copytree(ROOT / part, copied / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for file in ("pyproject.toml", "Snakefile", "README.md", "Makefile"):
            shutil.copyfile(ROOT / file, copied / file)
        target = copied / "src/winnow" / module
        if noticed(copied, tests, 600):
            raise SystemExit(f"{module}: its tests ({', '.join(tests)}) fail without any mistake; mend them first")
        survivors = []
        for mutant in chosen:
            data = source.encode()
            target.write_bytes(data[: mutant.start] + mutant.new.encode() + data[mutant.end :])
            if not noticed(copied, tests, 120):
                survivors.append(mutant)
                print(f"  {module}:{mutant.line}: {mutant.old!r:.80} -> {mutant.new!r:.80}", flush=True)
    return len(chosen), survivors


def main() -> int:
    """Try, print, and with --write keep the score in docs/mutants.json."""
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--each", type=int, default=20, help="mistakes a module, drawn; 0: all (20)")
    p.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    p.add_argument("--write", action="store_true", help="keep the score in docs/mutants.json")
    p.add_argument("modules", nargs="*", help="below src/winnow (all that are listed)")
    args = p.parse_args()
    for name in ("torch", "numpy", "pytest", "safetensors.torch", "hypothesis"):
        importlib.import_module(name)
    kept = ROOT / "docs/mutants.json"
    score = json.loads(kept.read_text()) if args.write and kept.exists() else {}
    for module in args.modules or MODULES:
        tried, survivors = check(module, MODULES[module], args.each, args.seed)
        print(f"{module}: {tried - len(survivors)} of {tried} noticed", flush=True)
        lives = [f"{m.line}: {m.old} -> {m.new}" for m in survivors]
        score[module] = {"tried": tried, "noticed": tried - len(survivors), "unnoticed": lives}
        if args.write:
            kept.write_text(json.dumps(score, indent=1, sort_keys=True) + "\n")
    tried, seen = (sum(s[k] for s in score.values()) for k in ("tried", "noticed"))
    print(f"{seen} of {tried} noticed ({100 * seen / max(tried, 1):.0f} %)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
