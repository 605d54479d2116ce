"""The timeline as Chrome trace events, which Perfetto opens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from slicesim.decide import DecodeDemand, Demand
from slicesim.report.label import flags, kind, label_of
from slicesim.schedule import Plan, Timeline
from slicesim.schedule.workload import NO_OP, PREFETCH

Part = tuple[Demand, Plan, Timeline, int]
PROCESS = 1
PS_PER_US = 1e6


class Event(NamedTuple):
    """One bar: its track, what it is, and when."""

    track: str
    name: str
    start_ps: int
    duration_ps: int
    step: str


def events(parts: Sequence[Part]) -> pd.DataFrame:
    """Return all bars as a frame, track by track within each table."""
    return pd.DataFrame(_events(parts), columns=Event._fields)


def write_timeline(parts: Sequence[Part], trace: Mapping[str, Any], path: Path) -> None:
    """Write all bars; times are microseconds, as the format asks. ``trace`` is the summary's part of that name."""
    bars = list(_events(parts))
    tracks = {track: number for number, track in enumerate(sorted({bar.track for bar in bars}, key=_track_order), 1)}
    name = f"slicesim ({kind(trace)})" if label_of(trace) else "slicesim"
    head: list[dict[str, Any]] = [_about("process_name", 0, name=name)]
    for track, number in tracks.items():
        head += [_about("thread_name", number, name=track), _about("thread_sort_index", number, sort_index=number)]
    with path.open("w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ns","otherData":')
        file.write(json.dumps({"trace": trace["path"], **flags(trace)}))
        file.write(',"traceEvents":[\n')
        file.write(",\n".join(json.dumps(entry) for entry in head))
        for bar in bars:
            file.write(
                f',\n{{"ph":"X","pid":{PROCESS},"tid":{tracks[bar.track]},"name":{json.dumps(bar.name)},'
                f'"ts":{bar.start_ps / PS_PER_US:.6f},"dur":{bar.duration_ps / PS_PER_US:.6f}}}'
            )
        file.write("\n]}\n")


def _about(what: str, thread: int, **arguments: str | int) -> dict[str, Any]:
    return {"ph": "M", "pid": PROCESS, "tid": thread, "name": what, "args": arguments}


def _track_order(track: str) -> tuple[int, str]:
    order = ("token", "NPU", "NPU waits", "interconnect", "DRAM", "flash pipe")
    return (order.index(track), track) if track in order else (len(order), track)


def _events(parts: Sequence[Part]) -> Iterator[Event]:
    for demand, plan, timeline, steps in parts:
        names = _step_names(demand)
        for step in range(steps):
            span = int(timeline.step_end[step] - timeline.step_start[step])
            yield Event("token", names[step], int(timeline.step_start[step]), span, names[step])
        yield from _operations(plan, timeline, names, steps)
        yield from _reads(plan, timeline, names, steps)


def _step_names(demand: Demand) -> list[str]:
    if isinstance(demand, DecodeDemand):
        return [f"request {r} token {t}" for r, t in zip(demand.request, demand.token, strict=True)]
    return [f"request {demand.request} prefill ({demand.prompt_tokens} tokens)"]


def _operations(plan: Plan, timeline: Timeline, names: list[str], steps: int) -> Iterator[Event]:
    work = plan.workload
    step_of_op = work.step_of_op()
    columns = (
        step_of_op, work.layer_of_op(), work.op_expert, timeline.op_ready(plan), timeline.op_request,
        timeline.op_grant, timeline.op_end, plan.ops.stream_ps[work.op_kind], plan.ops.exchange_ps[work.op_kind],
    )  # fmt: skip
    for step, layer, expert, ready, request, grant, end, stream, link in zip(
        *(c.tolist() for c in columns), strict=True
    ):
        if step >= steps:
            return
        name = f"L{layer} expert {expert}" if expert >= 0 else f"L{layer}" if layer >= 0 else "LM head"
        if link:
            yield Event("interconnect", f"L{layer} exchange", grant, link, names[step])
            continue
        if request > ready:
            yield Event("NPU waits", f"{name}: flash", ready, request - ready, names[step])
        if grant > request:
            yield Event("NPU waits", f"{name}: DRAM", request, grant - request, names[step])
        yield Event("NPU", name, grant, end - grant, names[step])
        yield Event("DRAM", f"read {name}", grant, stream, names[step])


def _reads(plan: Plan, timeline: Timeline, names: list[str], steps: int) -> Iterator[Event]:
    work = plan.workload
    layer, is_lsb = work.slice_of_read()
    waits = work.read_op != NO_OP
    why = np.where(waits, "", np.where(work.read_priority == PREFETCH, "prefetch ", "top-up "))
    columns = (
        work.step_of_read(), layer, work.read_expert, is_lsb, why, timeline.read_lane,
        timeline.read_start, timeline.read_pipe, timeline.read_end, timeline.read_write, timeline.read_usable,
        plan.reads.pipe_ps[work.read_kind],
    )  # fmt: skip
    for step, lay, exp, lsb, label, lane, start, pipe, end, write, usable, pipe_ps in zip(
        *(c.tolist() for c in columns), strict=True
    ):
        if step >= steps:
            return
        name = f"{label}L{lay} expert {exp} {'LSB' if lsb else 'MSB'}"
        yield Event(f"flash lane {lane}", name, start, end - start, names[step])
        yield Event("flash pipe", name, pipe, pipe_ps, names[step])
        yield Event("DRAM", f"fill {name}", write, usable - write, names[step])
