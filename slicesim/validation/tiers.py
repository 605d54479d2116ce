"""The laws of the tiers against their tables: flash, DRAM, systolic arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

from slicesim.hardware.closed_loop import throughput_bytes_per_s
from slicesim.hardware.dram_energy import random_energy, stream_energy
from slicesim.hardware.dram_law import random_share, stream_share, unloaded_latency_ns
from slicesim.hardware.flash_law import FlashLaw
from slicesim.hardware.memories import MEMORIES
from slicesim.hardware.systolic import SystolicArray
from slicesim.validation.reference import reference_rows
from slicesim.validation.rows import Kind, Row, Table

MIB = 2**20
FLOWS = {"ws": "weight-stationary", "os": "output-stationary"}

_RUNS = {"by-lanes": "run by lanes", "by-size": "run by size", "held-out": "used in no fit"}

#: Two constants of the DRAM controller were chosen on these.
_CHOSEN_ON = ("lpddr4-2400-x64-2rank", "lpddr4x-4266-4rank", "ddr4-3200", "ddr4-3200-column")


def ufs_table(law: FlashLaw) -> Table:
    """UFS 4.x by read size and lanes, on the phone's flash with as many lanes as the row."""
    rows = [
        Row(
            f"{row['read_kib']} KiB, {row['lanes']} lanes, {_RUNS[row['run']]}",
            "MiB/s",
            float(row["mib_per_s"]),
            throughput_bytes_per_s(replace(law, lanes=int(row["lanes"])), int(row["read_kib"]) * 1024) / MIB,
            "predicted" if row["run"] == "held-out" else "fitted",
        )
        for row in reference_rows("ufs4_reads")
    ]
    text = (
        "OnePlus 15R, random O_DIRECT reads (BigMoeOnEdge). One ceiling for both measuring runs, which differ by 3 % "
        "(`docs/tiers.md` fits them apart)."
    )
    return Table("Flash: UFS 4.x", text, rows)


def nvme_table(law: FlashLaw) -> Table:
    """NVMe by read size."""
    rows = [
        Row(
            f"{row['read_kib']} KiB, {row['in_flight']} in flight",
            "GB/s",
            float(row["gb_per_s"]),
            throughput_bytes_per_s(replace(law, lanes=int(row["in_flight"])), int(row["read_kib"]) * 1024) / 1e9,
            "fitted",
        )
        for row in reference_rows("nvme_reads")
    ]
    return Table("Flash: NVMe", "AWS m8gd local NVMe, fio; `hwconfigs/parts/flash-nvme-pcie4.yaml`.", rows)


def dram_table() -> Table:
    """DRAM by memory, against DRAMsim3."""
    rows = [row for reference in reference_rows("dram_streaming") for row in _dram_rows(reference)]
    text = (
        "DRAMsim3, ten configurations (shares of the peak, ns, pJ/bit). Two constants of the controller were chosen "
        "on the rows marked fitted, the others follow from timing and currents."
    )
    return Table("DRAM", text, rows)


def _dram_rows(reference: dict[str, str]) -> Iterator[Row]:
    memory = MEMORIES[reference["memory"]]
    kind: Kind = "fitted" if memory.name in _CHOSEN_ON else "predicted"
    figures: dict[str, tuple[str, Callable[[], float]]] = {
        "seq_1mib_share": ("stream of 1 MiB", lambda: stream_share(memory, MIB)),
        "seq_8mib_share": ("stream of 8 MiB", lambda: stream_share(memory, 8 * MIB)),
        "random_share": ("random reads", lambda: random_share(memory, memory.burst_bytes)),
        "unloaded_ns": ("one read alone, ns", lambda: unloaded_latency_ns(memory, 400 * memory.timing.clock_ns)),
        "seq_pj_per_bit": ("stream, pJ/bit", lambda: stream_energy(memory).total_pj_per_bit),
        "random_pj_per_bit": ("random, pJ/bit", lambda: random_energy(memory, memory.burst_bytes).total_pj_per_bit),
    }
    for column, (what, law) in figures.items():
        if reference[column]:
            yield Row(memory.name, what, float(reference[column]), law(), kind)


def gemm_table() -> Table:
    """Cycles of matrix products, against SCALE-Sim."""
    rows = []
    for row in reference_rows("gemm_cycles"):
        array = SystolicArray(int(row["rows"]), int(row["columns"]), cast(Any, FLOWS[row["dataflow"]]))
        cycles = array.cycles(int(row["m"]), int(row["n"]), int(row["k"]))
        name = f"{row['m']} x {row['k']} x {row['n']} on {row['rows']} x {row['columns']}, {row['dataflow']}"
        rows.append(Row(name, "cycles", float(row["cycles"]), cycles, "predicted"))
    return Table("Systolic array", "SCALE-Sim 3.0.0; closed form, nothing fitted.", rows)
