"""Systems at equal quality: the strength of routing at which a system's quality proxy is that of another one.

The proxy is the expected relative error of the model's page (``expected_rel_mse``, open loop): it rises with the
strength, because what is rerouted counts as lost. So the strength is found by bisection.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import kit

Found = TypeVar("Found")

#: The share of the proxy by which a match may miss it, and replays in search of it.
TOLERANCE, MOST_REPLAYS = 0.01, 12


class Match(NamedTuple, Generic[Found]):
    """Where the bisection ended. met: the proxy is within the tolerance; otherwise an end of the range is nearest."""

    knob: float
    proxy: float
    met: bool
    found: Found


def match(
    at: Callable[[float], tuple[float, Found]],
    target: float,
    low: float,
    high: float,
    tolerance: float = TOLERANCE,
    most_replays: int = MOST_REPLAYS,
) -> Match[Found]:
    """Find the knob in [low, high] at which the proxy is ``target``, to within ``tolerance`` x target.

    at: replays at a knob and returns the proxy, which rises with the knob, and what else was found. Where the target
    lies beyond an end of the range, that end is returned; where the proxy leaps over it, or the replays are used up,
    the nearest point seen.
    """
    seen: list[Match[Found]] = []

    def look(knob: float) -> float:
        proxy, found = at(knob)
        seen.append(Match(knob, proxy, abs(proxy - target) <= tolerance * target, found))
        return proxy

    if look(low) < target and not seen[-1].met and look(high) > target and not seen[-1].met:
        while len(seen) < most_replays and not seen[-1].met:
            middle = (low + high) / 2
            low, high = (middle, high) if look(middle) < target else (low, middle)
    return min(seen, key=lambda point: abs(point.proxy - target))


class System(NamedTuple):
    """A baseline, and the knob that trades its quality for misses; settings: from the knob; low == high: none."""

    preset: str
    settings: Callable[[float], dict[str, Any]]
    low: float = 0.0
    high: float = 1.0


_FREE: Mapping[str, Any] = {"policy.constraint": {"name": "none"}}


def _prior(strength: float) -> dict[str, Any]:
    return {**_FREE, "policy.routing": {"name": "cache-prior", "strength": strength}}


def _cumsum(mass: float) -> dict[str, Any]:
    return {**_FREE, "policy.routing": {"name": "cumsum", "mass": mass}}


def _budget(denial: float) -> dict[str, Any]:
    return {"policy.constraint": {"name": "budget", "target": 1 - denial}}


#: With logits all but the last one reroute. Without, misses are denied under a budget: the only way to trade.
WITH_LOGITS: Mapping[str, System] = {
    "Cache-Prior, high bits": System("lru-high", _prior),
    "Cumsum, high bits": System("lru-high", _cumsum, 0.01),
    "uniform low bits": System("lru-low", _prior),
    "bit slices, all misses read": System("dbsc", _prior),
    "uniform high bits": System("lru-high", lambda _: {}, 0.0, 0.0),
}
TOP_K_ONLY: Mapping[str, System] = {
    "budget, high bits": System("lru-high", _budget),
    "budget, uniform low bits": System("lru-low", _budget),
    "uniform high bits": System("lru-high", lambda _: {}, 0.0, 0.0),
}


def systems(subject: kit.Subject) -> Mapping[str, System]:
    """Return the baselines that a subject's routing allows."""
    return WITH_LOGITS if subject.trace.header.has_logits else TOP_K_ONLY


def rel_mse(figures: Mapping[str, Any]) -> float:
    """Return the proxy."""
    return float(figures["rel_mse"])


def at_quality(
    subject: kit.Subject,
    case: kit.Case,
    system: System,
    target: float,
    more: Mapping[str, Any] | None = None,
    proxy: Callable[[Mapping[str, Any]], float] = rel_mse,
) -> Match[dict[str, Any]]:
    """Replay a system where its proxy is ``target``. more: keys of the scenario for all replays."""

    def at(knob: float) -> tuple[float, dict[str, Any]]:
        settings = {**system.settings(knob), **(more or {})}
        figures = kit.figures_of(kit.simulate(subject, case, system.preset, settings))
        return proxy(figures), figures

    return match(at, target, system.low, system.high)


@functools.cache
def at_equal_quality(subject: kit.Subject, case: kit.Case) -> dict[str, Match[dict[str, Any]]]:
    """Replay SliceMoE as its preset has it, and every baseline where it is as good; once for all figures."""
    ours = kit.figures_of(kit.simulate(subject, case, "slicemoe"))
    matches = {"SliceMoE": Match(0.0, ours["rel_mse"], True, ours)}
    for name, system in systems(subject).items():
        matches[name] = at_quality(subject, case, system, ours["rel_mse"])
    return matches
