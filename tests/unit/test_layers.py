"""The layers of winnow: the library below, the commands above, and no circle among modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import winnow

SOURCE = Path(winnow.__file__).resolve().parent
COMMANDS = {
    "winnow.stages",
    "winnow.stage",
    "winnow.job",
    "winnow.launch",
    "winnow.warm",
    "winnow.measure",
    "winnow.cli",
    "winnow.survive",
    "winnow.__main__",
}


def module_name(file: Path, source: Path = SOURCE) -> str:
    return ".".join(("winnow", *file.relative_to(source).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_name(f): f for f in sorted(SOURCE.rglob("*.py"))}


def is_command(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in COMMANDS)


def statements(tree: ast.AST, lazy: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements; without `lazy` those alone that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif lazy or not (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ):
            yield from statements(node, lazy)


def imports(tree: ast.AST, module: str, is_package: bool, known: set[str], lazy: bool) -> set[str]:
    """The modules out of `known` that `tree` imports by a statement."""
    found = set()
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in statements(tree, lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        up = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*up, *([node.module] if node.module else [])])
        inside = {f"{base}.{alias.name}" for alias in node.names} & known
        found |= inside if len(inside) == len(node.names) else inside | {base}
    return found & known


def graph(lazy: bool) -> dict[str, set[str]]:
    return {
        name: imports(ast.parse(file.read_text(encoding="utf-8")), name, file.name == "__init__.py", set(MODULES), lazy)
        for name, file in MODULES.items()
    }


def names_in_strings(tree: ast.AST) -> set[str]:
    """Module names that a call takes as a string, such as importlib.import_module's."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and "import" in ast.unparse(n.func)]
    return {a.value for c in calls for a in c.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}


def test_the_library_imports_no_command():
    links = {name: found for name, found in graph(lazy=True).items() if not is_command(name)}
    links["winnow"] -= {"winnow.warm"}  # the package hands a stage's process over before anything is imported
    reached = {name: {i for i in found if is_command(i)} for name, found in links.items()}
    assert len(reached) > 50 and {"winnow.train.loop", "winnow.store", "winnow.run"} <= set(reached)
    assert {name: found for name, found in reached.items() if found} == {}
    by_name = {n: {s for s in names_in_strings(ast.parse(MODULES[n].read_text())) if is_command(s)} for n in reached}
    assert {name: found for name, found in by_name.items() if found} == {}


def test_no_module_imports_itself_by_way_of_others():
    TopologicalSorter(graph(lazy=False)).prepare()


@pytest.mark.parametrize(
    ("code", "at_import", "ever"),
    [
        ("import winnow.stage", {"winnow.stage"}, {"winnow.stage"}),
        ("from winnow import launch, store", {"winnow.launch", "winnow.store"}, {"winnow.launch", "winnow.store"}),
        ("from ..stage import Job", {"winnow.stage"}, {"winnow.stage"}),
        ("def f():\n    from winnow.stage import Job", set(), {"winnow.stage"}),
        ("class A:\n    from winnow.stage import Job", {"winnow.stage"}, {"winnow.stage"}),
        ("if TYPE_CHECKING:\n    from winnow.stage import Job", set(), {"winnow.stage"}),
        ("try:\n    import winnow.launch\nexcept ImportError:\n    pass", {"winnow.launch"}, {"winnow.launch"}),
    ],
)
def test_what_counts_as_an_import(code, at_import, ever):
    tree, known = ast.parse(code), set(MODULES)
    assert imports(tree, "winnow.train.loop", False, known, lazy=False) == at_import
    assert imports(tree, "winnow.train.loop", False, known, lazy=True) == ever


def test_a_circle_is_seen():
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).prepare()
