"""Codes as dense bits: b bits each, the first code in the lowest bits of the first byte (docs/formats.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.compiled import jit

Bytes = NDArray[np.uint8]


def pack_bits(codes: Bytes, bits: int, out: Bytes, *, lowest: int = 0, start: int = 0) -> int:
    """Write bits ``lowest`` to ``lowest + bits - 1`` of each code into ``out``, from bit number ``start`` on.

    codes, out: one axis, in one piece; what lies in ``out`` before ``start`` stays. Returns the number of the bit after
    the last one. Raises ValueError for bits outside 1 to 8 and where ``out`` is too short.
    """
    end = _checked(len(codes), bits, out, start)
    _pack(codes, bits, lowest, out, start)
    return end


def unpack_bits(packed: Bytes, bits: int, count: int, *, start: int = 0) -> Bytes:
    """Read ``count`` codes of ``bits`` bits from bit number ``start`` on.

    Raises ValueError for bits outside 1 to 8 and where ``packed`` is too short.
    """
    _checked(count, bits, packed, start)
    codes = np.empty(count, dtype=np.uint8)
    _unpack(packed, bits, start, codes)
    return codes


def _checked(count: int, bits: int, packed: Bytes, start: int) -> int:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must lie in 1 to 8, is {bits}")
    end = start + count * bits
    if end > 8 * len(packed):
        raise ValueError(f"{len(packed)} bytes are too few for {end} bits")
    return end


@jit
def _pack(codes: Any, bits: Any, lowest: Any, out: Any, start: Any) -> None:
    mask = (1 << bits) - 1
    place, filled = start >> 3, start & 7
    waiting = np.int64(out[place]) & ((1 << filled) - 1) if filled else 0
    for code in codes:
        waiting |= ((np.int64(code) >> lowest) & mask) << filled
        filled += bits
        if filled >= 8:
            out[place] = waiting & 255
            place += 1
            waiting >>= 8
            filled -= 8
    if filled:
        out[place] = waiting


@jit
def _unpack(packed: Any, bits: Any, start: Any, codes: Any) -> None:
    mask = (1 << bits) - 1
    for number in range(len(codes)):
        bit = start + number * bits
        place, skipped = bit >> 3, bit & 7
        code = np.int64(packed[place]) >> skipped
        if skipped + bits > 8:
            code |= np.int64(packed[place + 1]) << (8 - skipped)
        codes[number] = code & mask
