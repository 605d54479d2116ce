"""AMAT: one asymmetric code per weight, whose upper bits are a code of their own (slicemoe.md 1.3, SliceMoE's AMAT).

The low-bit code is the high-bit code shifted right, with the zero point shifted by the same amount and the scale
multiplied by 2^shift. No calibration, no second copy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Codes = NDArray[np.uint8]


class Quantised(NamedTuple):
    """Codes [groups, group] (uint8) with one scale (float64) and one zero point (uint8) per group, [groups, 1]."""

    codes: Codes
    scale: FloatArray
    zero: Codes


def quantise(weights: FloatArray, bits: int, group: int = 32) -> Quantised:
    """Quantise group by group: min/max range that includes 0, round to nearest, unsigned codes.

    weights: any shape whose size is a multiple of ``group``. Raises ValueError otherwise, or for bits outside 2 to 8.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must lie in 2 to 8, is {bits}")
    if weights.size % group:
        raise ValueError(f"{weights.size} weights do not divide into groups of {group}")
    grouped = np.asarray(weights, dtype=np.float64).reshape(-1, group)
    low = np.minimum(grouped.min(axis=1, keepdims=True), 0.0)
    high = np.maximum(grouped.max(axis=1, keepdims=True), 0.0)
    top = 2**bits - 1
    scale = (high - low) / top
    scale[scale == 0] = 1.0
    zero = np.clip(np.round(-low / scale), 0, top)
    codes = np.clip(np.round(grouped / scale) + zero, 0, top)
    return Quantised(codes.astype(np.uint8), scale, zero.astype(np.uint8))


def dequantise(quantised: Quantised) -> FloatArray:
    """Return the weights [groups, group] that the codes stand for."""
    return quantised.scale * (quantised.codes.astype(np.float64) - quantised.zero)


def split(codes: Codes, shift: int) -> tuple[Codes, Codes]:
    """Cut codes into the MSB slice (code >> shift) and the LSB slice (the lowest ``shift`` bits)."""
    return (codes >> shift).astype(np.uint8), (codes & ((1 << shift) - 1)).astype(np.uint8)


def rebuild(msb: Codes, lsb: Codes, shift: int) -> Codes:
    """Put the slices together again, bit for bit."""
    return ((msb << shift) | lsb).astype(np.uint8)


def truncate(high: Quantised, shift: int, *, shift_zero: bool = True) -> Quantised:
    """Return the code of the MSB slice alone. ``shift_zero=False`` shows what goes wrong without AMAT's shift."""
    zero = high.zero >> shift if shift_zero else high.zero
    return Quantised((high.codes >> shift).astype(np.uint8), high.scale * 2.0**shift, zero.astype(np.uint8))
