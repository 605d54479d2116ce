"""How far the answer moves when one coefficient goes to an end of its range: decided once, timed for every variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from slicesim.errors import UserError
from slicesim.preparation import prepare
from slicesim.report.folder import SUMMARY, write_folder
from slicesim.result import Result
from slicesim.scenario import Scenario
from slicesim.scenario.coefficient import Coefficient
from slicesim.scenario.scenario import validate
from slicesim.scenario.schema import Settings
from slicesim.simulation import Progress, Replay, replay_together

#: The sections of a scenario whose coefficients are varied.
_SECTIONS = ("device", "software")


@dataclass(frozen=True)
class Answer:
    """What is looked at: tokens per second and energy of a decode token."""

    tokens_per_s: float
    energy_pj_per_token: float

    @classmethod
    def of(cls, scenario: Scenario, result: Result) -> Answer:
        """Read a result. Raises UserError where nothing was decoded."""
        if not result.decode["tokens"]:
            raise scenario.error("trace", "path", message="holds no decode tokens: nothing to compare; set trace.split")
        return cls(float(result.decode["tokens_per_s"]), float(result.decode["energy_pj_per_token"]["total"]))


@dataclass(frozen=True)
class Ends:
    """One coefficient: its value, the ends of its range, and the answer at each end (None where it has none)."""

    key: str
    value: float
    low: float | None
    high: float | None
    at_low: Answer | None
    at_high: Answer | None

    def change(self, name: str, base: Answer) -> tuple[float, float]:
        """Relative change of a figure of the answer at the low and at the high end."""
        before = getattr(base, name)
        low, high = (0.0 if at is None else getattr(at, name) / before - 1 for at in (self.at_low, self.at_high))
        return low, high

    def swing(self, name: str, base: Answer) -> float:
        """How far apart the ends lie, with the value itself."""
        changes = (0.0, *self.change(name, base))
        return max(changes) - min(changes)


@dataclass(frozen=True)
class Skipped:
    """An end that the simulator refuses, and why."""

    key: str
    value: float
    reason: str


@dataclass(frozen=True)
class Sensitivity:
    """The answer, its coefficients in order of how far they move the speed, and what could not be run."""

    head: dict[str, Any]
    base: Answer
    coefficients: tuple[Ends, ...]
    skipped: tuple[Skipped, ...]

    def describe(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            **self.head,
            "base": vars(self.base),
            "coefficients": [
                {
                    "key": ends.key,
                    "value": ends.value,
                    **{
                        end: None if at is None else {"value": value, **vars(at)}
                        for end, value, at in (("low", ends.low, ends.at_low), ("high", ends.high, ends.at_high))
                    },
                    "swing": {name: ends.swing(name, self.base) for name in vars(self.base)},
                }
                for ends in self.coefficients
            ],
            "skipped": [vars(skipped) for skipped in self.skipped],
        }

    def save(self, folder: Path) -> Path:
        """Write summary.json, tornado.png and tornado.svg; the folder appears only when whole."""
        import json

        from slicesim.report.sensitivity import tornado_plot

        text = json.dumps(self.describe(), indent=2, allow_nan=False) + "\n"
        files = {
            SUMMARY: lambda path: path.write_text(text, encoding="utf-8"),
            "tornado.png": lambda path: tornado_plot(self, path),
        }
        return write_folder(folder, files)


@dataclass(frozen=True)
class _Variant:
    key: str
    end: str
    value: float
    replay: Replay


def sensitivity(scenario: Scenario, progress: Progress | None = None) -> Sensitivity:
    """Vary each coefficient of the device that has a range, one at a time.

    Raises UserError where no coefficient has a range, and where nothing is decoded.
    """
    ranges = dict(_ranges(scenario))
    if not ranges:
        raise scenario.error("device", message="no coefficient has a range; give low and high beside a value")
    tied = {key: [other for other in ranges if _repeats(ranges, other, key)] for key in ranges}
    ranges = {key: c for key, c in ranges.items() if not any(key in others for others in tied.values())}
    base = prepare(scenario)
    variants: list[_Variant] = []
    skipped: list[Skipped] = []
    for key, coefficient in ranges.items():
        for end in ("low", "high"):
            value = getattr(coefficient, end)
            if value is None or value == coefficient.value:
                continue
            try:
                changed = _with(scenario, (key, *tied[key]), coefficient, value)
                variants.append(_Variant(key, end, value, prepare(changed, base.trace)))
            except UserError as error:
                skipped.append(Skipped(key, value, str(error)))
    results = replay_together([base, *(variant.replay for variant in variants)], progress)
    answers = [Answer.of(scenario, result) for result in results]
    at = {(v.key, v.end): answer for v, answer in zip(variants, answers[1:], strict=True)}
    ends = [Ends(key, c.value, c.low, c.high, at.get((key, "low")), at.get((key, "high"))) for key, c in ranges.items()]
    order = sorted(
        ends, key=lambda e: (-e.swing("tokens_per_s", answers[0]), -e.swing("energy_pj_per_token", answers[0]))
    )
    return Sensitivity(base.describe(), answers[0], tuple(order), tuple(skipped))


def _repeats(ranges: Mapping[str, Coefficient], other: str, key: str) -> bool:
    """Tell whether a key says the figure of another again: ``lane_bandwidth_gbs`` of a flash of one lane is its
    ``bandwidth_gbs``, and moving one of them alone would move nothing."""
    section, _, name = key.rpartition(".")
    mine, its = (ranges[k] for k in (key, other))
    same = (mine.value, mine.low, mine.high) == (its.value, its.low, its.high)
    return other != key and other.startswith(f"{section}.") and other.endswith(f"_{name}") and same


def _with(scenario: Scenario, keys: Sequence[str], coefficient: Coefficient, value: float) -> Scenario:
    """The scenario with one coefficient, and keys that repeat it, elsewhere in its range."""
    changed = coefficient.model_dump(exclude_none=True) | {"value": value}
    document = scenario.document
    for key in keys:
        document = document.assign(key, changed, f"{key}={value:g}")
    return Scenario(validate(Settings, document), document)


def _ranges(scenario: Scenario) -> Iterator[tuple[str, Coefficient]]:
    """Coefficients that have a range, by key, in the order of the schema."""
    for section in _SECTIONS:
        yield from _coefficients((section,), getattr(scenario.settings, section))


def _coefficients(path: Sequence[str], node: object) -> Iterator[tuple[str, Coefficient]]:
    if isinstance(node, Coefficient):
        if node.low is not None or node.high is not None:
            yield ".".join(path), node
    elif isinstance(node, BaseModel):
        for name in type(node).model_fields:
            yield from _coefficients((*path, name), getattr(node, name))
