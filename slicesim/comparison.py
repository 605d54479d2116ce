"""Policies side by side: which of them a trace allows, and the figures of each beside the lower bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicesim.errors import UserError
from slicesim.policies import presets
from slicesim.policies.wishes import timed_alike
from slicesim.scenario import Scenario
from slicesim.simulation import Progress, Simulation
from slicesim.trace import DECODE
from slicesim.trace.split import segments
from slicesim.workers import in_processes, same_trace

#: Stands for every preset that the trace allows.
ALL = "all"

#: Gains are against this preset, where all of them run.
_PLAIN = "lru-high"


@dataclass(frozen=True)
class Entry:
    """One policy's run. summary: the figures, headroom included; offline: it knows the future; objects: what its cache
    holds, ``slices``, ``whole`` experts or ``msb`` slices alone.
    """

    summary: dict[str, Any]
    offline: bool
    objects: str


@dataclass(frozen=True)
class Comparison:
    """Runs of one scenario. reference: the one that gains are against; left_out: preset -> why it cannot run."""

    entries: tuple[Entry, ...]
    reference: Entry
    left_out: Mapping[str, str]

    def describe(self) -> dict[str, Any]:
        """Return everything as plain data."""
        from slicesim.report.comparison import comparison

        return comparison(self)

    def save(self, folder: str | Path) -> Path:
        """Write summary.json, comparison.parquet, pareto.png and pareto.svg; the folder appears only when whole."""
        from slicesim.report.comparison import write_comparison

        return write_comparison(self, Path(folder))


@dataclass(frozen=True)
class PreparedComparison:
    """Policies that have been checked; nothing has run. sorted: by energy, rather than in the order given."""

    simulations: tuple[Simulation, ...]
    left_out: Mapping[str, str]
    sorted: bool

    @property
    def tokens(self) -> int:
        """Trace tokens that all runs together go through."""
        return sum(simulation.tokens for simulation in self.simulations)

    def run(self, jobs: int = 1, progress: Progress | None = None) -> Comparison:
        """Run all, ``jobs`` processes at once; the figures are the same for any number.

        progress: called with the number of trace tokens done.
        """
        if jobs < 1:
            raise UserError(f"jobs must be at least 1, is {jobs}")
        simulations = self.simulations
        summaries = _here(simulations, progress) if jobs == 1 else _elsewhere(simulations, jobs, progress)
        entries = [
            Entry(summary, own.policy.needs_future, own.policy.precision.objects)
            for summary, own in zip(summaries, simulations, strict=True)
        ]
        reference = entries[0]
        if self.sorted:
            reference = next((entry for entry in entries if entry.summary["policy"] == _PLAIN), reference)
            entries.sort(key=_energy)
        return Comparison(tuple(entries), reference, self.left_out)


def prepare(
    config: str | Path,
    policies: Sequence[str],
    *,
    model: str | None = None,
    trace: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
) -> PreparedComparison:
    """Check all policies before the first one runs; the trace is read once.

    ``all`` among the policies stands for every preset; those that cannot run here are left out with the reason.
    Raises UserError where a policy that was named cannot run, or no preset can.
    """
    names = _expanded(policies)
    scenarios = [Scenario.load(config, model=model, trace=trace, policy=name, assignments=set) for name in names]
    first: Simulation | None = None
    simulations: list[Simulation] = []
    left_out: dict[str, str] = {}
    for policy, scenario in zip(names, timed_alike(scenarios), strict=True):
        try:
            simulation = Simulation.prepare(scenario, first.trace if first else None)
        except UserError as fault:
            if policy in policies:
                raise
            left_out[policy] = str(fault)
            continue
        if first is None and ALL in policies:
            _require_decode(simulation)
        first = first or simulation
        simulations.append(simulation)
    if first is None:
        raise UserError(next(iter(left_out.values())))
    return PreparedComparison(tuple(simulations), left_out, ALL in policies)


def _expanded(policies: Sequence[str]) -> list[str]:
    named = [name for name in policies if name != ALL]
    return named if ALL not in policies else [*named, *(name for name in presets() if name not in named)]


def _require_decode(simulation: Simulation) -> None:
    section = simulation.scenario.settings.trace
    if not any(part.phase == DECODE for part in segments(simulation.trace, section.split, section.max_tokens)):
        raise UserError(
            f"{section.path}: no decode tokens with trace.split={section.split}: nothing to compare; "
            "set trace.split=all-decode, or a fraction that is prompt, such as trace.split=0.5"
        )


def _energy(entry: Entry) -> tuple[float, str]:
    summary = entry.summary
    return summary["decode"]["energy_pj_per_token"]["total"], summary["policy"]


def _here(simulations: Sequence[Simulation], progress: Progress | None) -> list[dict[str, Any]]:
    summaries, before = [], 0
    for simulation in simulations:

        def tick(done: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done)

        summaries.append(simulation.run(tick, headroom=True).summary)
        before += simulation.tokens
    return summaries


def _elsewhere(simulations: Sequence[Simulation], jobs: int, progress: Progress | None) -> list[dict[str, Any]]:
    calls = ((number, simulation.scenario, simulation.trace.digest) for number, simulation in enumerate(simulations))
    found: dict[int, dict[str, Any]] = {}
    done = 0
    for number, summary in in_processes(_in_worker, calls, jobs):
        found[number] = summary
        done += simulations[number].tokens
        if progress is not None:
            progress(done)
    return [found[number] for number in range(len(simulations))]


def _in_worker(number: int, scenario: Scenario, trace_digest: str) -> tuple[int, dict[str, Any]]:
    settings = scenario.settings
    trace = same_trace(settings.trace.path, settings.model, trace_digest)
    return number, Simulation.prepare(scenario, trace).run(headroom=True).summary
