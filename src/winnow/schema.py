"""Typed configuration over pydantic: what a user writes and what a stage gets are checked by the same classes.

    class Attack(Part):
        steps: int = key("number of steps", ge=1)

    parse(Attack, {"steps": "x"}, "config.attack")   # WinnowError: config.attack.steps: ...

Beside pydantic's own checks numbers may be spelled `1e-4` or `8/255`, and the first mistake becomes one line with its
key.
"""

from __future__ import annotations

import json
import reprlib
import types
import typing
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticUndefined

from winnow.errors import WinnowError, nearest

P = TypeVar("P", bound="Part")
MISSING = PydanticUndefined
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
Origin = Callable[[Sequence[int | str]], str | None]


def key(doc: str, default: Any = MISSING, *, factory: Any = None, **bounds: float) -> Any:
    """A documented key: `default` (or `factory`), and bounds ge, gt, le, lt of its number."""
    chosen = {"default_factory": factory} if factory else {"default": default}
    return Field(description=doc, **chosen, **bounds)  # type: ignore[call-overload]


class Part(BaseModel):
    """Base of every configuration class: immutable, no unknown keys, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    def check(self) -> None:
        """Raise ValueError where the keys do not go together."""

    def having(self, **changes: Any) -> Self:
        """The same with these keys changed; checked like a new one."""
        return type(self).model_validate({name: getattr(self, name) for name in type(self).model_fields} | changes)

    @model_validator(mode="before")
    @classmethod
    def _spelling(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: _read(v, _scalars(cls, k)) if k in cls.model_fields else v for k, v in values.items()}

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        self.check()
        return self


@cache
def _scalars(cls: type[Part], name: str) -> frozenset[type]:
    """The scalar types that a key's annotation allows."""
    found: set[type] = set()
    waiting = [cls.model_fields[name].annotation]
    while waiting:
        hint = waiting.pop()
        if get_origin(hint) is Literal:
            found |= {type(a) for a in get_args(hint)}
        elif get_origin(hint) is dict:
            waiting.append(get_args(hint)[1])
        elif get_origin(hint):
            waiting += [a for a in get_args(hint) if a is not Ellipsis]
        elif isinstance(hint, type) and hint in (bool, int, float, str):
            found.add(hint)
    return frozenset(found)


def _read(value: Any, scalars: frozenset[type]) -> Any:
    """A number from its spelling. What pydantic would take for something else is marked, so that it is refused as it
    stands.
    """
    if not scalars:
        return value
    if isinstance(value, list):  # one level: no key takes lists of lists, and aliases can make them endless
        return [v if isinstance(v, list | dict) else _read(v, scalars) for v in value]
    if isinstance(value, dict):
        return {k: v if isinstance(v, list | dict) else _read(v, scalars) for k, v in value.items()}
    numeric = bool(scalars & {int, float})
    if isinstance(value, bool):
        return _Refused(value) if numeric and bool not in scalars else value
    if scalars == {bool} and isinstance(value, int | float | str):
        return _Refused(value)
    if isinstance(value, str) and numeric and str not in scalars:
        above, _, below = value.partition("/")  # YAML 1.1 reads 1e-4 as text, and 8/255 is how the papers write an eps
        try:
            value = float(above) / float(below or 1)
        except (ValueError, ZeroDivisionError):
            return _Refused(value)
    if isinstance(value, float) and float not in scalars and int in scalars and value.is_integer():
        return int(value)
    return value


class _Refused:
    """A value of the wrong kind that pydantic would convert silently."""

    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def parse(cls: type[P], value: Any, path: str = "config", origin: Origin | None = None) -> P:
    """Build `cls` from a mapping; raises WinnowError naming the key for anything unknown, missing or out of range.

    `origin(steps)` tells the file and line in which the key at these steps stands; the message ends with it.
    """
    if not isinstance(value, dict):
        raise WinnowError(f"{path}: expected a mapping of keys, got {shown(value)}")
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        text, steps = _one_line(cls, error, path)
        place = origin(steps) if origin else None
        raise WinnowError(f"{text} ({place})" if place else text) from None
    except RecursionError:
        raise WinnowError(f"{path}: nested too deeply to be a configuration") from None


def shown(value: Any) -> str:
    """A value in a message: short, whatever it is."""
    return (_SHORT.repr(value) if isinstance(value, dict | list) else repr(value))[:200]


def _one_line(cls: type[Part], error: ValidationError, path: str) -> tuple[str, list[int | str]]:
    """The first mistake in the words of the documentation, and the steps to its key."""
    found = error.errors(include_url=False)[0]
    steps, owner = _place(cls, found["loc"])
    # a number where a name belongs
    named = [*steps[:-1], *map(str, steps[-1:])] if found["type"] == "invalid_key" else steps
    where = path + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in named)
    return _worded(found, where, owner), steps


def _worded(found: Any, where: str, owner: type[Part] | None) -> str:
    value, kind, context = shown(found["input"]), found["type"], found.get("ctx", {})
    name = str(found["loc"][-1]) if found["loc"] else ""
    if kind in ("extra_forbidden", "invalid_key"):
        return f"{where}: unknown key{nearest(name, owner.model_fields if owner else [])}"
    if kind == "missing":
        text = owner.model_fields[name].description if owner and name in owner.model_fields else ""
        return f"{where}: required key is missing ({text})"
    if kind == "literal_error":
        hint = owner.model_fields[name].annotation if owner and name in owner.model_fields else None
        return f"{where}: {value} is not a valid choice{nearest(str(found['input']), _choices(hint))}"
    if kind == "union_tag_invalid":
        tags = [t.strip().strip("'") for t in context["expected_tags"].split(",")]
        key_, tag = context["discriminator"].strip("'"), context["tag"]
        return f"{where}.{key_}: {tag!r} is not a valid choice{nearest(tag, tags)}"
    if kind == "union_tag_not_found":
        return f"{where}.{context['discriminator'].strip(chr(39))}: required key is missing"
    if kind == "value_error":
        return f"{where}: {context['error']}"
    bounds = {"greater_than": (">", "gt"), "greater_than_equal": (">=", "ge"), "less_than": ("<", "lt"),
              "less_than_equal": ("<=", "le")}  # fmt: skip
    if kind in bounds:
        sign, bound = bounds[kind]
        return f"{where}: {value} must be {sign} {context[bound]:g}"
    words = {
        "int_from_float": "expected a whole number", "int_type": "expected a whole number",
        "float_type": "expected a number",
        "string_type": "expected text", "bool_type": "expected true or false", "list_type": "expected a list",
        "finite_number": "expected a finite number", "model_type": "expected a mapping of keys",
        "model_attributes_type": "expected a mapping of keys", "dict_type": "expected a mapping",
    }  # fmt: skip
    return f"{where}: {words.get(kind, found['msg'])}, got {value}"


def _place(cls: type[Part], location: tuple[int | str, ...]) -> tuple[list[int | str], type[Part] | None]:
    """The steps to an error below `cls` without the tags of unions, and the class that holds its last key."""
    steps: list[int | str] = []
    owner: type[Part] | None = cls
    hint: Any = cls
    for step in location:
        if isinstance(step, int):
            hint = _inner(hint)
        else:
            models = _models(hint)
            if len(models) > 1 and (tagged := [m for m in models if step in _tags(m)]):
                hint = tagged[0]  # a tag, not a key
                continue
            owner = next((m for m in models if step in m.model_fields), models[0] if models else owner)
            if owner and step in owner.model_fields:
                hint = owner.model_fields[step].annotation
        steps.append(step)
    return steps, owner


def _tags(model: type[Part]) -> set[str]:
    """Values of the Literal keys that tell one class of a union from the others."""
    return {
        str(a)
        for f in model.model_fields.values()
        if get_origin(f.annotation) is Literal
        for a in get_args(f.annotation)
    }


def _inner(hint: Any) -> Any:
    for part in (hint, *get_args(hint)):
        if get_origin(part) is list:
            return get_args(part)[0]
    return hint


def _models(hint: Any) -> list[type[Part]]:
    if isinstance(hint, type) and not get_origin(hint) and issubclass(hint, Part):
        return [hint]
    return [m for a in get_args(hint) for m in _models(a)]


def _choices(hint: Any) -> list[Any]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [c for a in get_args(hint) for c in _choices(a)]


def plain(value: Any) -> Any:
    """A configuration object as dicts, lists and scalars."""
    return value.model_dump() if isinstance(value, BaseModel) else value


def canonical_json(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, no NaN. Hashes and Snakemake params are taken over it."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def type_name(kind: Any) -> str:
    """A type as a reader of the documentation wants to see it."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is typing.Annotated:
        return type_name(args[0])
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if a is type(None) else type_name(a) for a in args)
    if origin is Literal:
        return ", ".join(json.dumps(a) for a in args)
    if origin is list:
        return f"list of {type_name(args[0])}"
    if origin is dict:
        return f"mapping to {type_name(args[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}.get(kind, str(kind))
