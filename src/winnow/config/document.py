"""Writes the configuration reference (tracked) and the JSON schema for editors (not tracked): `make docs`.

python -m winnow.config.document             # docs/configuration.md and build/config.schema.json
python -m winnow.config.document FILE ...    # the configuration that these files give, each key with its origin
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from winnow.config.root import Root, load_files
from winnow.errors import WinnowError
from winnow.schema import Part, type_name

REFERENCE, SCHEMA = Path("docs/configuration.md"), Path("build/config.schema.json")
HEADER = """# Configuration reference

Written from the configuration classes by `make docs`; do not edit.

`snakemake ... --configfile FILE` runs what FILE sets. `config/config.yaml`, the embedded default, is used only when
FILE sets no pipeline's section. A section stands alone, or `base: FILE` at the top lays a file over another one (a path,
or one that winnow ships: `config`, `paper/double_win`, `examples/cifar10`, ...): mappings are merged key by key, lists
are replaced, and `data`, `model`, `train`, `attack` and `evaluation` replace as wholes. `make config CONFIG=FILE` prints
what results, each key with its origin.

Unknown keys, wrong types and impossible values end the run before any job starts, in one line with the key, its file and
line, and the mend. Numbers may be written `1e-4` or `8/255`. `make docs` writes `build/config.schema.json` for completion
and checks in an editor.
"""


def classes(root: type[Part]) -> list[type[Part]]:
    """`root` and every configuration class that it reaches, in the order of their first mention."""
    found = [root]
    for cls in found:
        for field in cls.model_fields.values():
            found += [c for c in _parts(field.annotation) if c not in found]
    return found


def _parts(hint: Any) -> list[type[Part]]:
    if isinstance(hint, type) and issubclass(hint, Part):
        return [hint]
    return [c for a in get_args(hint) for c in _parts(a)]


def markdown() -> str:
    """The reference: one table a class."""
    text = [HEADER]
    for cls in classes(Root):
        head = "| key | type | default | meaning |\n|---|---|---|---|"
        text.append(f"\n## {cls.__name__}\n\n{(cls.__doc__ or '').strip()}\n\n{head}")
        for name, field in cls.model_fields.items():
            kind = type_name(field.annotation) + _bounds(field.metadata)
            text.append(f"| `{name}` | {kind} | {_default(field)} | {field.description} |")
    return "\n".join(text) + "\n"


def _bounds(metadata: Sequence[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [(sign, getattr(m, name)) for m in metadata for name, sign in signs.items() if hasattr(m, name)]
    return "".join(f", {sign} {bound:g}" for sign, bound in found)


def _default(field: Any) -> str:
    if field.default is not PydanticUndefined:
        return f"`{json.dumps(field.default)}`"
    if field.default_factory is None:
        return "required"
    value = field.default_factory()
    return "its defaults" if isinstance(value, BaseModel) else f"`{json.dumps(value)}`"


def main(arguments: list[str]) -> int:
    """Write the reference and the schema, or print the configuration of the files given."""
    if not arguments:
        REFERENCE.write_text(markdown(), encoding="utf-8")
        SCHEMA.parent.mkdir(exist_ok=True)
        SCHEMA.write_text(json.dumps(Root.model_json_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    try:
        root, document = load_files([Path(a) for a in arguments if a != "--default"])
    except WinnowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from winnow.config.files import show

    print(show(root.model_dump(exclude_none=False), document), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
