"""What code a stage runs: a hash over its import closure within winnow, without comments, docstrings and formatting.

Snakemake does not track imported modules. Every rule carries this hash among its params and every artifact records it, so
an edit reruns the stages that can reach the edited module, and nothing else.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import platform
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


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


def _strip_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            kept = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = kept or [ast.Pass()]


@cache
def _read(module: str) -> tuple[str, frozenset[str]]:
    path = _locate(module)
    assert path is not None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = _imports(tree, module, path.name == "__init__.py")
    _strip_docstrings(tree)
    return ast.unparse(tree), frozenset(imports)


def closure(module: str) -> list[str]:
    """Names of the winnow modules that `module` can reach by import, itself and its packages' __init__ included, sorted."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or _locate(name) is None:
            continue
        seen.add(name)
        waiting.extend(_read(name)[1])
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return sorted(seen)


@cache
def source_hash(stage: str) -> str:
    """16 hex digits over the code of `winnow.stages.<stage>` and all of winnow that it imports."""
    digest = hashlib.sha256()
    for module in closure(f"winnow.stages.{stage}"):
        digest.update(f"{module}\0{_read(module)[0]}\0".encode())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    found = {"python": platform.python_version()}
    for package in ("winnow", "numpy", "torch", "transformers", "textattack"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
