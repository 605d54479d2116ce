"""Bars on tracks: what each resource did, and what the NPU waited for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slicesim.decide import DecodeDemand
from slicesim.report.timeline.part import IntArray, Part
from slicesim.schedule.products import (
    ATTENTION,
    DENSE,
    EXPERT_IN,
    EXPERT_OUT,
    HEAD,
    ROUTED_ATTENTION,
    ROUTED_EXPERT,
    SHARED,
)
from slicesim.schedule.workload import NO_OP, PREFETCH

TOKEN, NPU, FLASH_STALL, DRAM_STALL = "token", "NPU", "stall: flash", "stall: DRAM"
INTERCONNECT, DRAM, FLASH_PIPE = "interconnect", "DRAM", "flash pipe"

#: Tracks from top to bottom; flash lanes follow.
ORDER = (TOKEN, NPU, FLASH_STALL, DRAM_STALL, INTERCONNECT, DRAM, FLASH_PIPE)

# Beside the roles of operations.
_EXCHANGE, _BESIDE = -1, -2

#: Behind the name of an expert that another device works on meanwhile; here it takes 1 ps.
OTHER_DEVICE = " (another device)"

#: What an operation is called that is no single expert.
ROLE_NAMES = {
    ATTENTION: "attention",
    ROUTED_ATTENTION: "attention and router",
    DENSE: "dense block",
    SHARED: "shared experts",
    ROUTED_EXPERT: "experts",
    EXPERT_IN: "experts",
    EXPERT_OUT: "experts",
    HEAD: "LM head",
    _EXCHANGE: "exchange",
}

# What an operation waits for, as bits, and what that is called.
_MSB_MISS, _LSB_MISS, _AHEAD = 1, 2, 4
_LOOKUPS = (
    "hit", "MSB miss", "LSB miss", "MSB and LSB miss",
    "prefetched", "MSB miss, LSB prefetched", "LSB miss, MSB prefetched", "MSB and LSB miss",
)  # fmt: skip


@dataclass(frozen=True)
class Bars:
    """Bars of one track, none over another.

    name, start_ps, duration_ps (at least 1), step (number in its part), and in ``args`` more to say: one entry a bar.
    """

    track: str
    name: list[str]
    start_ps: IntArray
    duration_ps: IntArray
    step: IntArray
    args: Mapping[str, Sequence[int | str]]

    def where(self, mask: NDArray[np.bool_]) -> Bars:
        """Return some of them."""
        places = np.flatnonzero(mask).tolist()
        return Bars(
            self.track,
            [self.name[place] for place in places],
            self.start_ps[mask],
            self.duration_ps[mask],
            self.step[mask],
            {key: [values[place] for place in places] for key, values in self.args.items()},
        )


def events(parts: Sequence[Part]) -> pd.DataFrame:
    """Return all bars as a frame, track by track within each table.

    Columns: track, name, start_ps, duration_ps, step (as its bar on the track ``token`` is called), phase, then what
    some tracks know: request, token, layer, expert, slice, bytes, busy_ps, cache (hit or miss), why (of a read).
    """
    columns = ["track", "name", "start_ps", "duration_ps", "step", "phase"]
    known = ["request", "token", "layer", "expert", "slice", "bytes", "busy_ps", "cache", "why"]
    frames = [_frame(part, bars) for part in parts for bars in bars_of(part)]
    if not frames:
        return pd.DataFrame(columns=columns + known)
    return pd.concat(frames, ignore_index=True).reindex(columns=columns + known)


def _frame(part: Part, bars: Bars) -> pd.DataFrame:
    names = part.step_names()
    known = {key: pd.Series(values, dtype="Int64" if _whole(values) else "object") for key, values in bars.args.items()}
    return pd.DataFrame(
        {
            "track": bars.track,
            "name": bars.name,
            "start_ps": bars.start_ps,
            "duration_ps": bars.duration_ps,
            "step": [names[step] for step in bars.step.tolist()],
            "phase": part.phase,
            **known,
        }
    )


def _whole(values: Sequence[Any]) -> bool:
    return len(values) > 0 and isinstance(values[0], int)


def bars_of(part: Part) -> Iterator[Bars]:
    """Yield the bars of one part, those of a track together or in a few groups with other arguments."""
    for bars in (_tokens(part), *_operations(part), *_reads(part)):
        if len(bars.name):
            yield bars


def _tokens(part: Part) -> Bars:
    demand, steps = part.demand, part.steps
    start, end = part.timeline.step_start[:steps], part.timeline.step_end[:steps]
    if isinstance(demand, DecodeDemand):
        who = {"request": demand.request[:steps].tolist(), "token": demand.token[:steps].tolist()}
    else:
        who = {"request": [demand.request], "tokens": [demand.prompt_tokens]}
    return Bars(TOKEN, part.step_names()[:steps], start, end - start, np.arange(steps), who)


def _operations(part: Part) -> Iterator[Bars]:
    """Operations, their DRAM reads, and what the NPU waited for before each: the rest of its time it computed.

    The array waits for bytes tile by tile; the sum of that stands as one bar where the operation begins.
    """
    work, times, count = part.plan.workload, part.timeline, part.ops
    kind, step = work.op_kind[:count], work.step_of_op()[:count]
    layer, expert = work.layer_of_op()[:count], work.op_expert[:count]
    ready, request = times.op_ready(part.plan)[:count], times.op_request[:count]
    grant, end = times.op_grant[:count], times.op_end[:count]
    busy, stream = part.plan.ops.busy_ps[kind], part.plan.ops.stream_ps[kind]
    exchange, links = part.is_exchange(), work.kinds.columns.exchanged_bytes[kind]  # type: ignore[index]
    names = _operation_names(part)
    who = {"layer": layer.tolist(), "expert": expert.tolist(), "bytes": part.op_bytes().tolist()}
    lookup = [_LOOKUPS[code] for code in _waits(part).tolist()]
    full = Bars(NPU, names, grant, end - grant, step, {**who, "cache": lookup, "busy_ps": busy.tolist()})
    yield from _as_known(full, expert, ~exchange)
    yield Bars(FLASH_STALL, names, ready, request - ready, step, {}).where(request > ready)
    stalled = np.where(exchange, 0, end - request - busy)
    yield Bars(DRAM_STALL, names, request, stalled, step, {}).where(stalled > 0)
    yield Bars(INTERCONNECT, names, grant, end - grant, step, {"bytes": links.tolist()}).where(exchange)
    yield from _as_known(Bars(DRAM, [f"read {name}" for name in names], grant, stream, step, who), expert, ~exchange)


def _as_known(bars: Bars, expert: NDArray[np.int32], shown: NDArray[np.bool_]) -> Iterator[Bars]:
    """Yield the bars of single experts, then the others, which have no look-up and are named by what they do."""
    yield bars.where(shown & (expert >= 0))
    rest = {key: values for key, values in bars.args.items() if key in ("bytes", "busy_ps")}
    yield Bars(bars.track, bars.name, bars.start_ps, bars.duration_ps, bars.step, rest).where(shown & (expert < 0))


def _operation_names(part: Part) -> list[str]:
    work, count = part.plan.workload, part.ops
    role = work.kinds.columns.role[work.op_kind[:count]]  # type: ignore[index]
    role = np.where(part.is_exchange(), _EXCHANGE, np.where(part.is_beside(), _BESIDE, role))
    columns = (work.layer_of_op()[:count], work.op_expert[:count], role)
    return [_name(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


@cache
def _name(layer: int, expert: int, role: int) -> str:
    what = f"expert {expert}" + OTHER_DEVICE * (role == _BESIDE) if expert >= 0 else ROLE_NAMES[role]
    return f"L{layer} {what}" if layer >= 0 else what


def _waits(part: Part) -> IntArray:
    """Return the places in ``_LOOKUPS`` of the operations shown."""
    work, reads = part.plan.workload, part.reads
    codes = np.zeros(part.ops, dtype=np.int64)
    _, is_lsb = work.slice_of_read()
    read_op = work.read_op[:reads]
    waits = read_op != NO_OP
    np.bitwise_or.at(codes, read_op[waits], np.where(is_lsb[:reads], _LSB_MISS, _MSB_MISS)[waits])
    claims = work.claim_op[work.claim_op < part.ops]
    np.bitwise_or.at(codes, claims, _AHEAD)
    return codes


def _reads(part: Part) -> Iterator[Bars]:
    work, times, count = part.plan.workload, part.timeline, part.reads
    layer, is_lsb = (column[:count] for column in work.slice_of_read())
    why = np.where(work.read_priority == PREFETCH, "prefetch", "top-up")
    reasons = np.where(work.read_op != NO_OP, "miss", why)[:count].tolist()
    who: dict[str, Any] = {
        "layer": layer.tolist(),
        "expert": work.read_expert[:count].tolist(),
        "slice": np.where(is_lsb, "LSB", "MSB").tolist(),
        "bytes": part.read_bytes().tolist(),
    }
    names = [
        f"{'' if reason == 'miss' else reason + ' '}L{number} expert {expert} {name}"
        for reason, number, expert, name in zip(reasons, who["layer"], who["expert"], who["slice"], strict=True)
    ]
    step = work.step_of_read()[:count]
    lane, start, end = times.read_lane[:count], times.read_start[:count], times.read_end[:count]
    write = times.read_write[:count]
    pipe_ps = part.plan.reads.pipe_ps[work.read_kind[:count]]
    for number in np.unique(lane).tolist():
        yield Bars(f"flash lane {number}", names, start, end - start, step, {}).where(lane == number)
    yield Bars(FLASH_PIPE, names, times.read_pipe[:count], pipe_ps, step, {**who, "why": reasons})
    fills = [f"fill {name}" for name in names]
    yield Bars(DRAM, fills, write, times.read_usable[:count] - write, step, who)
