"""A scenario: settings that were checked, and the document that they came from."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from slicesim.errors import UserError
from slicesim.scenario.document import Document, KeyPath, dotted, parse_value, read_document
from slicesim.scenario.schema import PolicyParts, Settings

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True)
class Scenario:
    """Checked settings. ``where`` gives the file and line of a key, for messages.

    notes: what was set otherwise than the file says without being asked for, one line each.
    """

    settings: Settings
    document: Document
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        model: str | None = None,
        trace: str | Path | None = None,
        policy: str | None = None,
        assignments: Mapping[str, Any] | None = None,
    ) -> Scenario:
        """Read a scenario file and lay the overrides over it.

        ``policy`` is a preset's name or ``file.py:Class`` (a user's eviction strategy).
        Raises UserError, with file, line and key, for whatever is not valid.
        """
        document = scenario_document(path)
        if model is not None:
            document = document.assign("model", model, "--model")
        if trace is not None:
            document = document.assign("trace.path", str(trace), "--trace")
        if policy is not None:
            document = document.assign("policy", policy_choice(policy), f"--policy {policy}")
        for key, value in (assignments or {}).items():
            document = document.assign(key, value, f"--set {key}")
        return cls.of(document)

    @classmethod
    def of(cls, document: Document) -> Scenario:
        """Check a document; raises UserError, with file, line and key, for whatever is not valid."""
        return cls(validate(Settings, document), document)

    def where(self, *path: str | int) -> str:
        """Return ``file:line`` (or the option) that set the key."""
        return self.document.where(path)

    def error(self, *path: str | int, message: str) -> UserError:
        """Build the one-line error for a key of this scenario."""
        return self.document.error(path, message)


def scenario_document(path: str | Path) -> Document:
    """Read a scenario file, its paths seen from here; what it says is not checked yet."""
    document = read_document(Path(path))
    for key in _PATH_KEYS:
        node: Any = document.data
        for part in key:
            node = node.get(part) if isinstance(node, Mapping) else None
        mark = document.where(key)
        found = path_from_here(key, node, mark)
        if found != node:
            document = document.assign(dotted(key), found, mark)
    return document


def policy_choice(name: str) -> dict[str, Any]:
    """Return the policy section for a preset's name, or for ``file.py:Class`` (a user's eviction strategy)."""
    return {"preset": "dbsc", "eviction": {"name": name}} if ".py:" in name else {"preset": name}


def parse_assignments(texts: list[str]) -> dict[str, Any]:
    """Turn ``["cache.capacity_gb=2.4", ...]`` into values, read as YAML."""
    assignments = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {text}: write path=value, for example --set cache.capacity_gb=2.4")
        assignments[key.strip()] = parse_value(value, f"--set {key.strip()}")
    return assignments


def validate(schema: type[ModelT], document: Document) -> ModelT:
    """Check a document against a schema; the first fault becomes one line with file, line and key."""
    try:
        return schema.model_validate(document.data)
    except ValidationError as error:
        faults = error.errors()
        fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
        path = _written_path(fault["loc"], document.data)
        if fault["type"] == "extra_forbidden":
            raise document.error(path, f"unknown key ({_known(path, schema)})") from None
        same_key = [f for f in faults if _written_path(f["loc"], document.data) == path]
        raise document.error(path, plain_message(*same_key)) from None


def _known(path: KeyPath, schema: type[BaseModel]) -> str:
    known = _known_keys(schema, path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


#: Faults that pydantic words for programmers.
_PLAIN_WORDS = {
    "missing": "is missing",
    "string_too_short": "must not be empty",
    "model_type": "must be a mapping (key: value)",
    "model_attributes_type": "must be a mapping (key: value)",
    "frozen_instance": "a strategy is frozen: declare parameters as fields, and keep state in a field named _like_this",
}


def plain_message(*faults: Any) -> str:
    """Word pydantic's faults of one key: several where each alternative of a union has its own."""
    fault = faults[0]
    if fault["type"] in _PLAIN_WORDS:
        return _PLAIN_WORDS[fault["type"]]
    if fault["type"].startswith("union_tag"):
        context = fault["ctx"]
        return f"{context['discriminator'].strip(chr(39))} must be {context.get('expected_tags', 'given')}"
    if fault["type"] == "value_error":
        return str(fault["msg"]).removeprefix("Value error, ")
    asked = dict.fromkeys(re.sub("^Input should be |, (unable|got) .*", "", str(f["msg"])) for f in faults)
    message = "must be " + ", or ".join(asked)
    given = fault.get("input")
    if isinstance(given, str) and "number" in message:
        message += " - the unit stands in the key, give a bare number"
    return message + (f" (given: {json.dumps(given)})" if isinstance(given, (str, int, float, type(None))) else "")


def _written_path(loc: tuple[str | int, ...], data: Any) -> KeyPath:
    """Drop the parts that pydantic adds for unions and validators: keep what the user wrote."""
    path: list[str | int] = []
    node = data
    for position, part in enumerate(loc):
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif " " in str(part):  # the name of a form: no key of the schema has a space
            continue
        elif isinstance(node, Mapping) and position == len(loc) - 1:
            pass
        else:
            continue
        path.append(part)
    return tuple(path)


def _known_keys(schema: type[BaseModel], path: KeyPath) -> list[str]:
    """Keys that may stand at a path; those of every form where a section has several."""
    forms = [schema]
    for part in path:
        fields = [form.model_fields[str(part)] for form in forms if str(part) in form.model_fields]
        if fields:  # else a name that the user gave, in a mapping of sections
            forms = [section for field in fields for section in _sections(field.annotation)]
    return list(dict.fromkeys(key for form in forms for key in form.model_fields))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Sections that an annotation allows, inside unions and notes on them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in getattr(annotation, "__args__", ()) for section in _sections(inner)]


#: Keys that may hold a path, and what of their value is one.
_PATH_KEYS: dict[KeyPath, Callable[[str], bool]] = {
    ("trace", "path"): lambda text: True,
    ("model",): lambda text: "/" in text or text.endswith((".yaml", ".yml")),
    ("policy", "precision", "table"): lambda text: True,
    **{("policy", part, "name"): lambda text: ".py:" in text for part in PolicyParts.model_fields},
}


def path_from_here(key: KeyPath, value: Any, mark: str) -> Any:
    """Read the value of a key that may hold a relative path from the folder of the file (``mark``) that wrote it."""
    is_path = _PATH_KEYS.get(key)
    if is_path is None or not isinstance(value, str) or not value or not is_path(value) or Path(value).is_absolute():
        return value
    try:
        return str(_tidy(Path(mark.rpartition(":")[0]).parent / value))
    except (OSError, ValueError, RuntimeError):  # no path at all, or a circle of links: refused where it is opened
        return value


def _tidy(path: Path) -> Path:
    resolved = path.resolve()
    cwd = Path.cwd()
    return resolved.relative_to(cwd) if resolved.is_relative_to(cwd) else resolved
