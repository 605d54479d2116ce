"""A recorded load on a device: a demand trace is scheduled and accounted for; nothing is decided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from slicesim.account import Decided
from slicesim.checks import check_device
from slicesim.clock import Clock
from slicesim.decide import DecodeDemand, SliceSizes
from slicesim.decide.residency import Residency
from slicesim.errors import UserError
from slicesim.hardware import Hardware
from slicesim.models import ModelGeometry, int8_bytes, load_model
from slicesim.policies.constraint import Constraint, NoConstraint
from slicesim.quality import GateMass
from slicesim.scenario import Scenario
from slicesim.schedule import LOWERING_KEYS, DemandLowering, Workload
from slicesim.simulation import Replay
from slicesim.trace.demand import DemandTrace, read_demand
from slicesim.version import __version__

#: No bit slices are known: what the planner asks for, and what accounting counts look-ups with.
_WHOLE = SliceSizes(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), 8, 0)

#: Keys that speak to the decisions, which a demand trace has behind it, or to how slices are read.
_DECIDE_ONLY = (
    ("policy",), ("cache",), ("amat",), ("trace", "split"), ("trace", "top_k"), ("trace", "layer_subset"),
    *(("schedule", key) for key in LOWERING_KEYS),
)  # fmt: skip

NOTE = "demand trace: bytes as recorded, no routing: no misses are counted, no policy and no quality"


@dataclass(frozen=True)
class DemandSimulation(Replay):
    """A scenario with a demand trace, its model and its device."""

    scenario: Scenario
    trace: DemandTrace
    model: ModelGeometry
    hardware: Hardware
    warnings: tuple[str, ...]

    @classmethod
    def prepare(cls, scenario: Scenario, trace: DemandTrace | None = None) -> DemandSimulation:
        """Load what the scenario names; raises UserError where the parts do not fit together."""
        settings = scenario.settings
        check_device(scenario)
        trace = trace or read_demand(Path(settings.trace.path))
        _refuse_decisions(scenario, trace.name)
        if settings.device.interconnect is not None:
            raise scenario.error(
                "device", "interconnect",
                message=f"{trace.name} is a demand trace: it has no routing to share out; give one device",
            )  # fmt: skip
        model = load_model(settings.model, scenario.where("model"))
        if trace.header.layers != len(model.moe_layers):
            raise scenario.error(
                "trace", "path",
                message=f"{trace.name} has {trace.header.layers} layers with experts, {model.name} has "
                f"{len(model.moe_layers)}; choose the model that was recorded ({trace.header.model})",
            )  # fmt: skip
        trace = trace.first(settings.trace.max_tokens)
        other = trace.header.model.lower() != model.name.lower()
        warnings = (NOTE, *([f"{trace.name} was recorded on {trace.header.model}, the model is {model.name}"] * other))
        return cls(scenario, trace, model, Hardware.of(settings.device), warnings)

    @property
    def tokens(self) -> int:
        """Tokens that a run goes through."""
        return len(self.trace)

    @property
    def constraint(self) -> Constraint:
        """Nothing is decided."""
        return NoConstraint()

    def clock(self) -> Clock:
        """Return the device at time 0."""
        return Clock(self.scenario, self.hardware, _WHOLE, self.model)

    def decided(self, residency: Residency | None = None) -> Iterator[tuple[DecodeDemand, Workload, Decided]]:
        """Yield the tokens of each table, what they ask of a device, and what was recorded of them; it has no cache."""
        for places, work in DemandLowering(self.trace, self.model).workloads():
            demand = self._identity(places)
            nothing = GateMass(*(np.zeros(len(places)) for _ in range(6)))
            counted = Decided.of(demand, work, _WHOLE, nothing)
            part = slice(places.start, places.stop)
            missed, hit = self.trace.flash_read_bytes[part], self.trace.hit_bytes[part]
            recorded = {"missed_bytes": missed, "lookup_bytes": missed + hit}
            yield demand, work, Decided(counted.columns | recorded, counted.amounts)

    def flash_bound(self) -> NoReturn:
        """Refuse: nobody knows which slices were looked up."""
        raise UserError(f"{self.trace.name} is a demand trace, its look-ups are not known: leave --headroom out")

    def decision_key(self) -> str:
        """What the load follows from: the trace and the model."""
        return f"{self.trace.digest} {self.model.model_dump_json()}"

    def describe(self) -> dict[str, Any]:
        """Return the head of the summary, with the keys that a replay with decisions has."""
        settings = self.scenario.settings
        resolved = settings.model_dump(mode="json", exclude_none=True)
        resolved["policy"] = {"preset": "none"}
        header = self.trace.header.model_dump(mode="json", exclude_none=True)
        return {
            "slicesim_version": __version__,
            "scenario": resolved,
            "policy": "none (demand trace)",
            "model": {
                "name": self.model.name,
                "expert_weights": self.model.expert_weights,
                "non_expert_bytes": self.trace.header.non_expert_bytes or int8_bytes(self.model.non_expert_weights),
            },
            "trace": {
                "path": self.trace.name,
                "sha256": self.trace.digest,
                "tokens": self.tokens,
                "kind": "demand",
                **header,
            },
            "warnings": list(self.warnings),
        }

    def _identity(self, places: range) -> DecodeDemand:
        """Which tokens they are, with no expert in them."""
        count = len(places)
        context = self.trace.header.context + 1 + np.arange(places.start, places.stop)
        token = self.trace.token[places.start : places.stop]
        demand = DecodeDemand.empty(np.zeros(count, dtype=np.int64), token, context, (count, 1, 0), 0)
        demand.resident_bytes[:] = 0
        demand.strength[:] = np.nan
        demand.step[:] = np.arange(places.start, places.stop)
        return demand


def _refuse_decisions(scenario: Scenario, name: str) -> None:
    """What a scenario file says of the cache is passed over; what the command line says must have an effect."""
    for path, mark in scenario.document.marks.items():
        if mark.startswith("--") and any(path[: len(key)] == key for key in _DECIDE_ONLY):
            raise UserError(f"{mark}: {name} is a demand trace, nothing is decided in its replay; leave the option out")
