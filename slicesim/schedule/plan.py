"""From operations to durations: the table of picoseconds that every engine is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.decide.demand import SliceSizes
from slicesim.hardware import Hardware
from slicesim.schedule.workload import Workload

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """A workload with the time of every part on one device; all durations int64, at least 1 ps.

    op_stream_ps: on the DRAM pipe; op_first_ps: until the first tile is in SRAM; op_compute_ps: on the MAC array;
    op_eighths: work in eighths of an INT8 MAC; op_activations, read_activations: DRAM rows opened;
    read_latency_ps (one number), read_pipe_ps, read_lane_ps: in flash; read_write_ps: the fill on the DRAM pipe.
    """

    workload: Workload
    lanes: int
    op_stream_ps: IntArray
    op_first_ps: IntArray
    op_compute_ps: IntArray
    op_eighths: IntArray
    op_activations: IntArray
    read_latency_ps: int
    read_pipe_ps: IntArray
    read_lane_ps: IntArray
    read_write_ps: IntArray
    read_activations: IntArray


def build_plan(workload: Workload, hardware: Hardware, sizes: SliceSizes) -> Plan:
    """Work out every duration once, in Python integers."""
    flash, dram, sram, npu = hardware.flash, hardware.dram, hardware.sram, hardware.npu
    moved = workload.op_read_bytes + workload.op_write_bytes
    eighths = (
        workload.op_macs_int8 * npu.work_eighths(8)
        + workload.op_macs_msb * npu.work_eighths(sizes.msb_bits)
        + workload.op_macs_full * npu.work_eighths(sizes.msb_bits, sizes.lsb_bits)
    )
    tiles = -(-workload.op_read_bytes // sram.tile_bytes)

    def rows(size_bytes: IntArray) -> IntArray:
        return -(-size_bytes // dram.row_bytes)

    return Plan(
        workload=workload,
        lanes=flash.lanes,
        op_stream_ps=_each(dram.transfer_ps, moved),
        op_first_ps=_each(dram.transfer_ps, np.minimum(moved, sram.tile_bytes)),
        op_compute_ps=_each(npu.compute_ps, eighths, tiles, workload.op_tokens > 1),
        op_eighths=eighths,
        op_activations=rows(workload.op_read_bytes) + rows(workload.op_write_bytes),
        read_latency_ps=flash.latency_ps,
        read_pipe_ps=_each(flash.pipe_ps, workload.read_bytes),
        read_lane_ps=_each(flash.lane_ps, workload.read_bytes),
        read_write_ps=_each(dram.transfer_ps, workload.read_bytes),
        read_activations=rows(workload.read_bytes),
    )


def _each(law: Callable[..., int], *columns: NDArray[Any]) -> IntArray:
    """Apply a law of whole numbers row by row, once per distinct row."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        distinct, which = np.unique(column, return_inverse=True)
        code = code * max(1, len(distinct)) + which
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    rows = zip(*(column[first].tolist() for column in columns), strict=True)
    return np.array([law(*row) for row in rows], dtype=np.int64)[which]
