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
from slicesim.schedule.servers import Lanes, Pipe, Server, Service, then
from slicesim.schedule.timeline import Timeline
from slicesim.schedule.workload import DEMAND, NO_OP

#: Classes of DRAM requests: at equal arrival the fill goes first.
FILL, NPU_READ = 0, 1

Process = Generator[simpy.Event, Any, None]


class ReferenceEngine:
    """Puts plans on one clock, one after another. ``overlap``: ``serial``, ``layer`` or ``prefetch``."""

    def __init__(self, overlap: str) -> None:
        self.serial = overlap == "serial"
        self.env = simpy.Environment(0)
        self.lanes: Lanes | None = None
        self.flash_pipe, self.dram = Pipe(self.env), Pipe(self.env)
        self.on_the_way: dict[int, _Read] = {}  # prefetches that are not usable yet, by number

    def run(self, plan: Plan) -> Timeline:
        """Run a plan's steps to their end; the clock goes on from the plan before.

        Prefetches that are under way at the end go on in the next plan, or in ``finish``.
        """
        self.lanes = self.lanes or Lanes(self.env, plan.reads.lanes)
        run = _Run(self, plan, self.lanes)
        self.env.run(until=self.env.process(run.steps()))
        timeline = run.timeline()
        for read in self.on_the_way.values():
            if read.times is run.times:
                read.times = vars(timeline)
        return timeline

    def finish(self) -> None:
        """Let prefetches that nobody waits for come to their end."""
        self.env.run()


class _Run:
    """One plan under way. Columns are Python lists: reading one number from an array is slow."""

    def __init__(self, engine: ReferenceEngine, plan: Plan, lanes: Lanes) -> None:
        self.engine = engine
        self.env, self.serial = engine.env, engine.serial
        self.work = plan.workload
        self.lanes, self.flash_pipe, self.dram = lanes, engine.flash_pipe, engine.dram
        ops, reads, work = plan.ops, plan.reads, plan.workload
        self.latency_ps = reads.latency_ps
        self.stream_ps, self.first_ps, self.compute_ps = (
            column[work.op_kind].tolist() for column in (ops.stream_ps, ops.first_ps, ops.compute_ps)
        )
        self.pipe_ps, self.lane_ps, self.write_ps = (
            column[work.read_kind].tolist() for column in (reads.pipe_ps, reads.lane_ps, reads.write_ps)
        )
        self.read_op, self.priority = work.read_op.tolist(), work.read_priority.tolist()
        self.claim_op, self.claim_read = work.claim_op.tolist(), work.claim_read.tolist()
        self.times: dict[str, Any] = {name: column.tolist() for name, column in vars(Timeline.empty(plan)).items()}

    def timeline(self) -> Timeline:
        """Return the times as columns."""
        return Timeline(**{name: np.array(column, dtype=np.int64) for name, column in self.times.items()})

    def steps(self) -> Process:
        """Run all steps: one ends when its last batch ends, and the next starts then (rule 7)."""
        work = self.work
        starts = (work.batch_op.tolist(), work.batch_read.tolist(), work.batch_claim.tolist())
        step_batch = work.step_batch.tolist()
        for step in range(work.steps):
            self.times["step_start"][step] = self.env.now
            for batch in range(step_batch[step], step_batch[step + 1]):
                yield from self.batch(*(range(column[batch], column[batch + 1]) for column in starts))
            self.times["step_end"][step] = self.env.now

    def batch(self, ops: range, reads: range, claims: range) -> Process:
        """Attention and router; then the reads go out, and the other operations follow (rules 5 and 6)."""
        if ops:
            yield from self.execute(ops[0])
        everything, fills_of = self.issue(reads)
        for claim in claims:
            self.claim(self.claim_read[claim], fills_of, self.claim_op[claim])
        if reads and (self.serial or not ops):
            yield everything.done
        for op in ops[1:]:
            if op in fills_of:
                yield fills_of[op].done
            yield from self.execute(op)

    def issue(self, reads: range) -> tuple[_Fills, dict[int, _Fills]]:
        """Send a batch's reads to the flash queue, in order; return what to wait for: all, or by operation."""
        everything = _Fills(self.env)
        fills_of: dict[int, _Fills] = {}
        for read in reads:
            op = self.read_op[read]
            if self.priority[read] != DEMAND:
                _Read(self, read)
            elif op == NO_OP:
                _Read(self, read, everything)
            else:
                if op not in fills_of:
                    fills_of[op] = _Fills(self.env)
                _Read(self, read, everything, fills_of[op])
        return everything, fills_of

    def claim(self, number: int, fills_of: dict[int, _Fills], op: int) -> None:
        """Let an operation wait for a prefetch that is still on its way, now with the priority of a demand."""
        read = self.engine.on_the_way.get(number)
        if read is not None:
            fills = fills_of.setdefault(op, _Fills(self.env))
            fills.left += 1
            read.hurry(fills)

    def execute(self, op: int) -> Process:
        """One operation: its bytes stream from DRAM, and the array works on each tile as it comes (rule 5)."""
        times = self.times
        times["op_request"][op] = self.env.now
        grant = yield self.dram.request(self.stream_ps[op], NPU_READ, op)
        end = max(self.env.now, grant + self.first_ps[op] + self.compute_ps[op])
        if end > self.env.now:
            yield self.env.timeout(end - self.env.now)
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

    __slots__ = ("lane", "number", "priority", "row", "run", "server", "service", "start", "times", "waiters")

    def __init__(self, run: _Run, row: int, *waiters: _Fills) -> None:
        self.run, self.row, self.times, self.waiters = run, row, run.times, waiters
        self.number, self.priority = run.work.first_read + row, run.priority[row]
        for fills in waiters:
            fills.left += 1
        if self.priority != DEMAND:
            run.engine.on_the_way[self.number] = self
        self.ask(run.lanes, run.latency_ps, self.latency_over)

    def ask(self, server: Server, duration: int, follow: Any) -> None:
        """Ask for the next service."""
        self.server = server
        self.service: Service = server.request(duration, FILL, self.number, self.priority)
        then(self.service, follow)

    def hurry(self, fills: _Fills) -> None:
        """Somebody waits for it now (rule 6)."""
        self.waiters = (*self.waiters, fills)
        self.priority = DEMAND
        self.server.raise_priority(self.service, FILL, self.number, DEMAND)

    def latency_over(self, event: simpy.Event) -> None:
        """Ask for the shared pipe."""
        self.lane, self.start = event.value  # type: ignore[misc]
        self.ask(self.run.flash_pipe, self.run.pipe_ps[self.row], self.pipe_over)

    def pipe_over(self, event: simpy.Event) -> None:
        """Keep the lane until it has done its part too."""
        run = self.run
        self.times["read_pipe"][self.row] = event.value
        lane_end = self.start + run.latency_ps + run.lane_ps[self.row]
        if lane_end > run.env.now:
            then(run.env.timeout(lane_end - run.env.now), self.lane_over)
        else:
            self.lane_over(event)

    def lane_over(self, _: simpy.Event) -> None:
        """Free the lane and ask for the DRAM write."""
        run, row = self.run, self.row
        run.lanes.give_back(self.lane)
        times = self.times
        times["read_lane"][row], times["read_start"][row], times["read_end"][row] = self.lane, self.start, run.env.now
        self.ask(run.dram, run.write_ps[row], self.write_over)

    def write_over(self, event: simpy.Event) -> None:
        """The bytes are usable."""
        times = self.times
        times["read_write"][self.row], times["read_usable"][self.row] = event.value, self.run.env.now
        self.run.engine.on_the_way.pop(self.number, None)
        for fills in self.waiters:
            fills.one_usable()
