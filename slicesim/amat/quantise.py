"""AMAT: one asymmetric code per weight, whose upper bits are a code of their own (slicemoe.md 1.3, SliceMoE's AMAT).

The low-bit code is the high-bit code shifted right, with the zero point shifted by the same amount and the scale
multiplied by 2^shift. No calibration, no second copy.

All arithmetic is float32, and the scale is one that fp16 holds, because that is how it is stored: codes are made with
the very scale that a reader finds, so unpacking is exact. It is rounded up, so that the codes reach over the group's
whole range. Every function takes numpy arrays or torch tensors and gives back the same kind, with the same codes.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

#: A numpy array or a torch tensor.
Array = Any

#: Weights quantised at a time: what is worked on stays in the processor's cache.
BLOCK = 1 << 16


class Quantised(NamedTuple):
    """Codes [groups, group] (uint8) with one scale (float32) and one zero point (uint8) per group, [groups, 1]."""

    codes: Array
    scale: Array
    zero: Array


@np.errstate(over="ignore")  # said by the errors below
def quantise(weights: Array, bits: int, group: int = 32) -> Quantised:
    """Quantise group by group: min/max range that includes 0, round half to even, unsigned codes.

    weights: any shape; groups run along the last axis, row after row. A last group that is not full is filled up with
    zeros, which its range includes anyway.
    Raises ValueError for bits outside 2 to 8, for NaN or infinity, and for a range that no fp16 scale reaches over.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must lie in 2 to 8, is {bits}")
    if group < 1:
        raise ValueError(f"a group must hold at least 1 weight, not {group}")
    xp = namespace(weights)
    grouped = _grouped(xp, weights, group)
    codes = xp.empty(grouped.shape, dtype=xp.uint8, device=grouped.device)
    scale = xp.empty((len(grouped), 1), dtype=xp.float32, device=grouped.device)
    zero = xp.empty((len(grouped), 1), dtype=xp.uint8, device=grouped.device)
    step = max(1, BLOCK // group)
    for start in range(0, len(grouped), step):
        part = slice(start, start + step)
        codes[part], scale[part], zero[part] = _quantise(xp, grouped[part], 2**bits - 1)
    return Quantised(codes, scale, zero)


def dequantise(quantised: Quantised, shape: tuple[int, ...] | None = None) -> Array:
    """Return the weights (float32) that the codes stand for: [groups, group], or in the shape that was quantised."""
    xp = namespace(quantised.codes)
    weights = xp.asarray(quantised.codes, dtype=xp.float32)
    weights -= quantised.zero
    weights *= quantised.scale
    return weights if shape is None else weights.reshape(-1)[: _size(shape)].reshape(shape)


def split(codes: Array, shift: int) -> tuple[Array, Array]:
    """Cut codes into the MSB slice (code >> shift) and the LSB slice (the lowest ``shift`` bits)."""
    return codes >> shift, codes & ((1 << shift) - 1)


def rebuild(msb: Array, lsb: Array, shift: int) -> Array:
    """Put the slices together again, bit for bit."""
    return (msb << shift) | lsb


def truncate(high: Quantised, shift: int, *, shift_zero: bool = True) -> Quantised:
    """Return the code of the MSB slice alone. ``shift_zero=False`` shows what goes wrong without AMAT's shift."""
    zero = high.zero >> shift if shift_zero else high.zero
    return Quantised(high.codes >> shift, high.scale * float(1 << shift), zero)


def group_range(grouped: Array) -> tuple[Array, Array]:
    """Return each group's smallest and largest weight, 0 included: [groups, group] to [groups, 1] twice."""
    xp = namespace(grouped)
    # numpy folds whole rows much faster than it goes along short ones.
    columns = xp.empty((grouped.shape[1], len(grouped)), dtype=xp.float32, device=grouped.device)
    columns[:] = grouped.T
    low, high = xp.amin(columns, axis=0), xp.amax(columns, axis=0)
    return xp.clip(low, None, 0.0)[:, None], xp.clip(high, 0.0, None)[:, None]


def fp16_scale(exact: Array) -> Array:
    """Return, for each scale (float32, not negative), the smallest number of fp16 that is not below it; 1 for 0.

    Raises ValueError above fp16's range (65504).
    """
    xp = namespace(exact)
    half = xp.asarray(exact, dtype=xp.float16)
    # Positive floats are ordered as their bits are: the next one up is one more.
    is_below = xp.asarray(half, dtype=xp.float32) < exact
    scale = xp.asarray((half.view(xp.int16) + is_below).view(xp.float16), dtype=xp.float32)
    if not bool(xp.isfinite(scale).all()):
        raise ValueError("a group's weights span more than an fp16 scale can hold")
    return xp.where(scale == 0, xp.ones_like(scale), scale)


def namespace(array: Array) -> Any:
    """Return the module that an array's functions come from: torch for a tensor, numpy for everything else."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return torch
    return np


def _grouped(xp: Any, weights: Array, group: int) -> Array:
    """Return the weights as float32 [groups, group]."""
    flat = xp.asarray(weights, dtype=xp.float32).reshape(-1)
    missing = -len(flat) % group
    if missing:
        flat = xp.concatenate((flat, xp.zeros(missing, dtype=xp.float32, device=flat.device)))
    return flat.reshape(-1, group)


def _quantise(xp: Any, grouped: Array, top: int) -> tuple[Array, Array, Array]:
    low, high = group_range(grouped)
    if not bool((xp.isfinite(low) & xp.isfinite(high)).all()):
        raise ValueError("weights hold NaN or infinity")
    scale = fp16_scale((high - low) / top)
    zero = xp.clip(xp.round(-low / scale), 0, top)
    codes = grouped / scale
    xp.round(codes, out=codes)
    codes += zero
    xp.clip(codes, 0, top, out=codes)
    return xp.asarray(codes, dtype=xp.uint8), scale, xp.asarray(zero, dtype=xp.uint8)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
