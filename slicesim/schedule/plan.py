"""From operations to durations: the table of picoseconds that every engine is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from slicesim.decide.demand import SliceSizes
from slicesim.hardware import Hardware
from slicesim.schedule.workload import OpKind, OpKinds, Workload

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class OpTimes:
    """What each kind of operation costs on one device, int64 [kinds]; durations at least 1 ps.

    stream_ps: on the DRAM pipe; first_ps: until the first tile is in SRAM; compute_ps: on the MAC array; eighths: work
    in eighths of an INT8 MAC; activations: DRAM rows opened.
    """

    stream_ps: IntArray
    first_ps: IntArray
    compute_ps: IntArray
    eighths: IntArray
    activations: IntArray


@dataclass(frozen=True)
class ReadTimes:
    """What each kind of flash read costs, int64 [kinds], and lanes and latency, one number each.

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

    def __init__(self, hardware: Hardware, sizes: SliceSizes) -> None:
        self.hardware, self.sizes = hardware, sizes
        self._ops: WeakKeyDictionary[OpKinds, OpTimes] = WeakKeyDictionary()
        self._reads: ReadTimes | None = None

    def __call__(self, workload: Workload) -> Plan:
        """Put a workload's times beside it."""
        if self._reads is None:
            self._reads = self._read_times(workload.read_sizes.reshape(-1))
        return Plan(workload, self._times_of(workload.kinds), self._reads)

    def _times_of(self, kinds: OpKinds) -> OpTimes:
        """Work out the times of kinds that are new since this table was last seen."""
        times = self._ops.get(kinds)
        known = 0 if times is None else len(times.stream_ps)
        if times is None or known < len(kinds):
            new = self._op_times(OpKind(*(column[known:] for column in kinds.columns)))  # type: ignore[index]
            pairs = zip(vars(times or new).values(), vars(new).values(), strict=True)
            times = new if not known else OpTimes(*(np.concatenate(pair) for pair in pairs))
            self._ops[kinds] = times
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
        return OpTimes(
            stream_ps=_each(dram.transfer_ps, moved),
            first_ps=_each(dram.transfer_ps, np.minimum(moved, sram.tile_bytes)),
            compute_ps=_each(npu.compute_ps, eighths, tiles, kinds.tokens > 1),
            eighths=eighths,
            activations=self._rows(kinds.read_bytes) + self._rows(kinds.write_bytes),
        )

    def _read_times(self, sizes: IntArray) -> ReadTimes:
        flash, dram = self.hardware.flash, self.hardware.dram
        return ReadTimes(
            lanes=flash.lanes,
            latency_ps=flash.latency_ps,
            pipe_ps=_each(flash.pipe_ps, sizes),
            lane_ps=_each(flash.lane_ps, sizes),
            write_ps=_each(dram.transfer_ps, sizes),
            activations=self._rows(sizes),
        )

    def _rows(self, size_bytes: IntArray) -> IntArray:
        return -(-size_bytes // self.hardware.dram.row_bytes)


def _each(law: Callable[..., int], *columns: NDArray[Any]) -> IntArray:
    """Apply a law of whole numbers row by row, once for equal rows."""
    known: dict[tuple[Any, ...], int] = {}
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return np.array([known[row] if row in known else known.setdefault(row, law(*row)) for row in rows], dtype=np.int64)
