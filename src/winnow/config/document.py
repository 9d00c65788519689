"""Writes the configuration reference and its JSON schema from the configuration classes: `make docs`."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from winnow.config.root import Root
from winnow.schema import type_name

HEADER = """# Configuration reference

Written from the classes in `src/winnow/config/` by `make docs`; do not edit.

`config/config.yaml` is the default. `snakemake ... --configfile FILE` lays FILE over it: a pipeline's section that is complete
in itself replaces the default's; any other mapping is merged key by key, and lists are replaced. Unknown keys, wrong types and impossible values end the run before any job starts. Numbers may be written `1e-4` or `8/255`.
For completion and checks in an editor, point its YAML plugin to `config/schema.json`.
"""


def classes(root: type) -> list[type]:
    """`root` and every configuration class that it reaches, in the order of their first mention."""
    found = [root]
    for cls in found:
        for hint in typing.get_type_hints(cls).values():
            found += [c for c in _parts(hint) if c not in found]
    return found


def _parts(hint: Any) -> list[type]:
    if dataclasses.is_dataclass(hint):
        return [hint]  # type: ignore[list-item]
    return [c for a in get_args(hint) for c in _parts(a)]


def markdown() -> str:
    """The reference: one table a class."""
    text = [HEADER]
    for cls in classes(Root):
        text.append(
            f"\n## {cls.__name__}\n\n{(cls.__doc__ or '').strip()}\n\n| key | type | default | meaning |\n|---|---|---|---|"
        )
        hints = typing.get_type_hints(cls)
        for f in dataclasses.fields(cls):
            text.append(
                f"| `{f.name}` | {type_name(hints[f.name])}{_bounds(f.metadata)} | {_default(f)} | {f.metadata['doc']} |"
            )
    return "\n".join(text) + "\n"


def _bounds(meta: Any) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return "".join(f", {sign} {meta[name]:g}" for name, sign in signs.items() if meta.get(name) is not None)


def _default(f: dataclasses.Field[Any]) -> str:
    if f.default is not dataclasses.MISSING:
        return f"`{json.dumps(f.default)}`"
    if f.default_factory is not dataclasses.MISSING:
        value = f.default_factory()
        return "its defaults" if dataclasses.is_dataclass(value) else f"`{json.dumps(value)}`"
    return "required"


def json_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of the configuration, for editors."""
    definitions = {}
    for cls in classes(Root):
        hints = typing.get_type_hints(cls)
        fields = dataclasses.fields(cls)
        required = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
        properties = {f.name: {**_json_type(hints[f.name]), "description": f.metadata["doc"]} for f in fields}
        assert cls.__name__ not in definitions, f"two configuration classes are called {cls.__name__}"
        definitions[cls.__name__] = {
            "type": "object", "properties": properties, "required": required, "additionalProperties": False,
        }  # fmt: skip
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "#/$defs/Root", "$defs": definitions}


def _json_type(hint: Any) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [{"type": "null"} if a is type(None) else _json_type(a) for a in args]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is list:
        return {"type": "array", "items": _json_type(args[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _json_type(args[1])}
    if dataclasses.is_dataclass(hint):
        return {"$ref": f"#/$defs/{hint.__name__}"}  # type: ignore[union-attr]
    return {"type": {bool: "boolean", int: "integer", float: "number", str: "string"}[hint]}


def main() -> int:
    """Write config/README.md and config/schema.json below the current folder."""
    Path("config/README.md").write_text(markdown(), encoding="utf-8")
    Path("config/schema.json").write_text(json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
