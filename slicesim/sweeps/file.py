"""A sweep file: one scenario, the values that are laid over it, and what is looked for among them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from slicesim.scenario import Scenario
from slicesim.scenario.document import Document, KeyPath, read_document
from slicesim.scenario.scenario import path_from_here, policy_choice, scenario_document, validate
from slicesim.scenario.schema import Section
from slicesim.sweeps.figures import Figure
from slicesim.sweeps.goals import Direction, Goals, Limit
from slicesim.sweeps.search import MOST_POINTS, BayesianSearch, Search, SearchSection, Values, listed

_TIMELINE = "schedule.timeline_tokens"


class SweepFile(Section):
    """What a sweep file may say. Paths are read from the folder of the file."""

    scenario: str = Field(min_length=1, description="scenario file that all points start from")
    model: str | None = Field(None, min_length=1, description="as --model of run")
    trace: str | None = Field(None, min_length=1, description="as --trace of run")
    policies: list[str] | None = Field(None, description="presets or file.py:Class; every point runs under each")
    set: dict[str, Any] = Field(default_factory=dict, description="scenario keys, dotted, for all points")
    grid: dict[str, list[Any]] = Field(
        default_factory=dict, description="scenario keys, dotted, with the values that they take"
    )
    search: Search | None = Field(None, description="instead of grid: how points are drawn, and from which ranges")
    tie: dict[str, str] = Field(default_factory=dict, description="keys that take the value of a key that varies")
    objectives: dict[str, Direction] = Field(default_factory=dict, description="figures, minimise or maximise")
    constraints: dict[str, Limit] = Field(default_factory=dict, description="figures, with max, min or both")

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
    """One scenario of a sweep. values: what the keys that vary are here, as the file says it."""

    values: Values
    scenario: Scenario


@dataclass(frozen=True)
class Sweep:
    """A sweep file, spelled out. keys: those that vary, in order."""

    path: Path
    document: Document
    file: SweepFile
    search: SearchSection
    goals: Goals
    bases: tuple[Document, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys that vary."""
        return tuple(self.search.keys)

    @property
    def size(self) -> int:
        """Points of the whole sweep."""
        return self.search.size * len(self.bases)

    def point(self, base: Document, values: Values) -> Point:
        """Lay values over the scenario under one policy; raises UserError, with file, line and key, if not valid."""
        tied = {key: values[leader] for key, leader in self.file.tie.items()}
        varied = [
            *_overrides(self.document, _place_of_keys(self.file), values),
            *_overrides(self.document, ("tie",), tied),
        ]
        return Point(values, Scenario.of(_lay_over(base, varied)))


def read_sweep(path: str | Path) -> Sweep:
    """Read a sweep file. Raises UserError, with file, line and key, for what is not valid in it; its points are not
    looked at yet.
    """
    document = read_document(Path(path))
    file = validate(SweepFile, document)
    if file.search is None and not file.grid:
        raise document.error(("grid",), "is missing: give a grid, or a search")
    if file.search is not None and file.grid:
        raise document.error(("search",), "stands beside a grid: leave one out")
    search = file.search or listed(file.grid)
    _check(file, search, document)
    goals = _goals(file, search, document)
    constant = list(_overrides(document, ("set",), file.set))
    bases = tuple(_lay_over(base, constant) for base in _bases(file, document))
    return Sweep(Path(path), document, file, search, goals, bases)


def _bases(file: SweepFile, document: Document) -> Iterator[Document]:
    """Yield the scenario under each policy."""
    where = document.where(("scenario",))
    scenario = Path(path_from_here(("trace", "path"), file.scenario, where))  # a path whatever it looks like
    if not os.path.isfile(scenario):
        raise document.error(("scenario",), f"no such file: {scenario}")
    base = scenario_document(scenario).assign(_TIMELINE, 0, where)  # a sweep draws no timelines
    for section, key, value in (("model", "model", file.model), ("trace", "trace.path", file.trace)):
        if value is not None:
            base = _lay_over(base, _overrides(document, (section,), {key: value}, key_is_written=False))
    if file.policies is None:
        yield base
    where = document.where(("policies",))
    for name in file.policies or ():
        yield base.assign("policy", policy_choice(path_from_here(("policy", "eviction", "name"), name, where)), where)


def _place_of_keys(file: SweepFile) -> KeyPath:
    return ("search", "keys") if file.search is not None else ("grid",)


Override = tuple[str, Any, str]


def _overrides(
    document: Document, place: KeyPath, values: Mapping[str, Any], *, key_is_written: bool = True
) -> Iterator[Override]:
    """Yield (scenario key, value, ``file:line``) with relative paths seen from here."""
    for key, value in values.items():
        mark = document.where((*place, key) if key_is_written else place)
        yield key, path_from_here(tuple(key.split(".")), value, mark), mark


def _lay_over(document: Document, overrides: Sequence[Override] | Iterator[Override]) -> Document:
    for key, value, mark in overrides:
        document = document.assign(key, value, mark)
    return document


def _check(file: SweepFile, search: SearchSection, document: Document) -> None:
    """Refuse what would be laid over twice, tied to nothing, or run for ever."""
    varied = _place_of_keys(file)
    written: list[tuple[KeyPath, str]] = [(("set", key), key) for key in file.set]
    written += [((*varied, key), key) for key in search.keys] + [(("tie", key), key) for key in file.tie]
    laid = [
        key
        for key, value in (("model", file.model), ("trace.path", file.trace), ("policy", file.policies))
        if value is not None
    ]
    for place, key in written:
        if key == _TIMELINE:
            raise document.error(place, "a sweep draws no timelines: leave it out, or use slicesim run for one point")
        if place == (*varied, "policy"):
            raise document.error(place, "list policies under policies:, or vary policy.preset")
        below = next((other for other in laid if other == key or other.startswith(f"{key}.")), None)
        if below is not None:
            raise document.error(place, f"would undo {below}, which this sweep gives too: leave one out")
        laid.append(key)
    for key, values in search.keys.items():
        if isinstance(values, list):
            _check_list(values, document, (*varied, key))
    for key, leader in file.tie.items():
        if leader not in search.keys:
            raise document.error(
                ("tie", key), f"follows {leader}, which is no key of the {varied[0]} ({', '.join(search.keys)})"
            )
    count = search.size * len(file.policies or (None,))
    if count > MOST_POINTS:
        raise document.error(varied[:1], f"makes {count:,} points, at most {MOST_POINTS:,} go into one sweep")


def _check_list(values: list[Any], document: Document, place: KeyPath) -> None:
    texts = [json.dumps(value, default=str, sort_keys=True) for value in values]
    if not texts:
        raise document.error(place, "holds no values: give at least one")
    twice = next((text for place, text in enumerate(texts) if text in texts[:place]), None)
    if twice is not None:
        raise document.error(place, f"holds {twice} twice")


def _goals(file: SweepFile, search: SearchSection, document: Document) -> Goals:
    """Look the figures up."""

    def figure(section: str, name: str) -> Figure:
        try:
            return Figure.of(name)
        except ValueError as fault:
            raise document.error((section, name), str(fault)) from None

    if isinstance(search, BayesianSearch):
        if not file.objectives:
            raise document.error(
                ("objectives",), "is missing: a bayesian search needs one, decode.energy_mj_per_token.total: minimise"
            )
        if len(file.policies or ()) > 1:
            raise document.error(
                ("policies",), "a bayesian search has one policy: give policy.preset, with a list, as one of its keys"
            )
    return Goals(
        tuple((figure("objectives", name), direction) for name, direction in file.objectives.items()),
        tuple((figure("constraints", name), limit) for name, limit in file.constraints.items()),
    )
