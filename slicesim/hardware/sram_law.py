"""SRAM energy by capacity and node, leakage, and what fits (hardware.md 3)."""

from __future__ import annotations

from math import sqrt

#: CACTI 7, 22 nm, low operating power: read energy of a bank of 1 KiB by the square-root law that the larger ones
#: follow (64 KiB to 8 MiB within 12 %, measured in tests/hardware). Longer word and bit lines cost as the bank's edge.
READ_22NM_PJ_PER_BYTE_OF_1_KIB = 0.0410

#: Writing over reading, 22 nm: 0.78 to 0.97 from 64 KiB to 8 MiB.
WRITE_OVER_READ = 0.86

#: Dynamic energy of a node over 22 nm. 45 nm: CACTI (0.35 the other way). 7 and 5 nm: hardware.md 3, +/- 0.15, since
#: SRAM scales worse than logic; 5 nm is taken as 7 nm.
NODE_OVER_22NM = {45: 1 / 0.35, 22: 1.0, 7: 0.45, 5: 0.45, 4: 0.45}

#: Leakage by kind of cell. lop: CACTI 22 nm low operating power; lstp: low standby power; mobile: hardware.md 0.
LEAKAGE_UW_PER_KIB = {"lop": 23.0, "mobile": 5.0, "lstp": 0.06}


def read_pj_per_byte(capacity_kib: float, node_nm: int) -> float:
    """Energy of reading a byte: a x capacity^0.5 x node. Below 64 KiB it is too high by up to 1.7 times."""
    return READ_22NM_PJ_PER_BYTE_OF_1_KIB * sqrt(capacity_kib) * NODE_OVER_22NM[node_nm]


def write_pj_per_byte(capacity_kib: float, node_nm: int) -> float:
    """Energy of writing a byte."""
    return WRITE_OVER_READ * read_pj_per_byte(capacity_kib, node_nm)


def leakage_mw(capacity_kib: float, cells: str) -> float:
    """Static power of a scratchpad: uW per KiB x KiB."""
    return LEAKAGE_UW_PER_KIB[cells] * capacity_kib * 1e-3


def largest_tile_bytes(capacity_kib: float, other_bytes: int = 0) -> int:
    """Largest weight tile of which two fit beside activations and partial sums; 0 where double buffering does not."""
    return max(0, (int(capacity_kib * 1024) - other_bytes) // 2)
