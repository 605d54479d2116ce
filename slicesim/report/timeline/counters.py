"""Counters as step functions: bandwidth in use, bytes in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.decide import DecodeDemand
from slicesim.hardware.units import PS_PER_S
from slicesim.report.timeline.part import IntArray, Part

#: Bandwidths that differ by less are one: durations are whole picoseconds, so equal rates are not quite equal.
DIGITS = 4


class Counter(NamedTuple):
    """A value from each time (ps, rising) to the next one."""

    name: str
    unit: str
    time_ps: IntArray
    value: NDArray[np.float64]


def counters(parts: Sequence[Part]) -> Iterator[Counter]:
    """Yield the counters of all parts that have anything to count."""
    found = (
        _bandwidth("flash bandwidth", [_pipe(part) for part in parts]),
        _bandwidth("DRAM bandwidth", [_dram(part) for part in parts]),
        _resident(parts),
    )
    yield from (counter for counter in found if len(counter.time_ps))


def _pipe(part: Part) -> IntArray:
    """Return start, duration and bytes of the flash pipe's transfers."""
    kind = part.plan.workload.read_kind[: part.reads]
    return np.stack((part.timeline.read_pipe[: part.reads], part.plan.reads.pipe_ps[kind], part.read_bytes()))


def _dram(part: Part) -> IntArray:
    """Return start, duration and bytes of the DRAM pipe's transfers: reads of operations, then fills."""
    work, times, own = part.plan.workload, part.timeline, ~(part.is_exchange() | part.is_beside())
    stream = part.plan.ops.stream_ps[work.op_kind[: part.ops]]
    reads = np.stack((times.op_grant[: part.ops], stream, part.op_bytes()))[:, own]
    write = times.read_write[: part.reads]
    fills = np.stack((write, times.read_usable[: part.reads] - write, part.read_bytes()))
    return np.concatenate((reads, fills), axis=1)


def _bandwidth(name: str, transfers: list[IntArray]) -> Counter:
    """Return bytes per time, 0 between transfers, none of which is over another."""
    start, duration, size = np.concatenate([np.zeros((3, 0), dtype=np.int64), *transfers], axis=1)
    order = np.argsort(start, kind="stable")
    start, rate = start[order], _rounded(size[order] / duration[order] * (PS_PER_S / 1e9))
    end = start + duration[order]
    idle = np.append(end[:-1] < start[1:], True)[: len(end)]
    time = np.concatenate((start, end[idle]))
    value = np.concatenate((rate, np.zeros(int(idle.sum()))))
    order = np.argsort(time, kind="stable")
    return _changes(Counter(name, "GB/s", time[order], value[order]))


def _rounded(rate: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([float(f"{value:.{DIGITS}g}") for value in rate.tolist()])


def _resident(parts: Sequence[Part]) -> Counter:
    """Return the bytes in the cache from the end of each MoE layer, or prompt, on."""
    points = [_resident_of(part) for part in parts]
    time, value = np.concatenate([np.zeros((2, 0), dtype=np.int64), *points], axis=1)
    return _changes(Counter("cache", "resident bytes", time, value.astype(np.float64)))


def _resident_of(part: Part) -> IntArray:
    demand, work, times, steps = part.demand, part.plan.workload, part.timeline, part.steps
    if not isinstance(demand, DecodeDemand):
        return np.array([[times.step_end[0]], [demand.resident_bytes]])
    batches = int(work.step_batch[steps])
    routed = np.isin(work.batch_layer[:batches], work.moe_layers)
    ends = times.op_end[work.batch_op[1 : batches + 1][routed] - 1]
    resident = demand.resident_bytes[:steps].reshape(-1)
    return np.stack((ends, resident)) if len(ends) == len(resident) else np.zeros((2, 0), dtype=np.int64)


def _changes(counter: Counter) -> Counter:
    """Leave out points that change nothing."""
    kept = np.append(True, np.diff(counter.value) != 0)[: len(counter.value)]
    return counter._replace(time_ps=counter.time_ps[kept], value=counter.value[kept])
