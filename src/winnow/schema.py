"""Typed configuration from plain dicts: frozen dataclasses are the schema, this module checks values against them.

Stages run where only torch and numpy may be installed, so this is done over the standard library; what it adds to a
validation library is the message: the key's path, the value, and the nearest valid one, on one line.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import MISSING
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

from winnow.errors import WinnowError, nearest

T = TypeVar("T")


def key(
    doc: str,
    default: Any = MISSING,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    factory: Any = MISSING,
) -> Any:
    """A documented configuration key: `default` (or `factory`), and bounds that hold for each number in it."""
    metadata = {"doc": doc, "ge": ge, "gt": gt, "le": le, "lt": lt}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


@typing.dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(key,))
def part(cls: type[T]) -> type[T]:
    """Decorator of every configuration class."""
    return dataclasses.dataclass(frozen=True, kw_only=True, slots=True)(cls)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def parse(cls: type[T], value: Any, path: str = "config") -> T:
    """Build `cls` from a mapping; raises WinnowError naming the key for anything unknown, missing or out of range."""
    if not isinstance(value, dict):
        raise WinnowError(f"{path}: expected a mapping of keys, got {value!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in value:
        if name not in fields:
            raise WinnowError(f"{path}.{name}: unknown key{nearest(str(name), fields)}")
    arguments = {}
    hints = _hints(cls)  # type: ignore[arg-type]
    for name, f in fields.items():
        where = f"{path}.{name}"
        if name in value:
            arguments[name] = _convert(hints[name], value[name], where, f.metadata)
        elif f.default is MISSING and f.default_factory is MISSING:
            raise WinnowError(f"{where}: required key is missing ({f.metadata['doc']})")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise WinnowError(f"{path}: {error}") from None


def _convert(kind: Any, value: Any, path: str, meta: Any) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        choices = [a for a in args if a is not type(None)]
        if len(choices) > 1:  # int | Literal["..."] and the like: the first that fits
            for choice in choices:
                try:
                    return _convert(choice, value, path, meta)
                except WinnowError:
                    continue
            raise WinnowError(f"{path}: {value!r} is none of {type_name(kind)}")
        return _convert(choices[0], value, path, meta)
    if origin is Literal:
        if value not in args or isinstance(value, bool) != any(isinstance(a, bool) and a == value for a in args):
            raise WinnowError(f"{path}: {value!r} is not a valid choice{nearest(str(value), args)}")
        return value
    if origin is list:
        if not isinstance(value, list | tuple):
            raise WinnowError(f"{path}: expected a list, got {value!r}")
        return [_convert(args[0], v, f"{path}[{i}]", meta) for i, v in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise WinnowError(f"{path}: expected a mapping, got {value!r}")
        return {str(k): _convert(args[1], v, f"{path}.{k}", meta) for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        return parse(typing.cast(type, kind), value, path)
    return _scalar(kind, value, path, meta)


def _scalar(kind: Any, value: Any, path: str, meta: Any) -> Any:
    if kind is bool or kind is str:
        if not isinstance(value, kind):
            raise WinnowError(f"{path}: expected {type_name(kind)}, got {value!r}")
        return value
    if isinstance(value, bool):
        raise WinnowError(f"{path}: expected {type_name(kind)}, got {value!r}")
    number = value
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string, and 8/255 is how the papers write an eps
        try:
            above, _, below = value.partition("/")
            number = float(above) / float(below or 1)
        except (ValueError, ZeroDivisionError):
            raise WinnowError(f"{path}: expected {type_name(kind)}, got {value!r}") from None
    if not isinstance(number, int | float):
        raise WinnowError(f"{path}: expected {type_name(kind)}, got {value!r}")
    if kind is int:
        if number != int(number) if math.isfinite(number) else True:
            raise WinnowError(f"{path}: expected a whole number, got {value!r}")
        number = int(number)
    else:
        number = float(number)
        if not math.isfinite(number):
            raise WinnowError(f"{path}: expected a finite number, got {value!r}")
    for name, sign, holds in (
        ("ge", ">=", lambda a, b: a >= b),
        ("gt", ">", lambda a, b: a > b),
        ("le", "<=", lambda a, b: a <= b),
        ("lt", "<", lambda a, b: a < b),
    ):
        bound = meta.get(name)
        if bound is not None and not holds(number, bound):
            raise WinnowError(f"{path}: {value!r} must be {sign} {bound}")
    return number


def plain(value: Any) -> Any:
    """A configuration object as dicts, lists and scalars."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def canonical_json(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, no NaN. Hashes and Snakemake params are taken over it."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def type_name(kind: Any) -> str:
    """A type as a reader of the documentation wants to see it."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if a is type(None) else type_name(a) for a in args)
    if origin is Literal:
        return ", ".join(json.dumps(a) for a in args)
    if origin is list:
        return f"list of {type_name(args[0])}"
    if origin is dict:
        return f"mapping to {type_name(args[1])}"
    if dataclasses.is_dataclass(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"  # type: ignore[union-attr]
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}.get(kind, str(kind))
