"""The fast engine: the rules of semantics, section 5, in compiled code; the same picosecond as the reference.

In ``serial`` and ``layer`` every server is idle when a batch starts (rule 7), so no event queue is needed: flash reads
take lanes and pipe in look-up order, their DRAM writes follow in order of arrival, and the NPU, which has one read
outstanding, goes in between where its request came before the next write's (rule 2: at equal arrival the fill first).
"""

from __future__ import annotations

import numpy as np

from slicesim.compiled import jit
from slicesim.schedule.plan import Plan
from slicesim.schedule.timeline import Timeline
from slicesim.schedule.workload import NO_OP


class FastEngine:
    """Puts plans on one clock, one after another. ``overlap``: ``serial`` or ``layer``."""

    def __init__(self, overlap: str) -> None:
        self.serial = overlap == "serial"
        self.now = 0

    def run(self, plan: Plan) -> Timeline:
        """Run a plan's steps to their end; the clock goes on from the plan before. Raises OverflowError at 2^63 ps."""
        work, ops, reads = plan.workload, plan.ops, plan.reads
        timeline = Timeline.empty(plan)
        if self.now + _at_most(plan) >= 2**63:
            raise OverflowError
        most_reads = int(np.diff(work.batch_read).max(initial=0))
        self.now = _run(
            self.now, self.serial, work.step_batch, work.batch_op, work.batch_read, work.op_kind, work.read_op,
            work.read_kind, ops.stream_ps, ops.first_ps, ops.compute_ps, reads.latency_ps, reads.pipe_ps,
            reads.lane_ps, reads.write_ps, np.zeros(reads.lanes, dtype=np.int64),
            np.zeros(most_reads, dtype=np.int64), *vars(timeline).values(),
        )  # fmt: skip
        return timeline


def _at_most(plan: Plan) -> int:
    """A time that a plan cannot exceed: all one after another, each as long as the longest."""
    ops, reads = plan.ops, plan.reads
    op = int(ops.stream_ps.max()) + int(ops.first_ps.max()) + int(ops.compute_ps.max())
    read = reads.latency_ps + sum(int(column.max()) for column in (reads.pipe_ps, reads.lane_ps, reads.write_ps))
    return len(plan.workload.op_kind) * op + len(plan.workload.read_kind) * read


@jit
def _run(  # type: ignore[no-untyped-def]  # noqa: ANN202, PLR0913
    now, serial, step_batch, batch_op, batch_read, op_kind, read_op, read_kind, stream_ps, first_ps, compute_ps,
    latency_ps, pipe_ps, lane_ps, write_ps, lane_free, fills, step_start, step_end, op_ready, op_request, op_grant,
    op_end, read_lane, read_start, read_pipe, read_end, read_write, read_usable,
):  # fmt: skip  # noqa: ANN001
    """Fill in the timeline; lane_free [lanes] and fills [most reads of a batch] are scratch. Returns the end."""
    for step in range(len(step_batch) - 1):
        step_start[step] = now
        for batch in range(step_batch[step], step_batch[step + 1]):
            op, last_op = batch_op[batch], batch_op[batch + 1]
            dram_free = now
            if op < last_op:
                op_ready[op] = op_request[op] = op_grant[op] = now
                kind = op_kind[op]
                now = max(now + stream_ps[kind], now + first_ps[kind] + compute_ps[kind])
                op_end[op] = dram_free = now
                op += 1
            first, reads = batch_read[batch], batch_read[batch + 1] - batch_read[batch]
            ready = now
            if reads:
                _read(
                    now, first, reads, read_kind, latency_ps, pipe_ps, lane_ps, lane_free, fills, read_lane,
                    read_start, read_pipe, read_end,
                )  # fmt: skip
            served = 0
            wait_all = serial or op == last_op
            while served < reads and wait_all:
                dram_free = _fill(fills[served], dram_free, read_kind, write_ps, read_end, read_write, read_usable)
                served += 1
                now = max(now, dram_free)
            while op < last_op:
                request = now
                pending = 0 if wait_all else _reads_of(op, first, reads, read_op)
                while pending:
                    read = fills[served]
                    dram_free = _fill(read, dram_free, read_kind, write_ps, read_end, read_write, read_usable)
                    served += 1
                    if read_op[read] == op:
                        pending -= 1
                        request = max(request, dram_free)
                    elif _is_before(op, read_op[read]):
                        pending = pending
                while served < reads and read_end[fills[served]] <= request:
                    read = fills[served]
                    dram_free = _fill(read, dram_free, read_kind, write_ps, read_end, read_write, read_usable)
                    served += 1
                kind = op_kind[op]
                grant = max(request, dram_free)
                dram_free = grant + stream_ps[kind]
                now = max(dram_free, grant + first_ps[kind] + compute_ps[kind])
                op_ready[op], op_request[op], op_grant[op], op_end[op] = ready, request, grant, now
                ready = now
                op += 1
        step_end[step] = now
    return now
