"""Costs of the inference engine, added to the computing time of the operations that bear them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from slicesim.hardware.units import bytes_per_second, duration_ps
from slicesim.scenario.schema import Software
from slicesim.schedule.plan import IntArray, Plan
from slicesim.schedule.workload import OpKinds


@dataclass(frozen=True)
class SoftwareCosts:
    """time of an operation += inserts x insert latency + inserted bytes / insert rate + recorded time."""

    settings: Software | None

    def __call__(self, plan: Plan) -> Plan:
        """Return the plan with these costs; the same plan where there are none."""
        extra = self.extra_ps(plan.workload.kinds)
        if not extra.any():
            return plan
        return replace(plan, ops=replace(plan.ops, compute_ps=plan.ops.compute_ps + extra))

    def extra_ps(self, kinds: OpKinds) -> IntArray:
        """Time beside the MACs, for each kind of operation."""
        columns = kinds.columns
        extra = np.array(columns.recorded_ps, dtype=np.int64)
        if self.settings is None:
            return extra
        latency_ps = round(self.settings.insert_latency_us.value * 1e6)
        rate = bytes_per_second(self.settings.insert_bandwidth_gbs.value)
        for kind in np.flatnonzero(columns.inserted_bytes):
            extra[kind] += int(columns.inserts[kind]) * latency_ps + duration_ps(
                int(columns.inserted_bytes[kind]), rate
            )  # type: ignore[index]
        return extra
