"""From a scenario to what can be run: a replay of routing, or of a recorded load."""

from __future__ import annotations

from pathlib import Path

from slicesim.demand_simulation import DemandSimulation
from slicesim.scenario import Scenario
from slicesim.simulation import Simulation
from slicesim.trace.demand import DemandTrace, is_demand
from slicesim.trace.table import Trace


def prepare(scenario: Scenario, trace: Trace | DemandTrace | None = None) -> Simulation | DemandSimulation:
    """Check that the parts of a scenario go together; its trace's file tells which kind of replay it is."""
    if isinstance(trace, DemandTrace):
        return DemandSimulation.prepare(scenario, trace)
    if trace is None and is_demand(Path(scenario.settings.trace.path)):
        return DemandSimulation.prepare(scenario)
    return Simulation.prepare(scenario, trace)
