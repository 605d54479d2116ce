"""A sweep file: one scenario, and the grid of values that are laid over it."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from slicesim.scenario import Scenario
from slicesim.scenario.document import Document, read_document
from slicesim.scenario.scenario import path_from_here, policy_choice, scenario_document, validate
from slicesim.scenario.schema import Section

#: Beyond this a grid is a slip, and its points alone would fill the memory.
MOST_POINTS = 1_000_000

_TIMELINE = "schedule.timeline_tokens"


class SweepFile(Section):
    """What a sweep file may say. Paths are read from the folder of the file."""

    scenario: str = Field(min_length=1, description="scenario file that all points start from")
    model: str | None = Field(None, min_length=1, description="as --model of run")
    trace: str | None = Field(None, min_length=1, description="as --trace of run")
    policies: list[str] | None = Field(None, description="presets or file.py:Class; every point runs under each")
    set: dict[str, Any] = Field(default_factory=dict, description="scenario keys, dotted, for all points")
    grid: dict[str, list[Any]] = Field(description="scenario keys, dotted, with the values that they take")
    tie: dict[str, str] = Field(default_factory=dict, description="keys that take the value of a key of the grid")

    @field_validator("policies")
    @classmethod
    def _some_policies(cls, policies: list[str] | None) -> list[str] | None:
        if policies is not None and not policies:
            raise ValueError("is empty: give at least one policy, or leave the key out")
        return policies

    @field_validator("grid")
    @classmethod
    def _some_values(cls, grid: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if not grid:
            raise ValueError(
                "is empty: give at least one key with its values, for example cache.capacity_gb: [1.8, 2.4]"
            )
        return grid


@dataclass(frozen=True)
class Point:
    """One scenario of a sweep. values: what the grid's keys are here, as the file says it."""

    values: dict[str, Any]
    scenario: Scenario


@dataclass(frozen=True)
class Sweep:
    """A sweep file, spelled out. keys: those of the grid, in order."""

    path: Path
    keys: tuple[str, ...]
    points: tuple[Point, ...]


def read_sweep(path: str | Path) -> Sweep:
    """Read a sweep file and check every scenario in it; policies vary slowest, the last key of the grid fastest.

    Raises UserError, with file, line and key, for the first thing that is not valid.
    """
    document = read_document(Path(path))
    file = validate(SweepFile, document)
    _check(file, document)
    constant = list(_overrides(document, "set", file.set))
    axes = [[(key, value) for value in values] for key, values in file.grid.items()]
    points = []
    for base in _bases(file, document):
        fixed = _lay_over(base, constant)
        for values in map(dict, itertools.product(*axes)):
            tied = {key: values[leader] for key, leader in file.tie.items()}
            varied = [*_overrides(document, "grid", values), *_overrides(document, "tie", tied)]
            points.append(Point(values, Scenario.of(_lay_over(fixed, varied))))
    return Sweep(Path(path), tuple(file.grid), tuple(points))


def _bases(file: SweepFile, document: Document) -> Iterator[Document]:
    """Yield the scenario under each policy."""
    where = document.where(("scenario",))
    scenario = Path(path_from_here(("trace", "path"), file.scenario, where))  # a path whatever it looks like
    if not os.path.isfile(scenario):
        raise document.error(("scenario",), f"no such file: {scenario}")
    base = scenario_document(scenario).assign(_TIMELINE, 0, where)  # a sweep draws no timelines
    for section, key, value in (("model", "model", file.model), ("trace", "trace.path", file.trace)):
        if value is not None:
            base = _lay_over(base, _overrides(document, section, {key: value}, key_is_written=False))
    if file.policies is None:
        yield base
    where = document.where(("policies",))
    for name in file.policies or ():
        yield base.assign("policy", policy_choice(path_from_here(("policy", "eviction", "name"), name, where)), where)


Override = tuple[str, Any, str]


def _overrides(
    document: Document, section: str, values: Mapping[str, Any], *, key_is_written: bool = True
) -> Iterator[Override]:
    """Yield (scenario key, value, ``file:line``) with relative paths seen from here."""
    for key, value in values.items():
        mark = document.where((section, key) if key_is_written else (section,))
        yield key, path_from_here(tuple(key.split(".")), value, mark), mark


def _lay_over(document: Document, overrides: Sequence[Override] | Iterator[Override]) -> Document:
    for key, value, mark in overrides:
        document = document.assign(key, value, mark)
    return document


def _check(file: SweepFile, document: Document) -> None:
    """Refuse what would be laid over twice, tied to nothing, or run for ever."""
    written = [*((("set", key), key) for key in file.set), *((("grid", key), key) for key in file.grid)]
    written += [(("tie", key), key) for key in file.tie]
    laid = [
        key
        for key, value in (("model", file.model), ("trace.path", file.trace), ("policy", file.policies))
        if value is not None
    ]
    for place, key in written:
        if key == _TIMELINE:
            raise document.error(place, "a sweep draws no timelines: leave it out, or use slicesim run for one point")
        if place == ("grid", "policy"):
            raise document.error(place, "list policies under policies:, or vary policy.preset")
        below = next((other for other in laid if other == key or other.startswith(f"{key}.")), None)
        if below is not None:
            raise document.error(place, f"would undo {below}, which this sweep gives too: leave one out")
        laid.append(key)
    for key, values in file.grid.items():
        texts = [json.dumps(value, default=str, sort_keys=True) for value in values]
        if not texts:
            raise document.error(("grid", key), "holds no values: give at least one")
        twice = next((text for place, text in enumerate(texts) if text in texts[:place]), None)
        if twice is not None:
            raise document.error(("grid", key), f"holds {twice} twice")
    for key, leader in file.tie.items():
        if leader not in file.grid:
            raise document.error(
                ("tie", key), f"follows {leader}, which is no key of the grid ({', '.join(file.grid)})"
            )
    count = math.prod(len(values) for values in file.grid.values()) * len(file.policies or (None,))
    if count > MOST_POINTS:
        raise document.error(("grid",), f"makes {count:,} points, at most {MOST_POINTS:,} go into one sweep")
