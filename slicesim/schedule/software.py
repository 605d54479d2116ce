"""Costs of the inference engine, added to the operations that bear them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from slicesim.hardware.units import bytes_per_second, duration_ps
from slicesim.scenario.software import Software
from slicesim.schedule.plan import IntArray, OpTimes, Plan
from slicesim.schedule.workload import KindTable


@dataclass(frozen=True)
class SoftwareCosts:
    """An operation ends later by inserts x insert latency + inserted bytes / insert rate: the processor that computes
    is busy with it, so it hides behind nothing. A recorded time takes the place of the computation."""

    settings: Software | None

    def __call__(self, plan: Plan) -> Plan:
        """Return the plan with these costs; the same plan where there are none."""
        kinds = plan.workload.kinds
        insert, recorded = self.insert_ps(kinds), kinds.columns.recorded_ps
        if not insert.any() and not np.any(recorded):
            return plan
        return replace(plan, ops=_later(_recorded(plan.ops, recorded), insert))

    def insert_ps(self, kinds: KindTable) -> IntArray:
        """Time to put what was read into the cache, for each kind of operation."""
        columns = kinds.columns
        times = np.zeros(len(kinds), dtype=np.int64)
        if self.settings is None:
            return times
        latency_ps = round(self.settings.insert_latency_us.value * 1e6)
        rate = bytes_per_second(self.settings.insert_bandwidth_gbs.value)
        inserts, sizes = np.asarray(columns.inserts), np.asarray(columns.inserted_bytes)
        for kind in np.flatnonzero(sizes):
            times[kind] = int(inserts[kind]) * latency_ps + duration_ps(int(sizes[kind]), rate)
        return times


def _recorded(ops: OpTimes, recorded_ps: int | IntArray) -> OpTimes:
    times = np.asarray(recorded_ps)
    pairs = {name: np.where(times > 0, times, getattr(ops, name)) for name in ("compute_ps", "busy_ps")}
    return replace(ops, **pairs)


def _later(ops: OpTimes, extra_ps: IntArray) -> OpTimes:
    """Let operations end later, whether stream or computation ends last."""
    after_first = np.maximum(ops.stream_ps, ops.first_ps + ops.compute_ps) - ops.first_ps + extra_ps
    return replace(ops, compute_ps=np.where(extra_ps > 0, after_first, ops.compute_ps), busy_ps=ops.busy_ps + extra_ps)
