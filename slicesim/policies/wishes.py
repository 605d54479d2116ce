"""What presets ask of the schedule: a policy that reads ahead needs an overlap in which that means something.

A wish goes before what the scenario's file says, with a note; it never goes before what was set by hand over the file
(``--set``, a sweep's grid).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from slicesim.policies.compose import load_preset
from slicesim.scenario import Scenario

#: What belongs to the device rather than to a policy: policies that are compared have it alike.
SHARED = ("overlap",)


def with_wishes(scenario: Scenario) -> Scenario:
    """Return the scenario with the schedule that its preset asks for."""
    name = scenario.settings.policy.preset
    return _granted(scenario, load_preset(name, scenario).schedule, f"policy {name} asks for it")


def timed_alike(scenarios: Sequence[Scenario]) -> list[Scenario]:
    """Return scenarios of one comparison, in each what any of their presets asks of the device; one note for all."""
    alike = list(scenarios)
    for scenario in scenarios:
        name = scenario.settings.policy.preset
        wishes = load_preset(name, scenario).schedule
        shared = {key: value for key, value in wishes.items() if key in SHARED}
        granted = [_granted(other, shared, f"all rows, as policy {name} asks for it") for other in alike]
        first, *rest = granted
        alike = [first, *(replace(other, notes=old.notes) for other, old in zip(rest, alike[1:], strict=True))]
    return alike


def _granted(scenario: Scenario, wishes: Mapping[str, Any], why: str) -> Scenario:
    document, notes = scenario.document, scenario.notes
    for key, value in wishes.items():
        path, old = ("schedule", key), getattr(scenario.settings.schedule, key)
        if old == value or document.is_assigned(path):
            continue
        if path in document.marks:
            notes += (f"schedule.{key} is {value} here ({why}; {document.where(path)} says {old})",)
        document = document.assign(f"schedule.{key}", value, f"policy {scenario.settings.policy.preset}")
    return replace(Scenario.of(document), notes=notes)
