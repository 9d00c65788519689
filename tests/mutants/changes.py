"""What a mistake is: every wrong version of a module's statements and expressions, one change each.

A comparison turned, an operator exchanged, a number off by one, a condition negated, a statement left out, two
arguments exchanged, a keyword argument dropped, a branch taken for the other; and what connects parts: `val` for
`test`, `last` for `best`, `before` for `after`, the least for the largest.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATE = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
# names, attributes and keys that are taken for each other
CONFUSED = {
    "train": "val", "val": "test", "test": "val", "best": "last", "last": "best", "before": "after", "after": "before",
    "min": "max", "max": "min", "any": "all", "all": "any", "argmax": "argmin", "argmin": "argmax", "mean": "sum",
    "floor": "ceil", "ceil": "floor", "acc_before": "acc_after", "acc_after": "acc_before",
    "std_sa": "adv_sa", "adv_sa": "std_sa",
}  # fmt: skip
SILENT = ("log", "logging", "warnings", "WinnowError", "ValueError", "cast", "Literal", "TypeVar", "dataclass", "key",
          "print")  # fmt: skip
# exchanged arguments change nothing, or name another of many streams of random numbers
SYMMETRIC = ("min", "max", "mul", "maximum", "minimum", "zip", "isclose", "seed_of", "generator", "numpy_generator")
GUARDS = ("strict", "out", "observed")  # keywords that guard, or choose where


@dataclass(frozen=True)
class Mutant:
    """One mistake: the text from `start` to `end` (bytes of the source, lines `line` to `last`) becomes `new`."""

    line: int
    last: int
    start: int
    end: int
    function: str
    old: str
    new: str

    @property
    def place(self) -> tuple[str, str, str]:
        """What it is known by, wherever the lines move."""
        return self.function, " ".join(self.old.split()), " ".join(self.new.split())


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Nodes whose change can change a result (no docstrings, types, messages, logs), and the function around them."""
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, function = waiting.pop()
        if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'"):
            continue
        if _says(node):
            continue
        if isinstance(node, ast.Expr) and (isinstance(node.value, ast.Constant) or _says(node.value)):
            continue
        if isinstance(node, ast.keyword) and node.arg in ("strict", "sort"):
            continue
        yield node, function
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
        skipped = [getattr(node, name, None) for name in ("annotation", "returns", "decorator_list", "bases")]
        for name, value in ast.iter_fields(node):
            if any(value is s for s in skipped) or (name == "type_params"):
                continue
            values = value if isinstance(value, list) else [value]
            waiting += [(v, function) for v in values if isinstance(v, ast.AST)]


def _says(node: ast.AST) -> bool:
    """A call that only says something, or declares."""
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] in SILENT


def _condition(test: ast.expr) -> Iterator[ast.expr]:
    """The opposite of a plain condition; comparisons and `not` are turned by themselves."""
    if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
        yield ast.UnaryOp(ast.Not(), test)


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST | str]]:
    """(node, its wrong version): of a node, or of the condition that it holds."""
    wrong = copy.deepcopy(node)
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield from ((node.test, w) for w in _condition(copy.deepcopy(node.test)))
    if isinstance(wrong, ast.Compare) and len(wrong.ops) == 1 and type(wrong.ops[0]) in COMPARE:
        wrong.ops = [COMPARE[type(wrong.ops[0])]()]
        yield node, wrong
    elif isinstance(wrong, ast.BinOp) and type(wrong.op) in OPERATE:
        wrong.op = OPERATE[type(wrong.op)]()
        yield node, wrong
    elif isinstance(wrong, ast.Constant) and isinstance(wrong.value, bool):
        yield node, ast.Constant(not wrong.value)
    elif isinstance(wrong, ast.Constant) and isinstance(wrong.value, int | float):
        yield node, ast.Constant(wrong.value + 1 if isinstance(wrong.value, int) else wrong.value * 2 + 1e-3)
    elif isinstance(wrong, ast.Constant) and wrong.value in CONFUSED:
        yield node, ast.Constant(CONFUSED[wrong.value])
    elif isinstance(wrong, ast.Attribute) and wrong.attr in CONFUSED:
        wrong.attr = CONFUSED[wrong.attr]
        yield node, wrong
    elif isinstance(wrong, ast.Name) and isinstance(wrong.ctx, ast.Load) and wrong.id in ("min", "max", "any", "all"):
        yield node, ast.Name(CONFUSED[wrong.id])
    elif isinstance(wrong, ast.UnaryOp) and isinstance(wrong.op, ast.USub | ast.Not | ast.Invert):
        yield node, wrong.operand
    elif isinstance(wrong, ast.BoolOp):
        wrong.op = ast.And() if isinstance(wrong.op, ast.Or) else ast.Or()
        yield node, wrong
    elif isinstance(wrong, ast.IfExp):
        wrong.body, wrong.orelse = wrong.orelse, wrong.body
        yield node, wrong
    elif isinstance(wrong, ast.Call):
        if len(wrong.args) == 2 and ast.unparse(wrong.func).split(".")[-1] not in SYMMETRIC:
            swapped = copy.deepcopy(wrong)
            swapped.args.reverse()
            yield node, swapped
        wrong.keywords.sort(key=lambda k: k.arg in GUARDS)  # the last to go
        if wrong.keywords and wrong.keywords[0].arg and wrong.keywords[0].arg not in GUARDS:
            wrong.keywords.pop(0)
            yield node, wrong
    elif isinstance(wrong, ast.AugAssign) or (isinstance(wrong, ast.Expr) and isinstance(wrong.value, ast.Call)):
        yield node, "pass"


def mutants(source: str) -> list[Mutant]:
    """Every mistake that is put into a module, in the order of its lines."""
    lines = [0]
    for line in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    found, data = [], source.encode()
    for outer, function in _places(ast.parse(source)):
        for node, wrong in _changes(outer):
            start = lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
            end = lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
            new = wrong if isinstance(wrong, str) else f"({ast.unparse(wrong)})"
            old = data[start:end].decode()
            found.append(Mutant(node.lineno, node.end_lineno, start, end, function, old, new))  # type: ignore[attr-defined]
    return sorted(found, key=lambda m: (m.start, m.end, m.new))
