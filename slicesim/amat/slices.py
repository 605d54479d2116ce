"""The two slices of a weight matrix as bytes (docs/formats.md): what lies in flash, and what comes back from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slicesim.amat.packing import Bytes, pack_bits, unpack_bits
from slicesim.amat.quantise import Quantised, rebuild
from slicesim.models.geometry import SCALE_BYTES, slice_bytes
from slicesim.scenario.schema import Amat


def slice_sizes(weights: int, amat: Amat) -> tuple[int, int]:
    """Bytes of the MSB and the LSB slice of a matrix."""
    return slice_bytes(weights, amat.high_bits, amat.low_bits, amat.group)


def to_slices(quantised: Quantised, weights: int, amat: Amat) -> tuple[Bytes, Bytes]:
    """Write the codes of a matrix as MSB and LSB slice.

    quantised: numpy, made with ``amat.high_bits`` and ``amat.group``; weights: how many of its codes count.
    The MSB slice is the fp16 scales, then as one row of bits the upper bits of all codes and all zero points; the LSB
    slice is the lower bits of all codes.
    """
    msb, lsb = (np.zeros(size, dtype=np.uint8) for size in slice_sizes(weights, amat))
    codes = quantised.codes.reshape(-1)[:weights]
    shift = amat.high_bits - amat.low_bits
    scales = quantised.scale.astype("<f2").reshape(-1).view(np.uint8)
    msb[: len(scales)] = scales
    end = pack_bits(codes, amat.low_bits, msb, lowest=shift, start=8 * len(scales))
    pack_bits(quantised.zero.reshape(-1), amat.high_bits, msb, start=end)
    pack_bits(codes, shift, lsb)
    return msb, lsb


def from_slices(msb: Bytes, lsb: Bytes | None, weights: int, amat: Amat) -> Quantised:
    """Read a matrix back: at high precision with both slices, at low precision with the MSB slice alone.

    Raises ValueError where the slices have another size, or hold a scale that no packing writes.
    """
    sizes = slice_sizes(weights, amat)
    if (len(msb), sizes[1] if lsb is None else len(lsb)) != sizes:
        raise ValueError(f"slices of {weights} weights take {sizes[0]} and {sizes[1]} bytes")
    groups = -(-weights // amat.group)
    shift = amat.high_bits - amat.low_bits
    scale = msb[: groups * SCALE_BYTES].view("<f2").astype(np.float32).reshape(-1, 1)
    if not ((scale > 0) & np.isfinite(scale)).all():
        raise ValueError("a scale is not a positive number")
    stream = 8 * groups * SCALE_BYTES
    upper = unpack_bits(msb, amat.low_bits, weights, start=stream)
    zero = unpack_bits(msb, amat.high_bits, groups, start=stream + weights * amat.low_bits).reshape(-1, 1)
    if lsb is None:
        return Quantised(_in_groups(upper, amat.group), scale * float(1 << shift), zero >> shift)
    return Quantised(_in_groups(rebuild(upper, unpack_bits(lsb, shift, weights), shift), amat.group), scale, zero)


def _in_groups(codes: Bytes, group: int) -> NDArray[np.uint8]:
    """Return the codes as [groups, group]; what a last group lacks is filled up."""
    missing = -len(codes) % group
    return (np.pad(codes, (0, missing)) if missing else codes).reshape(-1, group)
