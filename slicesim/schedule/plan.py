"""From operations to durations: the table of picoseconds that every engine is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from slicesim.decide.demand import SliceSizes
from slicesim.hardware import Hardware
from slicesim.hardware.client import Work
from slicesim.hardware.interconnect import InterconnectTier
from slicesim.models import ModelGeometry
from slicesim.schedule.heat import Heat
from slicesim.schedule.products import ROUTED_ATTENTION, products
from slicesim.schedule.workload import KindTable, OpKind, OpKinds, Workload

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class OpTimes:
    """What each kind of operation costs on one device, int64 [kinds]; durations at least 1 ps.

    stream_ps: on the DRAM pipe; first_ps: until the first tile is in SRAM (the last one where two do not fit);
    compute_ps: from then to the end if nothing has to be waited for; busy_ps: of that what the client computes;
    eighths: work in eighths of an INT8 MAC; activations: DRAM rows opened; exchange_ps: of compute_ps what an exchange
    between devices takes.
    """

    stream_ps: IntArray
    first_ps: IntArray
    compute_ps: IntArray
    busy_ps: IntArray
    eighths: IntArray
    activations: IntArray
    exchange_ps: IntArray


@dataclass(frozen=True)
class ReadTimes:
    """What each kind of flash read costs, int64 [kinds at each level of heat], and lanes and latency.

    pipe_ps: on the shared pipe; lane_ps: on its lane, latency not included; write_ps: the fill on the DRAM pipe.
    """

    lanes: int
    latency_ps: int
    pipe_ps: IntArray
    lane_ps: IntArray
    write_ps: IntArray
    activations: IntArray


@dataclass(frozen=True)
class Plan:
    """A workload with the time of every part on one device."""

    workload: Workload
    ops: OpTimes
    reads: ReadTimes


class Planner:
    """Works out every duration once, in Python integers, and remembers those of kinds that come again."""

    def __init__(self, hardware: Hardware, sizes: SliceSizes, model: ModelGeometry) -> None:
        self.hardware, self.sizes, self.model = hardware, sizes, model
        self.heat = Heat(hardware.flash.heat_starts_ps)
        self._ops: WeakKeyDictionary[OpKinds, OpTimes] = WeakKeyDictionary()
        self._reads: ReadTimes | None = None

    def __call__(self, workload: Workload) -> Plan:
        """Put a workload's times beside it; workloads come in the order in which they run, since flash warms up."""
        if self._reads is None:
            self._reads = self._read_times(workload.read_sizes.reshape(-1))
        warmed = self.heat(workload, self._reads.pipe_ps)
        return Plan(warmed, self._times_of(workload.kinds), self._reads)

    def _times_of(self, kinds: KindTable) -> OpTimes:
        """Work out the times of kinds that are new since this table was last seen."""
        times = self._ops.get(kinds.family)
        known = 0 if times is None else len(times.stream_ps)
        if times is None or known < len(kinds):
            new = self._op_times(OpKind(*(column[known:] for column in kinds.columns)))  # type: ignore[index]
            pairs = zip(vars(times or new).values(), vars(new).values(), strict=True)
            times = new if not known else OpTimes(*(np.concatenate(pair) for pair in pairs))
            self._ops[kinds.family] = times
        return times

    def _op_times(self, kinds: Any) -> OpTimes:
        dram, sram, npu = self.hardware.dram, self.hardware.sram, self.hardware.npu
        moved = kinds.read_bytes + kinds.write_bytes
        eighths = (
            kinds.macs_int8 * npu.work_eighths(8)
            + kinds.macs_msb * npu.work_eighths(self.sizes.msb_bits)
            + kinds.macs_full * npu.work_eighths(self.sizes.msb_bits, self.sizes.lsb_bits)
        )
        tiles = -(-kinds.read_bytes // sram.tile_bytes)
        full_tokens = kinds.macs_full // np.maximum(kinds.weights, 1)
        stream = _each(dram.read_ps, moved)
        first = _each(dram.read_ps, np.minimum(moved, sram.tile_bytes)) if sram.double_buffered else stream
        compute = _each(
            self._compute_ps, eighths, tiles, kinds.tokens, full_tokens, kinds.weights, kinds.role, kinds.pairs
        )
        # An overhead begins when stream and computation have ended, whichever is the later.
        overhead = npu.layer_overhead_ps * (kinds.role == ROUTED_ATTENTION)
        after_first = np.maximum(stream, first + compute) - first + overhead
        times = OpTimes(
            stream_ps=stream,
            first_ps=first,
            compute_ps=np.where(overhead > 0, after_first, compute),
            busy_ps=compute + overhead,
            eighths=eighths,
            activations=self._rows(kinds.read_bytes) + self._rows(kinds.write_bytes),
            exchange_ps=np.zeros_like(stream),
        )
        return times if self.hardware.interconnect is None else self._on_links(kinds, times, self.hardware.interconnect)

    def _on_links(self, kinds: Any, times: OpTimes, links: InterconnectTier) -> OpTimes:
        """Give exchanges their time; what another device does meanwhile takes 1 ps, the least that there is."""
        exchange = np.where(kinds.exchanged_bytes > 0, _each(links.exchange_ps, kinds.link_bytes), 0)
        away = (exchange > 0) | (kinds.beside > 0)
        return replace(
            times,
            stream_ps=np.where(away, 1, times.stream_ps),
            first_ps=np.where(away, 1, times.first_ps),
            compute_ps=np.where(away, np.maximum(exchange - 1, 0), times.compute_ps),
            busy_ps=np.where(away, 0, times.busy_ps),
            exchange_ps=exchange,
        )

    def _compute_ps(
        self, eighths: int, tiles: int, tokens: int, full_tokens: int, weights: int, role: int, pairs: int
    ) -> int:
        work = Work(eighths, tiles, tokens, full_tokens, weights, partial(products, self.model, role, pairs))
        return self.hardware.npu.compute_ps(work, self.sizes.msb_bits, self.sizes.lsb_bits)

    def _read_times(self, cold_sizes: IntArray) -> ReadTimes:
        flash, dram = self.hardware.flash, self.hardware.dram
        starts = np.array(flash.heat_starts_ps, dtype=np.int64)
        sizes, busy = np.tile(cold_sizes, len(starts)), np.repeat(starts, len(cold_sizes))
        return ReadTimes(
            lanes=flash.lanes,
            latency_ps=flash.latency_ps,
            pipe_ps=_each(flash.pipe_ps, sizes, busy),
            lane_ps=_each(flash.lane_ps, sizes),
            write_ps=_each(dram.fill_ps, sizes),
            activations=self._rows(sizes),
        )

    def _rows(self, size_bytes: IntArray) -> IntArray:
        return -(-size_bytes // self.hardware.dram.row_bytes)


def _each(law: Callable[..., int], *columns: NDArray[Any]) -> IntArray:
    """Apply a law of whole numbers row by row, once for equal rows."""
    known: dict[tuple[Any, ...], int] = {}
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return np.array([known[row] if row in known else known.setdefault(row, law(*row)) for row in rows], dtype=np.int64)
