"""V15: the block size at which an NVMe drive saturates (Neuron Chunking, arXiv 2511.18692)."""

from __future__ import annotations

from dataclasses import replace

from slicesim.hardware.closed_loop import throughput_bytes_per_s
from slicesim.hardware.flash_law import FlashLaw
from slicesim.validation.reference import reference_rows
from slicesim.validation.rows import Row, Table

#: The paper does not say what counts as saturated: this share of the ceiling does here.
SATURATED = 0.99


def saturation_kib(law: FlashLaw) -> int:
    """Smallest block, in whole KiB, that reaches the share of the ceiling; the throughput rises with the block."""
    low, high = 1, 65536
    while low < high:
        middle = (low + high) // 2
        if throughput_bytes_per_s(law, middle * 1024) >= SATURATED * law.ceiling_bytes_per_s:
            high = middle
        else:
            low = middle + 1
    return low


def block_size_table(law: FlashLaw) -> Table:
    """The drive of the NVMe table with another ceiling and other threads."""
    rows = []
    for row in reference_rows("nvme_saturation"):
        ceiling = round(float(row["ceiling_gbs"]) * 1e9)
        drive = replace(law, ceiling_bytes_per_s=ceiling, lane_bytes_per_s=ceiling, lanes=int(row["threads"]))
        rows.append(
            Row(
                f"V15 {row['drive']}",
                "saturating block, KiB",
                float(row["saturating_kib"]),
                saturation_kib(drive),
                "predicted",
            )
        )
    text = (
        f"Smallest block that reaches {SATURATED:.0%} of the ceiling (the paper names no share). Latency and gap are "
        "those of another drive (the table above), which is what these rows show: they differ."
    )
    return Table("Flash: block sizes (V15)", text, rows)
