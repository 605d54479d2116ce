"""The reference engine: the rules of semantics, section 5, in SimPy. Made to be read.

The NPU is a process that walks through steps, batches and operations. A flash read is a chain of services, each
asking for the next one when it ends; a process for each of them would take twice the time.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from slicesim.schedule.plan import Plan
from slicesim.schedule.servers import Lanes, Pipe, then
from slicesim.schedule.timeline import Timeline

#: Classes of DRAM requests: at equal arrival the fill goes first.
FILL, NPU_READ = 0, 1

Process = Generator[simpy.Event, Any, None]


class ReferenceEngine:
    """Puts plans on one clock, one after another. ``overlap``: ``serial`` or ``layer``."""

    def __init__(self, overlap: str) -> None:
        self.serial = overlap == "serial"
        self.env = simpy.Environment(0)

    def run(self, plan: Plan) -> Timeline:
        """Run a plan's steps to their end; the clock goes on from the plan before."""
        run = _Run(self.env, plan, self.serial)
        self.env.run(until=self.env.process(run.steps()))
        return run.timeline()


class _Run:
    """One plan under way. Columns are Python lists: reading one number from an array is slow."""

    def __init__(self, env: simpy.Environment, plan: Plan, serial: bool) -> None:
        self.env = env
        self.plan = plan
        self.serial = serial
        self.lanes = Lanes(env, plan.lanes)
        self.flash_pipe = Pipe(env)
        self.dram = Pipe(env)
        self.latency_ps = plan.read_latency_ps
        self.stream_ps = plan.op_stream_ps.tolist()
        self.first_ps = plan.op_first_ps.tolist()
        self.compute_ps = plan.op_compute_ps.tolist()
        self.pipe_ps = plan.read_pipe_ps.tolist()
        self.lane_ps = plan.read_lane_ps.tolist()
        self.write_ps = plan.read_write_ps.tolist()
        self.read_op = plan.workload.read_op.tolist()
        self.times = {name: column.tolist() for name, column in vars(Timeline.empty(plan)).items()}

    def timeline(self) -> Timeline:
        """Return the times as columns."""
        return Timeline(**{name: np.array(column, dtype=np.int64) for name, column in self.times.items()})

    def steps(self) -> Process:
        """Run all steps: one ends when its last batch ends, and the next starts then (rule 7)."""
        work = self.plan.workload
        batch_op, batch_read = work.batch_op.tolist(), work.batch_read.tolist()
        step_batch = work.step_batch.tolist()
        for step in range(work.steps):
            self.times["step_start"][step] = self.env.now
            for batch in range(step_batch[step], step_batch[step + 1]):
                ops = range(batch_op[batch], batch_op[batch + 1])
                reads = range(batch_read[batch], batch_read[batch + 1])
                yield from self.batch(ops, reads)
            self.times["step_end"][step] = self.env.now

    def batch(self, ops: range, reads: range) -> Process:
        """Attention and router; then the reads go out, and the other operations follow (rules 5 and 6)."""
        if ops:
            yield from self.execute(ops[0], int(self.env.now))
        everything, fills_of = self.issue(reads)
        ready = int(self.env.now)
        if reads and (self.serial or not ops):
            yield everything.done
        for op in ops[1:]:
            if op in fills_of:
                yield fills_of[op].done
            yield from self.execute(op, ready)
            ready = int(self.env.now)

    def issue(self, reads: range) -> tuple[_Fills, dict[int, _Fills]]:
        """Send a batch's reads to the flash queue, in look-up order; return what to wait for: all, or by operation."""
        everything = _Fills(self.env)
        fills_of: dict[int, _Fills] = {}
        for read in reads:
            op = self.read_op[read]
            if op not in fills_of:
                fills_of[op] = _Fills(self.env)
            _Read(self, read, everything, fills_of[op])
        return everything, fills_of

    def execute(self, op: int, ready: int) -> Process:
        """One operation: its bytes stream from DRAM, and the array works on each tile as it comes (rule 5)."""
        request = int(self.env.now)
        grant = yield self.dram.request(self.stream_ps[op], NPU_READ, op)
        end = max(self.env.now, grant + self.first_ps[op] + self.compute_ps[op])
        if end > self.env.now:
            yield self.env.timeout(end - self.env.now)
        times = self.times
        times["op_ready"][op], times["op_request"][op] = ready, request
        times["op_grant"][op], times["op_end"][op] = grant, end


class _Fills:
    """Reads that somebody waits for."""

    __slots__ = ("done", "left")

    def __init__(self, env: simpy.Environment) -> None:
        self.left = 0
        self.done = simpy.Event(env)

    def one_usable(self) -> None:
        """Count one off; the last one wakes the waiter."""
        self.left -= 1
        if not self.left:
            self.done.succeed()


class _Read:
    """One flash read: lane and latency, shared pipe, lane freed; then its DRAM write (rules 3 and 4)."""

    __slots__ = ("lane", "number", "run", "start", "waiters")

    def __init__(self, run: _Run, number: int, *waiters: _Fills) -> None:
        self.run, self.number, self.waiters = run, number, waiters
        for fills in waiters:
            fills.left += 1
        then(run.lanes.request(run.latency_ps, 0, number), self.latency_over)

    def latency_over(self, event: simpy.Event) -> None:
        """Ask for the shared pipe."""
        run, number = self.run, self.number
        self.lane, self.start = event.value  # type: ignore[misc]
        then(run.flash_pipe.request(run.pipe_ps[number], 0, number), self.pipe_over)

    def pipe_over(self, event: simpy.Event) -> None:
        """Keep the lane until it has done its part too."""
        run = self.run
        run.times["read_pipe"][self.number] = event.value
        lane_end = self.start + run.latency_ps + run.lane_ps[self.number]
        if lane_end > run.env.now:
            then(run.env.timeout(lane_end - run.env.now), self.lane_over)
        else:
            self.lane_over(event)

    def lane_over(self, _: simpy.Event) -> None:
        """Free the lane and ask for the DRAM write."""
        run, number = self.run, self.number
        run.lanes.give_back(self.lane)
        times = run.times
        times["read_lane"][number], times["read_start"][number] = self.lane, self.start
        times["read_end"][number] = run.env.now
        then(run.dram.request(run.write_ps[number], FILL, number), self.write_over)

    def write_over(self, event: simpy.Event) -> None:
        """The bytes are usable."""
        times = self.run.times
        times["read_write"][self.number], times["read_usable"][self.number] = event.value, self.run.env.now
        for fills in self.waiters:
            fills.one_usable()
