"""Configuration files: read with the place of every key, laid over one another, and shown with where each value comes
from.

A file stands alone: nothing of the embedded default is in it. `base: FILE` at its top lays it over another file (a
path, or one that winnow ships: `config`, `paper/double_win`, `examples/cifar10`). Mappings are then merged key by key,
lists are replaced, and `data`, `model`, `train`, `attack` and `evaluation` replace as wholes, so that no setting of one
task stays in another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow import outside
from winnow.errors import WinnowError
from winnow.project import ROOT
from winnow.schema import shown

WHOLE = ("data", "model", "train", "attack", "evaluation")
SHIPPED = ROOT / "config"
LARGEST = 4 << 20  # bytes of a configuration file
DEEPEST = 40  # mappings and lists in one another
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_OPEN = object()  # stands for a value whose parts are being made


class Document:
    """Values of a configuration, and where each key was given: marks[id of the mapping or list, key] = 'FILE:LINE'."""

    def __init__(self, values: dict[str, Any], marks: dict[tuple[int, Any], str], keep: list[Any] | None = None):
        self.values, self.marks, self.keep = values, marks, keep or []

    def origin(self, path: Sequence[int | str]) -> str | None:
        """The place of the deepest key on `path` that was given; None when none was."""
        found, inner = None, self.values
        for step in path:
            if not isinstance(inner, dict | list):
                break
            found = self.marks.get((id(inner), step), found)
            try:
                inner = inner[step]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
        return found

    def given(self, path: Sequence[int | str]) -> str | None:
        """The place of exactly this key, or of a whole that holds it; None for a default."""
        inner: Any = self.values
        for step in path:
            try:
                inner = inner[step]
            except (KeyError, IndexError, TypeError):
                return None
        return self.origin(path)

    def over(self, low: Document) -> Document:
        """This document laid over another."""
        merged = Document({}, {**low.marks, **self.marks}, [*low.keep, *self.keep, low.values, self.values])
        merged.values = merged._merge(low.values, self.values)
        return merged

    def _merge(self, low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        self.keep.append(made)
        for name in [*low, *(k for k in high if k not in low)]:
            source = high if name in high else low
            both = name in high and isinstance(low.get(name), dict) and isinstance(high[name], dict)
            made[name] = self._merge(low[name], high[name]) if both and name not in WHOLE else source[name]
            if (id(source), name) in self.marks:
                self.marks[id(made), name] = self.marks[id(source), name]
        return made


def read(path: Path) -> Document:
    """One YAML file with its marks; WinnowError with the line for what is no mapping, too large, too deep or said
    twice.
    """
    import yaml

    try:
        text = outside.read_bytes(path, LARGEST, "name a configuration file").decode("utf-8-sig")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        _refuse_depth(yaml.parse(text, Loader=loader), path)
        node = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise WinnowError(
            f"{path}:{mark.line + 1 if mark else '?'}: not YAML ({error.problem or error.context})"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WinnowError(f"{path}: not a YAML text in UTF-8 ({error})") from None
    document = Document({}, {})
    if node is not None:
        values = _construct(node, document, str(path), {}, 0)
        if not isinstance(values, dict):
            raise WinnowError(f"{path}: expected a mapping of keys")
        document.values = values
    return document


def _refuse_depth(events: Iterable[Any], path: Path) -> None:
    """WinnowError for a text that is nested too deeply, before its nodes are composed: libyaml's stack would
    overflow.
    """
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise WinnowError(
                f"{path}:{event.start_mark.line + 1}: nested more than {DEEPEST} levels deep; this is no configuration"
            )


def _construct(node: Any, document: Document, file: str, done: dict[int, Any], depth: int) -> Any:
    """The value of a YAML node; an alias is the same object, so a bomb of aliases costs nothing."""
    import yaml

    line = node.start_mark.line + 1
    if id(node) in done:
        if done[id(node)] is _OPEN:
            raise WinnowError(f"{file}:{line}: an alias stands within what it names; write the values out")
        return done[id(node)]
    if depth > DEEPEST:
        raise WinnowError(f"{file}:{line}: nested more than {DEEPEST} levels deep; this is no configuration")
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
        raise WinnowError(f"{file}:{line}: the tag {node.tag!r:.100} is nothing of a configuration; leave it out")
    if isinstance(node, yaml.ScalarNode):
        loader = yaml.SafeLoader("")
        try:
            value = loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            said = getattr(error, "problem", None) or error
            raise WinnowError(f"{file}:{line}: not a value of a configuration ({said})") from None
        done[id(node)] = value
        return value
    made: Any = [] if isinstance(node, yaml.SequenceNode) else {}
    done[id(node)] = _OPEN
    document.keep += [made, node]
    if isinstance(node, yaml.SequenceNode):
        for i, child in enumerate(node.value):
            made.append(_construct(child, document, file, done, depth + 1))
            document.marks[id(made), i] = f"{file}:{child.start_mark.line + 1}"
    else:
        _fill(made, node, document, file, done, depth)
    done[id(node)] = made
    return made


def _fill(made: dict[Any, Any], node: Any, document: Document, file: str, done: dict[int, Any], depth: int) -> None:
    """The keys of a mapping node, merged ones (<<) below its own."""
    import yaml

    said: set[Any] = set()
    for name_node, child in node.value:
        if name_node.tag == "tag:yaml.org,2002:merge":
            given = child.value if isinstance(child, yaml.SequenceNode) else [child]
            for part in reversed(given):
                below = _construct(part, document, file, done, depth + 1)
                if not isinstance(below, dict):
                    raise WinnowError(f"{file}:{name_node.start_mark.line + 1}: << takes mappings, got {shown(below)}")
                for name, value in below.items():
                    if name not in said:
                        made[name] = value
                        document.marks[id(made), name] = document.marks.get((id(below), name), file)
            continue
        name, line = _construct(name_node, document, file, done, depth + 1), name_node.start_mark.line + 1
        if isinstance(name, dict | list):
            raise WinnowError(f"{file}:{line}: the key {shown(name)} is no name")
        if name in said:
            raise WinnowError(f"{file}:{line}: the key {name!r:.100} appears twice")
        said.add(name)
        made[name] = _construct(child, document, file, done, depth + 1)
        document.marks[id(made), name] = f"{file}:{line}"


def layered(path: Path, above: tuple[Path, ...] = ()) -> Document:
    """A file laid over its base, if it names one."""
    document = read(path)
    base = document.values.pop("base", None)
    if base is None:
        return document
    places = [path.parent / str(base), *(SHIPPED / f"{base}{suffix}" for suffix in ("", ".yaml"))]
    found = next((p.resolve() for p in places if p.is_file()), None)
    if found is None:
        raise WinnowError(f"{path}: base: {base}: no such file, neither beside it nor below {SHIPPED}")
    if found in above or found == path.resolve():
        raise WinnowError(f"{path}: base: {base}: the files name one another")
    return document.over(layered(found, (*above, path.resolve())))


def resolve(files: Sequence[Path], settings: Mapping[str, Any], sections: Sequence[str]) -> Document:
    """The configuration of these files, later ones over earlier ones, and of `settings` (--config) over all.

    The embedded default stands in only when none of them sets one of the pipelines' `sections`.
    """
    document = Document({}, {})
    for file in files:
        document = layered(Path(file)).over(document)
    if settings:
        words = {"true": True, "false": False, "null": None}  # which Snakemake leaves as text
        own = {name: words.get(value, value) if isinstance(value, str) else value for name, value in settings.items()}
        document = Document(own, {(id(own), name): "--config" for name in own}).over(document)
    if not any(name in document.values for name in sections):
        document = document.over(read(SHIPPED / "config.yaml"))
    return document


def show(values: Mapping[str, Any], document: Document) -> str:
    """The checked configuration as YAML, each key with the place it comes from, or `default`."""
    lines: list[tuple[str, str]] = []
    _show(values, document, (), lines)
    width = min(100, max((len(text) for text, _ in lines), default=0))
    return "".join(f"{text:<{width}}  # {where}\n" if where else f"{text}\n" for text, where in lines)


def _show(value: Any, document: Document, path: tuple[int | str, ...], lines: list[tuple[str, str]]) -> None:
    import json

    indent = "  " * len(path)
    for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        here, lead = (*path, name), f"{indent}- " if isinstance(name, int) else f"{indent}{name}: "
        nested = (
            isinstance(inner, Mapping | list) and inner and any(isinstance(v, Mapping | list) for v in _items(inner))
        )
        if (isinstance(inner, Mapping) and inner) or nested:
            lines.append((lead.rstrip(), ""))
            _show(inner, document, here, lines)
        else:
            lines.append((lead + json.dumps(inner, ensure_ascii=False), document.given(here) or "default"))


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else list(value)
