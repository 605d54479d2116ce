"""The fast engine: the rules of semantics, section 5, in compiled code; the same picosecond as the reference.

In ``serial`` and ``layer`` every server is idle when a batch starts (rule 7), so no event queue is needed: flash reads
take lanes and pipe in look-up order, their DRAM writes follow in order of arrival, and the NPU, which has one read
outstanding, goes in between where its request came before the next write's (rule 2: at equal arrival the fill first).
"""

from __future__ import annotations

import numpy as np

from slicesim.compiled import inlined, jit
from slicesim.schedule.plan import Plan
from slicesim.schedule.timeline import Timeline


class FastEngine:
    """Puts plans on one clock, one after another. ``overlap``: ``serial`` or ``layer``."""

    def __init__(self, overlap: str) -> None:
        self.serial = overlap == "serial"
        self.now = 0

    def run(self, plan: Plan) -> Timeline:
        """Run a plan's steps to their end; the clock goes on from the plan before. Raises OverflowError at 2^63 ps."""
        work, ops, reads = plan.workload, plan.ops, plan.reads
        timeline = Timeline.empty(plan)
        require_time_left(self.now, plan)
        most_reads, most_ops = (int(np.diff(column).max(initial=0)) for column in (work.batch_read, work.batch_op))
        self.now = _run(
            self.now, self.serial, work.step_batch, work.batch_op, work.batch_read, work.op_kind, work.read_op,
            work.read_kind, ops.stream_ps, ops.first_ps, ops.compute_ps, reads.latency_ps, reads.pipe_ps,
            reads.lane_ps, reads.write_ps, np.zeros(reads.lanes, dtype=np.int64),
            np.zeros(most_reads, dtype=np.int64), np.zeros(most_ops, dtype=np.int64), *vars(timeline).values(),
        )  # fmt: skip
        return timeline

    def finish(self) -> None:
        """Nothing is left under way."""


def require_time_left(now: int, plan: Plan) -> None:
    """Raise OverflowError where a plan could pass 2^63 ps: all one after another, each as long as the longest."""
    ops, reads = plan.ops, plan.reads
    op = int(ops.stream_ps.max()) + int(ops.first_ps.max()) + int(ops.compute_ps.max())
    read = reads.latency_ps + sum(int(column.max()) for column in (reads.pipe_ps, reads.lane_ps, reads.write_ps))
    if now + len(plan.workload.op_kind) * op + len(plan.workload.read_kind) * read >= 2**63:
        raise OverflowError


@jit
def _run(
    now, serial, step_batch, batch_op, batch_read, op_kind, read_op, read_kind, stream_ps, first_ps, compute_ps,
    latency_ps, pipe_ps, lane_ps, write_ps, lane_free, fills, last_fill, step_start, step_end, op_request, op_grant,
    op_end, read_lane, read_start, read_pipe, read_end, read_write, read_usable,
):  # fmt: skip
    """Fill in the timeline. Scratch: lane_free [lanes], fills [most reads of a batch], last_fill [most operations]."""
    for step in range(len(step_batch) - 1):
        step_start[step] = now
        for batch in range(step_batch[step], step_batch[step + 1]):
            op, stop = batch_op[batch], batch_op[batch + 1]
            if op < stop:
                op_request[op] = op_grant[op] = now
                kind = op_kind[op]
                now += max(stream_ps[kind], first_ps[kind] + compute_ps[kind])
                op_end[op] = now
                op += 1
            first, reads = batch_read[batch], batch_read[batch + 1] - batch_read[batch]
            base, served, dram_free = op, 0, now
            if reads > 0:
                _read(
                    now, first, reads, read_kind, latency_ps, pipe_ps, lane_ps, lane_free, fills, read_lane,
                    read_start, read_pipe, read_end,
                )  # fmt: skip
                if serial or op == stop:
                    dram_free = _fill(
                        fills, 0, reads, dram_free, read_kind, write_ps, read_end, read_write, read_usable
                    )
                    served, now = reads, dram_free
                else:
                    for waiting in range(stop - op):
                        last_fill[waiting] = 0
                    for place in range(reads):
                        last_fill[read_op[fills[place]] - op] = place + 1
            while op < stop:
                request = now
                if served < reads:
                    needed = last_fill[op - base]
                    if needed > served:
                        dram_free = _fill(
                            fills, served, needed, dram_free, read_kind, write_ps, read_end, read_write, read_usable
                        )
                        served, request = needed, max(now, dram_free)
                    while served < reads and read_end[fills[served]] <= request:
                        dram_free = _fill(
                            fills, served, served + 1, dram_free, read_kind, write_ps, read_end, read_write, read_usable
                        )
                        served += 1
                kind = op_kind[op]
                grant = max(request, dram_free)
                dram_free = grant + stream_ps[kind]
                now = max(dram_free, grant + first_ps[kind] + compute_ps[kind])
                op_request[op], op_grant[op], op_end[op] = request, grant, now
                op += 1
        step_end[step] = now
    return now


@inlined
def _read(
    now, first, reads, read_kind, latency_ps, pipe_ps, lane_ps, lane_free, fills, read_lane, read_start, read_pipe,
    read_end,
):  # fmt: skip
    """Take a batch's reads through lanes and pipe; ``fills``: their numbers in order of asking for the DRAM write."""
    for lane in range(len(lane_free)):
        lane_free[lane] = now
    pipe_free = now
    for index in range(reads):
        read = first + index
        kind = read_kind[read]
        lane = 0
        for other in range(1, len(lane_free)):
            if lane_free[other] < lane_free[lane]:
                lane = other
        start = lane_free[lane]
        pipe = max(start + latency_ps, pipe_free)
        pipe_free = pipe + pipe_ps[kind]
        end = max(pipe_free, start + latency_ps + lane_ps[kind])
        lane_free[lane] = end
        read_lane[read], read_start[read], read_pipe[read], read_end[read] = lane, start, pipe, end
        place = index
        while place > 0 and read_end[fills[place - 1]] > end:
            fills[place] = fills[place - 1]
            place -= 1
        fills[place] = read


@inlined
def _fill(fills, served, stop, dram_free, read_kind, write_ps, read_end, read_write, read_usable):
    """Write the fills from place ``served`` up to ``stop`` to DRAM; return when it is free again."""
    for place in range(served, stop):
        read = fills[place]
        read_write[read] = max(read_end[read], dram_free)
        dram_free = read_usable[read] = read_write[read] + write_ps[read_kind[read]]
    return dram_free
