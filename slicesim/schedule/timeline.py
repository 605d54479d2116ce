"""When everything happened: what an engine returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicesim.compiled import jit
from slicesim.schedule.plan import Plan

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Timeline:
    """Times in ps (int64), one row per operation, read and step of the plan.

    op_request: the operation's DRAM read is asked for (the operation before it has ended, its fills are done);
    op_grant: the read begins; op_end: the computation ends. read_lane: lane number; read_start: lane taken;
    read_pipe: shared pipe taken; read_end: lane freed; read_write: DRAM write begins; read_usable: it ends.
    A prefetch that is late may end after its plan: the engine fills its row in while it runs the plans that follow.
    """

    step_start: IntArray
    step_end: IntArray
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
        work = plan.workload
        counts = {"step": work.steps, "op": len(work.op_kind), "read": len(work.read_kind)}
        return cls(**{name: np.empty(counts[name.split("_")[0]], dtype=np.int64) for name in cls.__dataclass_fields__})

    def op_ready(self, plan: Plan) -> IntArray:
        """Return when the operation before each one had ended, or its step began."""
        ready = np.concatenate((self.step_start[:1], self.op_end))[: len(self.op_end)]
        return np.maximum(ready, self.step_start[plan.workload.step_of_op()])


@dataclass(frozen=True)
class StepTimes:
    """Where each step's time went, in ps (int64 [steps]).

    npu + dram_stall + flash_stall + exchange = latency. npu: the array computes; dram_stall: it waits for the DRAM pipe
    or for bytes on it; flash_stall: it waits for fills; exchange: it waits for other devices. *_busy: service that the
    step asked of a resource.
    """

    latency: IntArray
    npu: IntArray
    dram_stall: IntArray
    flash_stall: IntArray
    flash_busy: IntArray
    dram_busy: IntArray
    exchange: IntArray

    @classmethod
    def of(cls, plan: Plan, timeline: Timeline) -> StepTimes:
        """Add up a timeline by step."""
        work, ops, reads = plan.workload, plan.ops, plan.reads
        npu, inside, stream = np.zeros((3, work.steps), dtype=np.int64)
        _sum_operations(
            work.step_op(), work.op_kind, timeline.op_request, timeline.op_end, ops.busy_ps, ops.stream_ps,
            npu, inside, stream,
        )  # fmt: skip
        alike = np.zeros(len(reads.pipe_ps), dtype=np.int64)
        (pipe, write), _ = sum_by_step(work.step_read(), work.read_kind, (reads.pipe_ps, reads.write_ps), alike)
        latency = timeline.step_end - timeline.step_start
        exchange = np.zeros_like(latency)
        if work.visits is not None:
            (exchange,), _ = sum_by_step(
                work.step_op(), work.op_kind, [ops.exchange_ps], np.zeros_like(ops.exchange_ps)
            )
        return cls(
            latency=latency,
            npu=npu,
            dram_stall=inside - npu - exchange,
            flash_stall=latency - inside,
            flash_busy=pipe,
            dram_busy=stream + write,
            exchange=exchange,
        )


def sum_by_step(starts: IntArray, kind: NDArray[np.int32], columns: Sequence[IntArray], group: IntArray) -> IntArray:
    """Sum columns [kinds] over the rows of each step, groups of kinds apart: [groups, columns, steps].

    Rows of step n are starts[n] to starts[n + 1]; group: 0 or 1, of each kind.
    """
    total = np.zeros((2, len(columns), len(starts) - 1), dtype=np.int64)
    apart = np.stack((group == 0, group == 1), axis=1)
    for place, column in enumerate(columns):
        _sum_by_step(starts, kind, column[:, None] * apart, total[:, place])
    return total


@jit
def _sum_by_step(starts, kind, amounts, total):
    """amounts: [kinds, groups]; total: [groups, steps]."""
    for step in range(total.shape[1]):
        first = second = 0
        for row in range(starts[step], starts[step + 1]):
            first += amounts[kind[row], 0]
            second += amounts[kind[row], 1]
        total[0, step], total[1, step] = first, second


@jit
def _sum_operations(starts, kind, request, end, busy_ps, stream_ps, npu, inside, stream):
    for step in range(len(npu)):
        computing = taken = streaming = 0
        for op in range(starts[step], starts[step + 1]):
            computing += busy_ps[kind[op]]
            taken += end[op] - request[op]
            streaming += stream_ps[kind[op]]
        npu[step], inside[step], stream[step] = computing, taken, streaming
