"""What code a stage runs: hashes over its import closure within winnow, of what can change a result and of nothing
else.

Snakemake does not track imported modules. Every rule carries these hashes among its params and every artifact records
one over all of them, so an edit reruns the stages that can reach the edited module, and the reason that Snakemake
prints names the folder and the module. Left out are docstrings, comments, formatting, descriptions of configuration
keys, help, log and error texts; the classes of the configuration, whose values are in a job's configuration; and the
modules that only carry results (commands, store, records, report), whose output has a format number. The table of
pruning methods is left out as well: an entry tells how to call a method's file, which counts for the jobs that run it,
so a new method leaves what was pruned by the others.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARRIERS = frozenset(
    f"winnow.{m}"
    for m in (
        "stage", "job", "run", "launch", "warm", "guard", "store", "digests", "records", "errors", "fingerprint",
        "schema", "tables.page",
        "tables.show",
        "tables.charts", "tables.summary", "prune.methods", "progress", "project", "surroundings",
    )
)  # fmt: skip
DESCRIBED = ("winnow.config", "winnow.pipelines")  # of these modules classes of the configuration do not count
SPEAKING = ("log", "logging", "warnings")  # their calls say something
TEXTS = frozenset({"help", "description", "desc", "doc"})


@cache
def _locate(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(tree: ast.Module, module: str, is_package: bool) -> set[str]:
    found: set[str] = set()
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            found.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
    return {name for name in found if name.split(".")[0] == "winnow"}


class _AtRunTime(ast.NodeTransformer):
    """Takes out what only a type checker reads: blocks under `if TYPE_CHECKING`."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        only_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return (node.orelse or [ast.Pass()]) if only_types else node


class _Meaning(ast.NodeTransformer):
    """Takes out of a syntax tree what changes no result."""

    def __init__(self, described: bool):
        self.described = described

    def _body(self, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        kept = [s for s in node.body if not (isinstance(s, ast.Expr) and _says(s.value))]
        node.body = kept or [ast.Pass()]
        return node

    visit_Module = visit_FunctionDef = visit_AsyncFunctionDef = _body  # noqa: N815  (names of ast)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST | None:
        configures = self.described and any(isinstance(b, ast.Name) for b in node.bases) and not _has_logic(node)
        return None if configures else self._body(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return ast.Pass() if _says(node.value) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func  # which error, not its words
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        node.keywords = [k for k in node.keywords if k.arg not in TEXTS]
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "key":
            node.args = node.args[1:]
        if name == "Stage":
            for dictionary in ast.walk(node):
                if isinstance(dictionary, ast.Dict):
                    dictionary.values = [ast.Constant(None) for _ in dictionary.values]
        return node


def _has_logic(node: ast.ClassDef) -> bool:
    """Whether a class of the configuration has methods that do more than refuse."""
    functions = [n for n in node.body if isinstance(n, ast.FunctionDef)]
    return any(f.name != "check" for f in functions)


def _says(value: ast.expr) -> bool:
    """A docstring, or a call that only writes to the log."""
    if isinstance(value, ast.Constant):
        return True
    function = value.func if isinstance(value, ast.Call) else None
    return (
        isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in SPEAKING
    )


@cache
def _read(module: str) -> tuple[str, frozenset[str]]:
    """What a module means, as text without line breaks that matter, and the winnow modules that it imports."""
    path = _locate(module)
    assert path is not None
    tree = _AtRunTime().visit(ast.parse(path.read_text(encoding="utf-8")))
    imports = _imports(tree, module, path.name == "__init__.py")  # before _meant, which takes out of the tree
    return _meant(tree, module.startswith(DESCRIBED)), frozenset(imports)


def meaning(code: str, described: bool = False) -> str:
    """Python code as text without what changes no result. Raises SyntaxError."""
    return _meant(_AtRunTime().visit(ast.parse(code)), described)


def _meant(tree: ast.Module, described: bool) -> str:
    return ast.unparse(ast.fix_missing_locations(_Meaning(described).visit(tree)))


def closure(modules: str | Iterable[str]) -> list[str]:
    """Names of the winnow modules that these can reach by import, themselves and their packages' __init__ included,
    sorted.

    Carriers are neither in it nor followed.
    """
    seen: set[str] = set()
    waiting = [modules] if isinstance(modules, str) else list(modules)
    while waiting:
        name = waiting.pop()
        if name in seen or name in CARRIERS or _locate(name) is None:
            continue
        seen.add(name)
        waiting.extend(_read(name)[1])
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return sorted(seen)


@cache
def module_hash(module: str) -> str:
    """8 hex digits over what a module means."""
    return hashlib.sha256(_read(module)[0].encode()).hexdigest()[:8]


@cache
def stamps(stage: str, also: tuple[str, ...] = ()) -> tuple[str, ...]:
    """One text a folder of the closure of `winnow.stages.<stage>` and the modules `also`: `prune: counts 1a2b3c4d, lamp
    ...`.
    """
    folders: dict[str, list[str]] = {}
    for module in closure([f"winnow.stages.{stage}", *also]):
        parent, _, name = module.removeprefix("winnow").lstrip(".").rpartition(".")
        folders.setdefault(parent or "winnow", []).append(f"{name or 'winnow'} {module_hash(module)}")
    return tuple(f"{folder}: {', '.join(modules)}" for folder, modules in sorted(folders.items()))


def source_hash(stage: str, also: Sequence[str] = ()) -> str:
    """16 hex digits over the code of a stage."""
    return hashlib.sha256("\n".join(stamps(stage, tuple(also))).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    found = {"python": platform.python_version()}
    for package in ("winnow", "numpy", "torch", "transformers", "textattack"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
