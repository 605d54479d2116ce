"""When everything happened: what an engine returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicesim.schedule.plan import Plan
from slicesim.schedule.workload import NO_OP

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Timeline:
    """Times in ps (int64), one row per operation, read and step of the plan.

    op_ready: the operation before it has ended; op_request: its DRAM read is asked for (its fills are done);
    op_grant: the read begins; op_end: the computation ends. read_lane: lane number; read_start: lane taken;
    read_pipe: shared pipe taken; read_end: lane freed; read_write: DRAM write begins; read_usable: it ends.
    """

    step_start: IntArray
    step_end: IntArray
    op_ready: IntArray
    op_request: IntArray
    op_grant: IntArray
    op_end: IntArray
    read_lane: IntArray
    read_start: IntArray
    read_pipe: IntArray
    read_end: IntArray
    read_write: IntArray
    read_usable: IntArray

    @classmethod
    def empty(cls, plan: Plan) -> Timeline:
        """Columns to be filled in by an engine."""
        counts = {"step": plan.workload.steps, "op": len(plan.op_stream_ps), "read": len(plan.read_pipe_ps)}
        return cls(**{name: np.zeros(counts[name.split("_")[0]], dtype=np.int64) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class StepTimes:
    """Where each step's time went, in ps (int64 [steps]).

    npu + dram_stall + flash_stall = latency. npu: the array computes; dram_stall: it waits for the DRAM pipe or for
    bytes on it; flash_stall: it waits for fills. *_busy: time that a resource is in use.
    """

    latency: IntArray
    npu: IntArray
    dram_stall: IntArray
    flash_stall: IntArray
    flash_busy: IntArray
    dram_busy: IntArray

    @classmethod
    def of(cls, plan: Plan, timeline: Timeline) -> StepTimes:
        """Add up a timeline by step."""
        work = plan.workload
        ops, reads = work.step_of_op(), work.step_of_read()

        def by_step(step: IntArray, values: IntArray) -> IntArray:
            total = np.zeros(work.steps, dtype=np.int64)
            np.add.at(total, step, values)
            return total

        latency = timeline.step_end - timeline.step_start
        npu = by_step(ops, plan.op_compute_ps)
        dram = by_step(ops, timeline.op_end - timeline.op_request - plan.op_compute_ps)
        return cls(
            latency=latency,
            npu=npu,
            dram_stall=dram,
            flash_stall=latency - npu - dram,
            flash_busy=by_step(reads, plan.read_pipe_ps),
            dram_busy=by_step(ops, plan.op_stream_ps) + by_step(reads, plan.read_write_ps),
        )


def fills_done(plan: Plan, timeline: Timeline) -> IntArray:
    """Return when each operation's last fill is usable (0 where it waits for none)."""
    done = np.zeros(len(plan.op_stream_ps), dtype=np.int64)
    waiting = plan.workload.read_op != NO_OP
    np.maximum.at(done, plan.workload.read_op[waiting], timeline.read_usable[waiting])
    return done
