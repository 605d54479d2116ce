"""The fast engine's third mode, ``prefetch``: an event loop in compiled code, since servers may be busy at any time.

The NPU goes through its operations one by one; between two of its steps the servers of flash and DRAM are taken from
one completion to the next. Requests wait in one queue for each priority, by (arrival, number); a read that is in demand
all of a sudden is entered in the queue of demands, and its old place is passed over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from slicesim.compiled import inlined, jit
from slicesim.schedule.fast import require_time_left
from slicesim.schedule.plan import Plan
from slicesim.schedule.timeline import Timeline
from slicesim.schedule.workload import DEMAND, NO_OP

NEVER = np.iinfo(np.int64).max
NOTHING = -1

#: Where a read is.
WAITS_FOR_LANE, LATENCY, WAITS_FOR_PIPE, ON_PIPE, ON_LANE, WAITS_FOR_DRAM, ON_DRAM, USABLE = range(8)

#: One flash read: kind; stage, priority, arrival (of its present request), waiting: the operation that waits for it.
READ = np.dtype(
    [
        ("kind", np.int64),
        ("stage", np.int64),
        ("priority", np.int64),
        ("arrival", np.int64),
        ("waiting", np.int64),
        ("lane", np.int64),
        ("start", np.int64),
        ("pipe", np.int64),
        ("end", np.int64),
        ("write", np.int64),
        ("usable", np.int64),
    ]
)

#: One lane: the read on it, and when its latency or its own part of the transfer is over.
LANE = np.dtype([("read", np.int64), ("until", np.int64)])

#: The rest: clock; what the pipe and the DRAM do, and until when; since when the NPU waits for the DRAM, and for how
#: long it wants it.
STATE = np.dtype(
    [
        ("now", np.int64),
        ("pipe_read", np.int64),
        ("pipe_until", np.int64),
        ("dram_read", np.int64),
        ("dram_until", np.int64),
        ("npu_since", np.int64),
        ("npu_ps", np.int64),
    ]
)

TIMES = ("lane", "start", "pipe", "end", "write", "usable")


#: Who is waited for.
FOR_LANE, FOR_DRAM = 0, 1


class Servers(NamedTuple):
    """Flash and DRAM.

    reads: READ records of reads under way and of the plan in hand; lanes: LANE; state: one STATE; queues: int64 [lane
    or DRAM, priority, reads], places in ``reads``; ends: int64 [lane or DRAM, priority, 2], where each queue begins
    and ends.
    """

    reads: Any
    lanes: Any
    state: Any
    queues: Any
    ends: Any


class Durations(NamedTuple):
    """By kind of read, in ps."""

    latency_ps: int
    pipe_ps: Any
    lane_ps: Any
    write_ps: Any


class EventEngine:
    """Puts plans on one clock, one after another; prefetches that are under way go on in the next plan."""

    def __init__(self) -> None:
        self.state = np.zeros(1, dtype=STATE)
        self.state["pipe_until"] = self.state["dram_until"] = self.state["npu_since"] = NEVER
        self.state["pipe_read"] = self.state["dram_read"] = NOTHING
        self.lanes = np.zeros(0, dtype=LANE)
        self.reads = np.zeros(0, dtype=READ)
        self.numbers = np.zeros(0, dtype=np.int64)  # of the reads under way, counted over all plans
        self.rows: list[tuple[Timeline, int]] = []  # where their times belong
        self.durations: Durations | None = None

    def run(self, plan: Plan) -> Timeline:
        """Run a plan's steps to their end. Raises OverflowError where that could be past 2^63 ps."""
        work, ops = plan.workload, plan.ops
        require_time_left(int(self.state["now"][0]), plan)
        self.durations = Durations(plan.reads.latency_ps, plan.reads.pipe_ps, plan.reads.lane_ps, plan.reads.write_ps)
        if not len(self.lanes):
            self.lanes = np.zeros(plan.reads.lanes, dtype=LANE)
            self.lanes["read"], self.lanes["until"] = NOTHING, NEVER
        under_way = len(self.reads)
        reads = np.empty(under_way + len(work.read_kind), dtype=READ)
        reads[:under_way] = self.reads
        own = reads[under_way:]
        timeline = replace(Timeline.empty(plan), **{f"read_{name}": own[name] for name in TIMES})
        servers = self._servers(reads, under_way)
        numbers = np.concatenate((self.numbers, work.first_read + np.arange(len(own))))
        place = np.searchsorted(numbers, work.claim_read)
        there = np.append(numbers, NOTHING)[place] == work.claim_read  # others have long been usable
        claimed = np.where(there, place, NOTHING)
        _run(
            servers, self.durations, under_way, work.step_batch, work.batch_op, work.batch_read, work.batch_claim,
            work.op_kind, work.read_kind, work.read_op, work.read_priority, work.claim_op, claimed, ops.stream_ps,
            ops.first_ps, ops.compute_ps, np.zeros(len(work.op_kind), dtype=np.int64), timeline.step_start,
            timeline.step_end, timeline.op_request, timeline.op_grant, timeline.op_end,
        )  # fmt: skip
        self._hand_on(reads, numbers, timeline)
        return timeline

    def finish(self) -> None:
        """Let prefetches that nobody waits for come to their end."""
        if self.durations is not None and len(self.reads):
            servers = self._servers(self.reads, len(self.reads))
            _drain(servers, self.durations)
            self._hand_on(servers.reads, self.numbers)

    def _servers(self, reads: Any, under_way: int) -> Servers:
        """Put the reads under way back into the queues."""
        queues, ends = np.zeros((2, 2, len(reads) + 1), dtype=np.int64), np.zeros((2, 2, 2), dtype=np.int64)
        servers = Servers(reads, self.lanes, self.state, queues, ends)
        _enter_all(servers, under_way)
        return servers

    def _hand_on(self, reads: Any, numbers: Any, own: Timeline | None = None) -> None:
        """Write down the times of reads of earlier plans, and keep what is still under way."""
        late = len(self.rows)
        for place in np.flatnonzero(reads["stage"][:late] == USABLE).tolist():
            timeline, row = self.rows[place]
            for name in TIMES:
                getattr(timeline, f"read_{name}")[row] = reads[name][place]
        left = np.flatnonzero(reads["stage"] != USABLE)
        new_place = np.full(len(reads) + 1, NOTHING)  # the last one stands for NOTHING
        new_place[left] = np.arange(len(left))
        for record, name in ((self.lanes, "read"), (self.state, "pipe_read"), (self.state, "dram_read")):
            record[name] = new_place[record[name]]
        self.rows = [self.rows[place] if place < late else (own, place - late) for place in left.tolist()]  # type: ignore[misc]
        self.reads, self.numbers = reads[left], numbers[left]
        self.reads["waiting"] = NO_OP


# What follows is compiled.


@jit
def _run(
    servers, durations, under_way, step_batch, batch_op, batch_read, batch_claim, op_kind, read_kind, read_op,
    read_priority, claim_op, claimed, stream_ps, first_ps, compute_ps, fills, step_start, step_end, op_request,
    op_grant, op_end,
):  # fmt: skip
    """Fill in the times of steps and operations. fills: scratch [operations], reads that each one waits for."""
    state, reads = servers.state[0], servers.reads
    for step in range(len(step_batch) - 1):
        step_start[step] = state.now
        for batch in range(step_batch[step], step_batch[step + 1]):
            op, stop = batch_op[batch], batch_op[batch + 1]
            if op < stop:
                kind = op_kind[op]
                op_request[op], op_grant[op], op_end[op] = _execute(
                    servers, durations, fills, stream_ps[kind], first_ps[kind] + compute_ps[kind]
                )
                op += 1
            everything = 0
            for own in range(batch_read[batch], batch_read[batch + 1]):
                place = under_way + own
                reads[place].kind, reads[place].priority = read_kind[own], read_priority[own]
                reads[place].waiting = read_op[own]
                if reads[place].waiting != NO_OP:
                    fills[reads[place].waiting] += 1
                elif reads[place].priority == DEMAND:
                    everything += 1
                _ask_for_lane(servers, place)
            for claim in range(batch_claim[batch], batch_claim[batch + 1]):
                place = claimed[claim]
                if place != NOTHING and reads[place].stage != USABLE:
                    reads[place].waiting = claim_op[claim]
                    fills[claim_op[claim]] += 1
                    _hurry(servers, place)
            if op == stop and everything > 0:  # a top-up
                while _any_left(reads, under_way + batch_read[batch], under_way + batch_read[batch + 1]):
                    _go_on(servers, durations, fills, NEVER)
            while op < stop:
                while fills[op] > 0:
                    _go_on(servers, durations, fills, NEVER)
                kind = op_kind[op]
                op_request[op], op_grant[op], op_end[op] = _execute(
                    servers, durations, fills, stream_ps[kind], first_ps[kind] + compute_ps[kind]
                )
                op += 1
        step_end[step] = state.now


@jit
def _drain(servers, durations):
    nobody = servers.reads[:0].kind
    for read in servers.reads:  # there may be very many: each is looked at once
        while read.stage != USABLE:
            _go_on(servers, durations, nobody, NEVER)


@jit
def _any_left(reads, first, stop):
    for place in range(first, stop):
        if reads[place].stage != USABLE:
            return True
    return False


@inlined
def _execute(servers, durations, fills, stream_ps, tile_ps):
    """One operation from now on; return (request, grant, end), with the clock at its end, before that instant's grants.

    tile_ps: first tile and computation.
    """
    state = servers.state[0]
    request = state.now
    state.npu_since, state.npu_ps = request, stream_ps
    while not _grant(servers, durations):
        _complete(servers, durations, fills, NEVER)
    grant = state.now
    end = grant + max(stream_ps, tile_ps)
    _complete(servers, durations, fills, end)
    while state.now < end:
        _go_on(servers, durations, fills, end)
    return request, grant, end


@inlined
def _go_on(servers, durations, fills, limit):
    """Make the grants of this instant, and go on to the next completions."""
    _grant(servers, durations)
    _complete(servers, durations, fills, limit)


@inlined
def _complete(servers, durations, fills, limit):
    """Go to the next completions, not beyond ``limit``, and carry them out."""
    state, lanes, reads = servers.state[0], servers.lanes, servers.reads
    now = min(state.pipe_until, state.dram_until)
    for lane in lanes:
        now = min(now, lane.until)
    if now > limit:
        state.now = limit
        return
    state.now = now
    if state.dram_until == now:
        state.dram_until = NEVER
        place = state.dram_read
        if place != NOTHING:
            state.dram_read = NOTHING
            reads[place].stage, reads[place].usable = USABLE, now
            if reads[place].waiting != NO_OP:
                fills[reads[place].waiting] -= 1
    if state.pipe_until == now:
        state.pipe_until = NEVER
        read = reads[state.pipe_read]
        state.pipe_read = NOTHING
        read.stage = ON_LANE
        lanes[read.lane].until = max(now, read.start + durations.latency_ps + durations.lane_ps[read.kind])
    for lane in lanes:
        if lane.until == now:
            lane.until = NEVER
            read = reads[lane.read]
            read.arrival = now
            if read.stage == LATENCY:
                read.stage = WAITS_FOR_PIPE
            else:
                read.stage, read.end = WAITS_FOR_DRAM, now
                _enter(servers, FOR_DRAM, lane.read)
                lane.read = NOTHING


@inlined
def _grant(servers, durations):
    """Let every free server take the first of those that wait; True where the NPU got the DRAM."""
    state, lanes, reads = servers.state[0], servers.lanes, servers.reads
    for number in range(len(lanes)):
        if lanes[number].read == NOTHING:
            place = _first(servers, FOR_LANE, WAITS_FOR_LANE)
            if place == NOTHING:
                break
            read = reads[place]
            read.stage, read.lane, read.start = LATENCY, number, state.now
            lanes[number].read, lanes[number].until = place, state.now + durations.latency_ps
            if len(lanes) == 1:  # nobody else wants the pipe: all of the read is known now
                read.stage, read.pipe = ON_LANE, state.now + durations.latency_ps
                lanes[0].until = read.pipe + max(durations.pipe_ps[read.kind], durations.lane_ps[read.kind])
    if state.pipe_until == NEVER:
        best = NOTHING
        for lane in lanes:
            if lane.read != NOTHING and reads[lane.read].stage == WAITS_FOR_PIPE:
                if best == NOTHING or _goes_first(reads, lane.read, best):
                    best = lane.read
        if best != NOTHING:
            read = reads[best]
            read.stage, read.pipe = ON_PIPE, state.now
            state.pipe_read, state.pipe_until = best, state.now + durations.pipe_ps[read.kind]
    if state.dram_until != NEVER:
        return False
    place = _first(servers, FOR_DRAM, WAITS_FOR_DRAM)
    if state.npu_since != NEVER:
        npu_first = place == NOTHING or reads[place].priority > DEMAND or reads[place].arrival > state.npu_since
        if npu_first:
            state.dram_until, state.npu_since = state.now + state.npu_ps, NEVER
            return True
    if place != NOTHING:
        read = reads[place]
        read.stage, read.write = ON_DRAM, state.now
        state.dram_read, state.dram_until = place, state.now + durations.write_ps[read.kind]
    return False


@inlined
def _goes_first(reads, a, b):
    first, second = reads[a], reads[b]
    if first.priority != second.priority:
        return first.priority < second.priority
    if first.arrival != second.arrival:
        return first.arrival < second.arrival
    return a < b


@inlined
def _ask_for_lane(servers, place):
    read = servers.reads[place]
    read.stage, read.arrival = WAITS_FOR_LANE, servers.state[0].now
    _enter(servers, FOR_LANE, place)


@inlined
def _hurry(servers, place):
    """Raise the priority of a read, wherever it is; it keeps its arrival time."""
    read = servers.reads[place]
    read.priority = DEMAND
    if read.stage == WAITS_FOR_LANE:
        _enter(servers, FOR_LANE, place)
    elif read.stage == WAITS_FOR_DRAM:
        _enter(servers, FOR_DRAM, place)


@jit
def _enter_all(servers, under_way):
    """Put reads that wait, and whose queue is gone, into a new one."""
    for place in range(under_way):
        if servers.reads[place].stage == WAITS_FOR_LANE:
            _enter(servers, FOR_LANE, place)
        elif servers.reads[place].stage == WAITS_FOR_DRAM:
            _enter(servers, FOR_DRAM, place)


@inlined
def _enter(servers, server, place):
    """Put a read into the queue of its priority, by arrival and number. Most come last anyway."""
    reads, queues, ends = servers.reads, servers.queues, servers.ends
    priority = reads[place].priority
    spot, start = ends[server, priority, 1], ends[server, priority, 0]
    while spot > start and _goes_first(reads, place, queues[server, priority, spot - 1]):
        queues[server, priority, spot] = queues[server, priority, spot - 1]
        spot -= 1
    queues[server, priority, spot] = place
    ends[server, priority, 1] += 1


@inlined
def _first(servers, server, stage):
    """Return the read whose turn it is, or NOTHING. Reads that have gone on with a higher priority are passed over."""
    reads, queues, ends = servers.reads, servers.queues, servers.ends
    for priority in range(2):
        spot, stop = ends[server, priority, 0], ends[server, priority, 1]
        while spot < stop:
            place = queues[server, priority, spot]
            if reads[place].stage == stage and reads[place].priority == priority:
                ends[server, priority, 0] = spot
                return place
            spot += 1
        ends[server, priority, 0] = spot
    return NOTHING
