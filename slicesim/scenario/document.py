"""YAML files as plain data that remembers, for every key, the file and line it came from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from slicesim.errors import UserError

KeyPath = tuple[str | int, ...]

#: A mapping with one of these keys is one thing (a coefficient, a strategy, a preset): a child file replaces it whole.
#: The device is not: a child file may give it a name of its own and change a few figures.
IDENTITY_KEYS = frozenset({"value", "name", "preset"})
DEVICE: KeyPath = ("device",)


#: No file of ours is nested half as deep; PyYAML takes a time that grows with the square of the depth.
_MOST_LEVELS = 50


class _Loader(yaml.SafeLoader):
    """Safe loading, with YAML 1.2's floats: PyYAML alone reads ``1e9`` as a string."""

    _level = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse what is nested too deep, before it is read to its end."""
        if self._level == _MOST_LEVELS:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"nested more than {_MOST_LEVELS} levels deep", mark)
        self._level += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._level -= 1


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def dotted(path: Iterable[str | int]) -> str:
    """Write a key path as the user types it: ``device.flash.lanes``."""
    return ".".join(str(part) for part in path)


class Document:
    """Nested plain data plus a mark (``file:line``) for every key path in it.

    assigned: keys that were set one by one, over the file.
    """

    def __init__(
        self,
        data: dict[str, Any],
        marks: dict[KeyPath, str],
        origin: str,
        assigned: frozenset[KeyPath] = frozenset(),
    ) -> None:
        self.data = data
        self.marks = marks
        self.origin = origin
        self.assigned = assigned

    def where(self, path: KeyPath) -> str:
        """Return ``file:line`` of the key, or of its nearest ancestor that was written down."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.marks:
                return self.marks[path[:end]]
        return self.origin

    def error(self, path: KeyPath, message: str) -> UserError:
        """Build the one-line error for a key."""
        where, key = self.where(path), dotted(path)
        place = where if where.endswith(f" {key}") else f"{where}: {key}"
        return UserError(f"{place}: {message}" if path else f"{self.origin}: {message}")

    def overlay(self, other: Document) -> Document:
        """Return this document with ``other`` laid over it; lists and named things are replaced whole."""
        marks = dict(self.marks)
        data = _merge(self.data, other.data, (), marks)
        marks.update(other.marks)
        return Document(data, marks, other.origin, self.assigned | other.assigned)

    def assign(self, dotted_path: str, value: Any, mark: str) -> Document:
        """Return a copy in which one key has a new value (``--set path=value``).

        A bare number put where a coefficient stands keeps the unit and takes ``mark`` as its source.
        """
        path: KeyPath = tuple(dotted_path.split("."))
        data = dict(self.data)
        marks = {p: m for p, m in self.marks.items() if p[: len(path)] != path}
        node = data
        for depth, part in enumerate(path[:-1]):
            if part not in node:
                marks[path[: depth + 1]] = mark
            child = node.get(str(part), {})
            if not isinstance(child, Mapping):
                raise UserError(f"{mark}: {dotted(path[: depth + 1])} is a single value, it has no keys below it")
            node[str(part)] = dict(child)
            node = node[str(part)]
        leaf = str(path[-1])
        old = node.get(leaf)
        if isinstance(old, Mapping) and "value" in old and isinstance(value, (int, float, str, list)):
            value = {"value": value, "source": mark}
        node[leaf] = value
        marks[path] = mark
        return Document(data, marks, self.origin, self.assigned | {path})

    def is_assigned(self, path: KeyPath) -> bool:
        """Whether a key, or one above it, was set over the file."""
        return any(path[:end] in self.assigned for end in range(1, len(path) + 1))


def _merge(
    base: Mapping[str, Any], over: Mapping[str, Any], path: KeyPath, marks: dict[KeyPath, str]
) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        here = (*path, key)
        old = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        if both and (here == DEVICE or not IDENTITY_KEYS.intersection(value)):
            merged[key] = _merge(old, value, here, marks)  # type: ignore[arg-type]
        else:
            for stale in [p for p in marks if p[: len(here)] == here]:
                del marks[stale]
            merged[key] = value
    return merged


def parse_value(text: str, mark: str) -> Any:
    """Read the value of ``--set path=value`` as YAML."""
    return _load(text, mark, {}) if text.strip() else None


def read_document(path: Path, _children: tuple[Path, ...] = ()) -> Document:
    """Read one YAML mapping, with its ``extends:`` parent below it.

    Raises UserError for a missing or unreadable file, broken YAML, a key given twice, or a circle of ``extends``.
    """
    document = _parse(path)
    parent = document.data.pop("extends", None)
    if parent is None:
        return document
    if not isinstance(parent, str):
        raise document.error(("extends",), "must be the path of one YAML file")
    if not os.path.isfile(path.parent / parent):  # a text that is no path at all is no file
        raise document.error(("extends",), f"no such file: {parent}")
    parent_path = (path.parent / parent).resolve()
    if parent_path in (*_children, path.resolve()):
        raise document.error(("extends",), f"circle: {parent} extends this file again")
    base = read_document(parent_path, (*_children, path.resolve()))
    return base.overlay(document)


def _parse(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, give a YAML file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no text (UTF-8), give a YAML file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from None
    data, marks = _loaded(text, str(path))
    if not isinstance(data, dict):
        raise UserError(
            f"{path}: must hold a YAML mapping (key: value), {'is empty' if data is None else 'it does not'}"
        )
    return Document(dict(data), dict(marks), str(path))


@lru_cache(maxsize=64)
def _loaded(text: str, origin: str) -> tuple[Any, dict[KeyPath, str]]:
    """Read a file's text once, however many points of a sweep ask for it. The result must not be changed."""
    marks: dict[KeyPath, str] = {}
    return _load(text, origin, marks), marks


def _load(text: str, origin: str, marks: dict[KeyPath, str]) -> Any:
    """Read one YAML value; ``marks`` takes the place of each key."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_aliases(node, text, origin)
            return _construct(loader, node, (), marks, origin)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        tab = " (indent with spaces, not tabs)" if "'\\t'" in str(error.problem) else ""
        raise UserError(f"{origin}:{line}: broken YAML: {error.problem}{tab}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{origin}: broken YAML: {_first_line(error)}") from None
    except (RecursionError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        # PyYAML turns the value of an explicit tag (!!timestamp x) without looking at it.
        raise UserError(f"{origin}: cannot be read as YAML ({_first_line(error)})") from None


#: Values that aliases may stand for in all, in a short text as well.
_MOST_VALUES = 100_000


def _check_aliases(root: yaml.Node, text: str, origin: str) -> None:
    """Refuse aliases of aliases that would fill the memory: each value of a plain file takes a character at least."""
    left, waiting = max(_MOST_VALUES, len(text)), [root]
    while waiting:
        node, left = waiting.pop(), left - 1
        if left < 0:
            raise UserError(f"{origin}: its aliases (*name) stand for too many values: write them out, or fewer")
        if isinstance(node, yaml.MappingNode):
            waiting += [value for pair in node.value for value in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _construct(loader: _Loader, node: yaml.Node, path: KeyPath, marks: dict[KeyPath, str], file: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise UserError(f"{file}:{line}: merge keys (<<) are not read: repeat the keys, or use extends")
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise UserError(f"{file}:{line}: the key {key!r} must be a word")
            if key in result:
                raise UserError(f"{file}:{line}: {dotted((*path, key))}: given twice")
            marks[(*path, key)] = f"{file}:{line}"
            result[key] = _construct(loader, value_node, (*path, key), marks, file)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, child, (*path, i), marks, file) for i, child in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
