"""docs/scenario.md: every key of a scenario file and of a model file, from the schema."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from slicesim.models import ModelGeometry
from slicesim.scenario import coefficient
from slicesim.scenario.coefficient import Coefficient
from slicesim.scenario.schema import Settings, StrategyChoice

#: What a key's ending says of its unit; the longest one that fits counts.
UNITS = {
    "_gb": "GB",
    "_gbs": "GB/s",
    "_kib": "KiB",
    "_us": "µs",
    "_s": "s",
    "_mw": "mW",
    "_pj": "pJ",
    "_pj_per_bit": "pJ/bit",
    "_pj_per_byte": "pJ/byte",
    "_pj_per_weight": "pJ/weight",
    "_ps_per_weight": "ps/weight",
    "_ghz": "GHz",
    "_tops_per_w": "TOPS/W",
    "_nm": "nm",
    "_bits": "bits",
    "_tokens": "tokens",
    "gflops": "GFLOP/s",
}

_INTRODUCTION = """# Scenario files

*Written by `python docs/tools/references.py` from the schema.*

Every key of a scenario, with its unit, its default and what it may be. `slicesim schema` prints the same as JSON
Schema, for editors. `hwconfigs/mobile.yaml` is a whole scenario to start from; `--set cache.capacity_gb=3.6` overrides
one key. A GB is 1e9 bytes.

- Unknown keys are refused. A key without a default must be given.
- `extends: FILE` lays a file over another one, key by key; paths in a file are read from its own folder.
- A *coefficient* is a number with its source: `{value: 1.25, low: 1.25, high: 1.75, source: "where it comes from"}`.
  `low` and `high` may be left out; they are the range that `slicesim sensitivity` tries. Given with `--set`, or in a
  sweep, it may be a bare number.

"""

_COEFFICIENTS = {
    coefficient.Positive: "above 0",
    coefficient.NotNegative: "0 or more",
    coefficient.Share: "above 0, at most 1",
    coefficient.Count: "whole, 1 or more",
}


def scenario_page() -> str:
    """Return docs/scenario.md."""
    lines = [*_section("scenario", "", Settings), *_section("model file", "", ModelGeometry)]
    return _INTRODUCTION + "\n".join(lines).rstrip() + "\n"


def _section(name: str, form: str, section: type[BaseModel]) -> Iterator[str]:
    """Yield a section's table, then those of the sections inside it."""
    level = 3 if "." in name else 2
    yield f"{'#' * level} {name}{f' ({form})' if form else ''}"
    yield ""
    yield _prose(section)
    yield ""
    yield "| key | unit | value | default | meaning |"
    yield "|---|---|---|---|---|"
    yield from (_row(key, field) for key, field in section.model_fields.items())
    yield ""
    for key, field in section.model_fields.items():
        forms = {one: form for one, form in _sections(field.annotation) if one not in (Coefficient, StrategyChoice)}
        prefix = key if name == "scenario" else f"{name}.{key}"
        for one, own_form in forms.items():
            yield from _section(prefix, own_form if len(forms) > 1 else "", one)


def _prose(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split()).replace("``", "`")


def _row(key: str, field: FieldInfo) -> str:
    if field.is_required():
        default = "required"
    elif field.default is None:
        default = "none"
    elif isinstance(field.default, BaseModel):
        default = "its defaults"
    else:
        default = f"`{field.default}`"
    value = ", ".join(part for part in (_value(field), _range(field)) if part)
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{key}` | {unit_of(key)} | {value} | {default} | {meaning} |"


def unit_of(key: str) -> str:
    """Return the unit that a key's name ends in; empty where it bears none."""
    endings = [ending for ending in UNITS if key.endswith(ending)]
    return UNITS[max(endings, key=len)] if endings else ""


_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def _value(field: FieldInfo) -> str:
    """What may stand there, in words."""
    whole = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    words = list(dict.fromkeys(_alternatives(whole)))
    return " or ".join(words)


def _alternatives(annotation: Any) -> Iterator[str]:
    origin = get_origin(annotation)
    if annotation in _COEFFICIENTS:
        yield f"coefficient, {_COEFFICIENTS[annotation]}"
    elif origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part)
    elif origin is Literal:
        yield ", ".join(f"`{choice}`" for choice in get_args(annotation))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "strategy" if annotation is StrategyChoice else "section"
    elif annotation is not type(None):
        yield _WORDS[annotation]


_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def _range(field: FieldInfo) -> str:
    """Bounds of a plain number."""
    notes = [note for holder in _annotated(field) for note in holder]
    found = [(word, getattr(note, key, None)) for note in notes for key, word in _BOUNDS.items()]
    return ", ".join(f"{word} {bound:g}" for word, bound in found if isinstance(bound, (int, float)))


def _annotated(field: FieldInfo) -> Iterator[list[Any]]:
    yield field.metadata
    for part in get_args(field.annotation):
        if get_origin(part) is Annotated:
            for note in get_args(part)[1:]:
                yield note.metadata if isinstance(note, FieldInfo) else [note]


def _sections(annotation: Any, tag: str = "") -> list[tuple[type[BaseModel], str]]:
    """Sections that an annotation allows, in their order, each with the name of its form."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, tag or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", annotation.__name__).lower())]
    args = get_args(annotation)
    if get_origin(annotation) is Annotated:
        tags = [note.tag for note in args[1:] if isinstance(note, Tag)]
        return _sections(args[0], tags[0] if tags else "")
    return [found for inner in args for found in _sections(inner)]
